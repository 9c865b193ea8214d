"""The embedded servers: real, private, and they keep what they were given."""

import json
import socket
import stat
from pathlib import Path

import boto3
import httpx
import psycopg
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError

from cli.embedded import embedded_servers, read_state
from core.settings import Settings
from core.storage import ObjectStore


def plain_url(settings: Settings) -> str:
    return settings.database_url.get_secret_value().replace("+psycopg", "")


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    with embedded_servers(tmp_path, durable=False) as found:
        before = Settings.model_validate(found)
        with psycopg.connect(plain_url(before)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        redis.Redis.from_url(found["broker_url"]).set("kept", "7")
        ObjectStore(before).put("kept", b"7", content_type="text/plain")
    with embedded_servers(tmp_path, durable=False) as found:
        after = Settings.model_validate(found)
        with psycopg.connect(plain_url(after)) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        assert redis.Redis.from_url(found["broker_url"]).get("kept") == b"7"
        assert ObjectStore(after).get("kept") == b"7"
        assert found == {**found, **before.model_dump(include={"s3_endpoint"})}, "free ports are kept"


def test_an_initdb_that_was_killed_halfway_is_begun_again(tmp_path: Path) -> None:
    halfway = tmp_path / "postgres" / "cluster.new"
    halfway.mkdir(parents=True)
    (halfway / "PG_VERSION").write_text("18\n")
    with (
        embedded_servers(tmp_path, wanted={"postgres"}, durable=False) as found,
        psycopg.connect(plain_url(Settings.model_validate(found))),
    ):
        assert not halfway.exists()


def test_a_stale_pid_of_a_living_process_does_not_stop_postgres(tmp_path: Path) -> None:
    with embedded_servers(tmp_path, wanted={"postgres"}, durable=False):
        pass
    pid_file = tmp_path / "postgres" / "cluster" / "postmaster.pid"
    pid_file.write_text("1\n/somewhere\n")
    with (
        embedded_servers(tmp_path, wanted={"postgres"}, durable=False) as found,
        psycopg.connect(plain_url(Settings.model_validate(found))),
    ):
        assert pid_file.read_text().split("\n")[0] != "1"


def test_a_taken_port_is_replaced_silently(tmp_path: Path) -> None:
    with embedded_servers(tmp_path, wanted={"valkey"}, durable=False):
        pass
    state = read_state(tmp_path)
    assert state is not None
    with (
        socket.create_server(("127.0.0.1", state["ports"]["valkey"]["resp"])),
        embedded_servers(tmp_path, wanted={"valkey"}, durable=False) as found,
    ):
        assert redis.Redis.from_url(found["broker_url"]).ping()


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    with embedded_servers(tmp_path, durable=False):
        files = [path for path in tmp_path.rglob("*") if path.suffix in {".json", ".conf", ".key", ".toml"}]
        open_to_others = [
            path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077 and "cluster" not in path.parts
        ]
        assert files
        assert not open_to_others
        assert (
            json.loads((tmp_path / "state.json").read_text())["secret"]
            not in (tmp_path / "postgres/server.log").read_text()
        )


def test_the_bucket_is_closed_to_strangers(servers: dict[str, str]) -> None:
    stranger = boto3.client(
        "s3",
        endpoint_url=servers["s3_endpoint"],
        aws_access_key_id="hdb",
        aws_secret_access_key="guessed",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|AccessDenied|403"):
        stranger.list_objects_v2(Bucket="hdb")
    assert httpx.get(f"{servers['s3_endpoint']}/hdb?list-type=2").status_code == 403


def test_a_page_of_another_origin_may_not_read_the_bucket(servers: dict[str, str]) -> None:
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    assert httpx.options(f"{servers['s3_endpoint']}/hdb/picture", headers=asked).status_code == 403


def test_postgres_and_valkey_refuse_a_wrong_password(servers: dict[str, str]) -> None:
    settings = Settings.model_validate(servers)
    secret = settings.broker_url.get_secret_value().split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plain_url(settings).replace(secret, "guessed"))
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(servers["broker_url"].replace(secret, "guessed")).ping()
