"""Each migration on a database that has rows already, forth, back and forth again."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Connection, create_engine, make_url, select, text
from sqlalchemy.orm import Session

from core.ids import new_id
from core.settings import Settings
from core.tables import GeneratedImage, Generation
from migrations.upgrade import alembic_config
from tests.factories import make_generation, make_subject

PHOTO = "subjects/somebody/photo"


@pytest.fixture
def own_database(settings: Settings) -> Iterator[str]:
    """An empty database beside everybody's; its address."""
    url = make_url(settings.database_url.get_secret_value())
    name = f"migrations_{new_id().hex}"
    everybody = create_engine(url, isolation_level="AUTOCOMMIT")
    with everybody.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with everybody.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    everybody.dispose()


def add_subject(connection: Connection, *, photo_key: str | None) -> UUID:
    """As the first version of the service wrote it."""
    account_id, subject_id = new_id(), new_id()
    connection.execute(
        text("INSERT INTO accounts (id, name) VALUES (:id, :name)"), {"id": account_id, "name": account_id.hex}
    )
    connection.execute(
        text(
            "INSERT INTO subjects (id, account_id, base_model, keep_photo, photo_key) "
            "VALUES (:id, :account_id, 'mini', true, :photo_key)"
        ),
        {"id": subject_id, "account_id": account_id, "photo_key": photo_key},
    )
    return subject_id


def test_a_subjects_photo_becomes_the_first_of_several_and_the_way_back_is_open(own_database: str) -> None:
    config, engine = alembic_config(own_database), create_engine(own_database)
    command.upgrade(config, "0004")
    with engine.begin() as connection:
        one, none = add_subject(connection, photo_key=PHOTO), add_subject(connection, photo_key=None)
    for _ in range(2):
        command.upgrade(config, "head")
        with engine.begin() as connection:
            rows = connection.execute(text("SELECT id, photo_keys FROM subjects")).all()
        assert {row.id: row.photo_keys for row in rows} == {one: [PHOTO], none: []}
        command.downgrade(config, "0004")
        with engine.begin() as connection:
            rows = connection.execute(text("SELECT id, photo_key FROM subjects")).all()
        assert {row.id: row.photo_key for row in rows} == {one: PHOTO, none: None}
    engine.dispose()


def test_a_blocked_picture_is_forgotten_on_the_way_back(own_database: str) -> None:
    config, engine = alembic_config(own_database), create_engine(own_database)
    command.upgrade(config, "0011")
    picture = {"prompt": "a", "seed": 1, "width": 8, "height": 8, "size": 0}
    with Session(engine) as session:
        make_generation(session, make_subject(session))
        generation_id = session.scalars(select(Generation.id)).one()
        for position, key in enumerate(("a key", None)):
            own = {"generation_id": generation_id, "position": position, "object_key": key, "verdict": "ok"}
            session.add(GeneratedImage(**picture | own))
        session.commit()
    command.downgrade(config, "0010")
    command.upgrade(config, "0011")
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT object_key FROM generated_images")).all() == ["a key"]
    engine.dispose()


def test_a_worker_of_the_version_before_counts_as_one_that_takes_one_job_at_a_time(own_database: str) -> None:
    config, engine = alembic_config(own_database), create_engine(own_database)
    command.upgrade(config, "0011")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO worker_processes (name, role, state) VALUES ('old', 'gpu', 'ready')"))
    for _ in range(2):
        command.upgrade(config, "0012")
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT batch_size FROM worker_processes")).all() == [1]
        command.downgrade(config, "0011")
    engine.dispose()


def test_everything_can_be_undone(own_database: str) -> None:
    config, engine = alembic_config(own_database), create_engine(own_database)
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    with engine.connect() as connection:
        left = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
    engine.dispose()
    assert left == ["alembic_version"]
