"""The bucket, through boto3. Synchronous: the API calls it in a thread."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from core.errors import Unavailable
from core.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

CONNECT_SECONDS = 3
DELETED_AT_ONCE = 1000  # S3 takes no more
NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound"})


class ObjectMissing(Exception):
    """There is no object by that key."""


class StorageUnavailable(Unavailable):
    """The bucket doesn't answer; the same call may succeed later."""

    title = "The object store is not reachable"


@dataclass(frozen=True)
class UploadForm:
    """Where to POST a file, and the fields to send before it."""

    url: str
    fields: dict[str, str]


@dataclass(frozen=True)
class UploadPut:
    """Where to PUT a file, and the headers to send with it."""

    url: str
    headers: dict[str, str]


class ObjectStore:
    """Puts, gets, erases and links objects of one bucket."""

    def __init__(self, settings: Settings) -> None:
        self.bucket = settings.s3_bucket
        self._client = make_client(settings, settings.s3_endpoint)
        public = settings.s3_public_endpoint or settings.s3_endpoint
        self._signer = make_client(settings, public)
        self._link_seconds = settings.presigned_seconds

    def put(self, key: str, content: bytes, *, content_type: str) -> None:
        """Write an object whole."""
        with _translated(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Read an object whole; OverflowError, before it is read, if it is larger than that."""
        with _translated(key):
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            if max_bytes is not None and found["ContentLength"] > max_bytes:
                found["Body"].close()
                raise OverflowError(key)
            return found["Body"].read()

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with the prefix."""
        with _translated(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def children(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """Names of the objects and folders right under a prefix, in order, beginning behind that name."""
        with _translated(prefix):
            found = self._client.list_objects_v2(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/", StartAfter=f"{prefix}{after}", MaxKeys=limit
            )
        keys = [entry["Key"] for entry in found.get("Contents", ())]
        folders = [entry["Prefix"] for entry in found.get("CommonPrefixes", ())]
        return sorted({key.removeprefix(prefix).strip("/") for key in (*keys, *folders)} - {"", after})

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is fine."""
        with _translated(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything under a prefix; returns how many objects that were."""
        keys = list(self.keys(prefix))
        for start in range(0, len(keys), DELETED_AT_ONCE):
            some: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            with _translated(prefix):
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": some, "Quiet": True})
            if answer.get("Errors"):
                raise StorageUnavailable
        return len(keys)

    def link(self, key: str, *, filename: str) -> str:
        """A presigned address that works for a few minutes: never stored, never logged. Who saves it gets that name."""
        disposition = f'inline; filename="{filename}"'
        where = {"Bucket": self.bucket, "Key": key, "ResponseContentDisposition": disposition}
        return self._signer.generate_presigned_url("get_object", Params=where, ExpiresIn=self._link_seconds)

    def upload_form(self, key: str, *, content_type: str, max_bytes: int, expires_seconds: int) -> UploadForm:
        """A presigned POST: this key, a picture, not more than so many bytes."""
        signed = self._signer.generate_presigned_post(
            self.bucket,
            key,
            Fields={"Content-Type": content_type},
            Conditions=[["starts-with", "$Content-Type", "image/"], ["content-length-range", 1, max_bytes]],
            ExpiresIn=expires_seconds,
        )
        return UploadForm(url=signed["url"], fields=signed["fields"])

    def upload_put(self, key: str, *, content_type: str, size: int, expires_seconds: int) -> UploadPut:
        """A presigned PUT of exactly so many bytes."""
        where = {"Bucket": self.bucket, "Key": key, "ContentType": content_type, "ContentLength": size}
        url = self._signer.generate_presigned_url("put_object", Params=where, ExpiresIn=expires_seconds)
        return UploadPut(url=url, headers={"Content-Type": content_type, "Content-Length": str(size)})

    def is_ready(self) -> bool:
        """Does the bucket answer?"""
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError):
            return False
        return True

    def create_bucket(self) -> None:
        """Make the bucket, or find that it is ours already."""
        known = self._client.exceptions
        with suppress(known.BucketAlreadyOwnedByYou, known.BucketAlreadyExists):
            self._client.create_bucket(Bucket=self.bucket)


def make_client(settings: Settings, endpoint: str | None) -> "S3Client":
    """A client with our time limits; path-style addresses, since our own endpoints have no wildcard names."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint else "auto"},
            retries={"max_attempts": 2, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=settings.s3_timeout_seconds,
            max_pool_connections=32,
        ),
    )


class _translated:
    """boto3's errors become ours: missing, or not reachable."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in NOT_THERE:
            raise ObjectMissing(self.key) from error
        if isinstance(error, (BotoCoreError, ClientError)):
            raise StorageUnavailable from error
