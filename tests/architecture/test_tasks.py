import core.queue
import worker.tasks


def test_the_queue_names_the_tasks_that_the_worker_has() -> None:
    named = {value for name, value in vars(core.queue).items() if name.isupper() and str(value).startswith("worker.")}
    registered = {name for name in core.queue.celery_app.tasks if not name.startswith("celery.")}
    assert worker.tasks.celery_app is core.queue.celery_app
    assert named == registered
