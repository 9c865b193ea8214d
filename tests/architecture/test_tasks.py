from importlib import import_module

import core.queue


def test_the_queue_names_the_tasks_that_the_worker_has() -> None:
    import_module("worker.tasks")
    named = {value for name, value in vars(core.queue).items() if name.isupper() and str(value).startswith("worker.")}
    registered = {name for name in core.queue.celery_app.tasks if not name.startswith("celery.")}
    assert named == registered
