"""Triggers on `jobs` and `erasure_receipts`: what endpoints are told, in the transaction that made it true."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TELL = """
CREATE FUNCTION tell_webhooks(account uuid, what text, job uuid, subject uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO webhook_deliveries (id, endpoint_id, event, job_id, subject_id, next_attempt_at)
    SELECT uuidv7(), id, what, job, subject, now()
    FROM webhook_endpoints
    WHERE account_id = account AND disabled_at IS NULL AND what = ANY (events)
$$
"""

JOBS = """
CREATE FUNCTION tell_webhooks_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'running' AND NEW.attempt = 1 THEN
        PERFORM tell_webhooks(NEW.account_id, 'job.started', NEW.id, NEW.subject_id);
    ELSIF NEW.status NOT IN ('queued', 'running') THEN
        PERFORM tell_webhooks(NEW.account_id, 'job.' || NEW.status, NEW.id, NEW.subject_id);
    END IF;
    RETURN NULL;
END $$
"""

ERASURES = """
CREATE FUNCTION tell_webhooks_of_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_webhooks(NEW.account_id, 'subject.erased', NULL, NEW.subject_id);
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    """A message is a row, so it can't be lost between the commit and the sending."""
    op.execute(TELL)
    op.execute(JOBS)
    op.execute(ERASURES)
    op.execute(
        "CREATE TRIGGER tell_webhooks AFTER UPDATE ON jobs FOR EACH ROW "
        "WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION tell_webhooks_of_job()"
    )
    op.execute(
        "CREATE TRIGGER tell_webhooks AFTER UPDATE ON erasure_receipts FOR EACH ROW "
        "WHEN (OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL) EXECUTE FUNCTION tell_webhooks_of_erasure()"
    )


def downgrade() -> None:
    """Nobody is told any more."""
    op.execute("DROP TRIGGER tell_webhooks ON erasure_receipts")
    op.execute("DROP TRIGGER tell_webhooks ON jobs")
    op.execute("DROP FUNCTION tell_webhooks_of_erasure()")
    op.execute("DROP FUNCTION tell_webhooks_of_job()")
    op.execute("DROP FUNCTION tell_webhooks(uuid, text, uuid, uuid)")
