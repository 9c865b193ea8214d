"""Two triggers on `jobs`: a final status stays, and every change of status or phase is an event."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GUARD = """
CREATE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.event_count := 1;
        RETURN NEW;
    END IF;
    IF OLD.status <> NEW.status
       AND OLD.status IN ('succeeded', 'failed', 'canceled', 'expired', 'rejected') THEN
        RAISE EXCEPTION 'job % is % and cannot become %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.event_count := OLD.event_count;
    IF OLD.status <> NEW.status OR OLD.phase IS DISTINCT FROM NEW.phase THEN
        NEW.event_count := OLD.event_count + 1;
    END IF;
    RETURN NEW;
END $$
"""

RECORD = """
CREATE FUNCTION record_job_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.event_count <> OLD.event_count THEN
        INSERT INTO job_events (job_id, number, at, status, phase, attempt)
        VALUES (NEW.id, NEW.event_count, clock_timestamp(), NEW.status, NEW.phase, NEW.attempt);
        PERFORM pg_notify('job_events', NEW.id::text);
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    """The numbers are given under the job's row lock: a global sequence would commit out of order."""
    op.execute(GUARD)
    op.execute(RECORD)
    op.execute("CREATE TRIGGER guard_job BEFORE INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION guard_job()")
    op.execute(
        "CREATE TRIGGER record_job_event AFTER INSERT OR UPDATE ON jobs FOR EACH ROW "
        "EXECUTE FUNCTION record_job_event()"
    )


def downgrade() -> None:
    """Jobs move unwatched again."""
    for name in ("record_job_event", "guard_job"):
        op.execute(f"DROP TRIGGER {name} ON jobs")
        op.execute(f"DROP FUNCTION {name}()")
