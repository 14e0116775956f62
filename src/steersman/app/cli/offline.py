"""What a verb does itself when no control plane runs: reads the journal. Loaded only then."""

from steersman.app.cli.table import now_ms
from steersman.app.planning import plan_offline, stored_snapshot
from steersman.app.settings import Settings
from steersman.app.wire import PlanView, Submission


def plan(submission: Submission, settings: Settings) -> PlanView:
    """The plan, on the state that the journal tells."""
    return plan_offline(submission, settings, now_ms())


def declared(settings: Settings) -> bool:
    """Whether the journal tells of any job or service that is declared. Raises HomeError, JournalError."""
    snapshot = stored_snapshot(settings)
    return bool(len(snapshot.workloads) or len(snapshot.services))
