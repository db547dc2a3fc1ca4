"""What a run left on disk: read, compared, exported. Needs neither ray nor torch nor a GPU."""

from kdsearch.results.export import add_test_reading, export_run, search_facts, write_export
from kdsearch.results.lock import RunLock, is_locked
from kdsearch.results.results import Point, Results, Trial
from kdsearch.results.storage import find_run, list_runs

__all__ = [
    "Point",
    "Results",
    "RunLock",
    "Trial",
    "add_test_reading",
    "export_run",
    "find_run",
    "is_locked",
    "list_runs",
    "search_facts",
    "write_export",
]
