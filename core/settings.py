"""Every environment variable of the service. Read once, at an entry point, and passed on as a value."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]


class Environment(StrEnum):
    """What a deployment is for; its keys say so."""

    LIVE = "live"
    TEST = "test"


class Acceleration(StrEnum):
    """What is done beyond running the networks as they are."""

    NONE = "none"
    BFLOAT16 = "bfloat16"
    COMPILE = "compile"


class Settings(BaseSettings):
    """The defaults fit `docker compose up`; `hdb up` fills in the embedded servers' addresses."""

    model_config = SettingsConfigDict(env_prefix="HDB_", extra="ignore")

    environment: Environment = Field(
        Environment.LIVE, description="Keys begin with `hdb_live_` or `hdb_test_`; the other ones are refused."
    )
    database_url: SecretStr = SecretStr("postgresql+psycopg://hdb:hdb@postgres:5432/hdb")
    broker_url: SecretStr = SecretStr("redis://valkey:6379/0")

    s3_endpoint: str | None = Field("http://s3:8333", description="None means Amazon's own endpoint.")
    s3_public_endpoint: str | None = Field(
        None, description="The address that presigned links name, if callers see another."
    )
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr = SecretStr("hdb")
    s3_secret_key: SecretStr = SecretStr("hdb-secret")
    s3_bucket: str = "hdb"
    s3_timeout_seconds: Seconds = 20
    presigned_seconds: int = Field(900, gt=0, le=900, description="How long a link to a picture works.")

    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, gt=0, lt=65536)
    public_url: HttpUrl | None = Field(
        None, description="The address that callers see; the embedded bucket lets pages from there in."
    )

    base_model: str = Field("mini", description="`mini`, or a Stable Diffusion 1.x/2.x folder or hub id.")
    base_model_name: str | None = Field(None, description="What callers call it; the folder's name if unset.")
    device: str = Field("auto", description="`auto` takes a GPU if there is one.")
    acceleration: Acceleration = Field(
        Acceleration.NONE,
        description="`bfloat16`: on a CPU too. `compile`: compiled blocks, channels_last, on a GPU only.",
    )
    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="So many jobs at most are claimed and run as one batch; `auto`: each worker measures it."
    )

    lease_seconds: Seconds = Field(60, description="How long a silent worker keeps its jobs.")
    sweep_seconds: Seconds = Field(5, description="How often the sweeper looks.")
    max_strikes: int = Field(3, gt=0, description="So many crashes of its worker fail a job.")
    max_attempts: int = Field(8, gt=0, description="A failure that may pass is final at this attempt.")
    max_queued_jobs: int = Field(10_000, gt=0, description="A fuller queue answers 503.")
    requests_per_minute: int = Field(6000, gt=0, description="By one key, counted by each API process.")
    max_account_jobs: int = Field(1000, gt=0, description="So many jobs of one account may be queued or running.")
    max_account_images: int = Field(10_000, gt=0, description="So many pictures an account may ask for in 24 hours.")
    max_running_seconds: Seconds = Field(1800, description="A job whose attempt runs longer is failed (`timed_out`).")
    max_step_seconds: Seconds = Field(600, description="A single step that takes longer is taken for a standstill.")

    stop_seconds: Seconds = Field(
        40, description="A worker that is told to stop has ended after so long, come what may."
    )

    max_photo_bytes: int = Field(20_000_000, gt=0)
    max_photo_pixels: int = Field(50_000_000, gt=0)
    picture_days: float = Field(30, gt=0, description="How long generated pictures are kept.")
    job_days: float = Field(90, gt=0, description="How long finished jobs and their events are kept.")
    export_hours: float = Field(24, gt=0, description="How long weights in other tools' formats are kept.")
    idempotency_hours: float = Field(24, gt=0)

    webhook_seconds: Seconds = Field(2, description="How often due webhooks are looked for.")
    webhook_private_addresses: bool = Field(False, description="Tests only: tell receivers on private addresses too.")

    log_json: bool = Field(True, description="One JSON object a line; off, coloured lines for a person.")

    @property
    def model_name(self) -> str:
        """The name of the base model in queues, rows and answers."""
        return self.base_model_name or Path(self.base_model.rstrip("/")).name

    @property
    def export_time(self) -> timedelta:
        """How long an export is kept."""
        return timedelta(hours=self.export_hours)

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without a heartbeat."""
        return timedelta(seconds=self.lease_seconds)
