"""Training runs as processes of their own: started, followed, stopped, resumed, deleted.

A run is a folder; whoever has the folder knows all that is known of the run. Loads no torch.
"""

from lwap.jobs.control import (
    create,
    delete,
    facts_of,
    find,
    list_runs,
    resume,
    start,
    stop,
)
from lwap.jobs.events import Followed, History
from lwap.jobs.folder import Run, Status
from lwap.jobs.state import Facts, State, state_of

__all__ = [
    "Facts",
    "Followed",
    "History",
    "Run",
    "State",
    "Status",
    "create",
    "delete",
    "facts_of",
    "find",
    "list_runs",
    "resume",
    "start",
    "state_of",
    "stop",
]
