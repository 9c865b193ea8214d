"""Jobs of kind `export`: fold a subject's weights into a LoRA file. Done by housekeeping, without torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.database import Sessions
from core.ids import new_id
from core.lifecycle import JobKind, Phase
from core.object_keys import export_key
from core.schemas import ExportParams
from core.settings import Settings
from core.storage import ObjectMissing, ObjectStore
from core.tables import Adapter, Export, Job
from hyperdreambooth import adapter as adapter_file
from hyperdreambooth.basis import load_learned
from hyperdreambooth.lora_export import LoraFormat, to_lora
from worker.attempts import OnStep
from worker.failures import SubjectErased
from worker.ledger import Record
from worker.model_source import model_source
from worker.personalize import ADAPTER_TYPE


@dataclass(frozen=True)
class ExportRequest:
    """A stored adapter, and the form it is wanted in."""

    weights: bytes
    layout: LoraFormat


class Exporting:
    """The work of an `export` job."""

    kind = JobKind.EXPORT

    def __init__(self, sessions: Sessions, store: ObjectStore, settings: Settings) -> None:
        self._sessions, self._store, self._keep = sessions, store, settings.export_time
        self._learned = load_learned(Path(model_source(settings)))

    def fetch(self, job: Job) -> ExportRequest:
        """The adapter's file."""
        params = ExportParams.model_validate(job.params)
        with self._sessions() as session:
            adapter = session.get(Adapter, params.adapter_id)
        if adapter is None:
            raise ObjectMissing("the weights were erased")
        return ExportRequest(self._store.get(adapter.object_key), LoraFormat(params.format))

    def run(self, inputs: Sequence[ExportRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        """One after the other: each needs the memory of one layer."""
        results: list[bytes | Exception] = []
        for done, request in enumerate(inputs):
            on_step(Phase.STORING, done, len(inputs))
            try:
                adapter = adapter_file.Adapter.from_bytes(request.weights)
                results.append(to_lora(adapter, request.layout, self._learned))
            except Exception as error:
                results.append(error)
        return results

    def store(self, job: Job, output: bytes) -> Record:
        """The file under a key of this attempt's own, then its row."""
        assert job.subject_id is not None
        params = ExportParams.model_validate(job.params)
        key = export_key(job.subject_id, job.id, job.attempt)
        self._store.put(key, output, content_type=ADAPTER_TYPE)
        export = Export(
            id=new_id(),
            subject_id=job.subject_id,
            adapter_id=params.adapter_id,
            format=params.format,
            object_key=key,
            sha256=hashlib.sha256(output).hexdigest(),
            size=len(output),
            expires_at=func.now() + self._keep,
        )

        def record(session: Session) -> None:
            if session.get(Adapter, params.adapter_id) is None:
                raise SubjectErased
            session.add(export)

        return record

    def clean_up(self, job: Job) -> None:
        """Nothing is left behind but the export, which the sweeper deletes in its time."""
