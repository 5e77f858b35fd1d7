"""Requests to stop a run: one small file in its `work` folder, which all its processes look at."""

from pipeline.store import files
from pipeline.store.layout import work_folder


def request_stop(folder: str, run_id: str, reason: str) -> None:
    """Asks all processes of a run to stop at their next step."""
    path = work_folder(folder) / f"{run_id}.stop"
    files.write(str(path), reason.encode())


def stop_requested(folder: str, run_id: str) -> str:
    """Why the run should stop, or "" if it should not."""
    path = work_folder(folder) / f"{run_id}.stop"
    try:
        return path.read_text()
    except OSError:
        return ""
