"""Says where things lie in a run's folder."""

import hashlib
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store import files


def now() -> datetime:
    """Returns the time, in UTC."""
    return datetime.now(UTC)


def record_folder(folder: str, run_id: str) -> str:
    """Returns where a run's own record lies: config.yaml, run.json, summary.json, report.html."""
    return files.join(folder, "runs", run_id)


def work_folder(folder: str) -> Path:
    """Returns where a run's processes share small files, which are replaced whole or appended to.

    If the run's folder is a URL, the work folder is on this machine, and serves only the processes
    that are here.
    """
    if not files.is_url(folder):
        return Path(folder, "work")
    name = hashlib.sha256(folder.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"nst-work-{name}")


def images_folder(folder: str) -> str:
    """Returns where a run's pictures are written."""
    return files.join(folder, "images")


def metadata_folder(folder: str, run_id: str) -> str:
    """Returns where a run's own Parquet files lie, named part-*."""
    return files.join(folder, "metadata", f"run_id={run_id}")


def new_run_id() -> str:
    """Returns a new id that begins with the time, to the microsecond, so that ids sort by age."""
    moment = now()
    return f"{moment:%Y%m%dT%H%M%SZ}-{moment.microsecond:05x}{secrets.token_hex(2)}"
