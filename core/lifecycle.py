"""What a job is, which states it has, and which moves are legal. Pure: no I/O."""

from enum import StrEnum


class JobKind(StrEnum):
    """What a caller asked for."""

    PERSONALIZE = "personalize"
    GENERATE = "generate"
    EXPORT = "export"
    ERASE = "erase"


class JobStatus(StrEnum):
    """Where a job stands. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"


class Phase(StrEnum):
    """What a running job is doing."""

    VALIDATING = "validating"
    PREDICTING = "predicting"
    FINETUNING = "finetuning"
    GENERATING = "generating"
    STORING = "storing"


class WorkerRole(StrEnum):
    """Which processes report that they live."""

    GPU = "gpu"
    HOUSEKEEPING = "housekeeping"


GPU_KINDS = frozenset({JobKind.PERSONALIZE, JobKind.GENERATE})
# Tried again until they succeed, whatever happens: who asked to be forgotten is forgotten.
NEVER_GIVEN_UP = frozenset({JobKind.ERASE})

PHASES: dict[JobKind, tuple[Phase, ...]] = {
    JobKind.PERSONALIZE: (Phase.VALIDATING, Phase.PREDICTING, Phase.FINETUNING, Phase.STORING),
    JobKind.GENERATE: (Phase.GENERATING, Phase.STORING),
    JobKind.EXPORT: (Phase.STORING,),
    JobKind.ERASE: (Phase.STORING,),
}

FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED, JobStatus.REJECTED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELED, JobStatus.EXPIRED, JobStatus.FAILED}),
    JobStatus.RUNNING: FINAL | {JobStatus.QUEUED},
    **{status: frozenset() for status in FINAL},
}


def is_legal(before: JobStatus, after: JobStatus) -> bool:
    """May a job go from one state to the other? A phase change keeps the state."""
    return before == after or after in TRANSITIONS[before]


def queue_name(kind: JobKind, base_model: str) -> str:
    """The Celery queue whose bell wakes the workers for such jobs."""
    return f"gpu.{base_model}" if kind in GPU_KINDS else "housekeeping"
