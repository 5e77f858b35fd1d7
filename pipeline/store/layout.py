"""Where things are in a run's folder."""

import hashlib
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store import files


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def record_folder(folder: str, run_id: str) -> str:
    """Where a run's own record is: config.yaml, summary.json, report.html."""
    return files.join(folder, "runs", run_id)


def work_folder(folder: str) -> Path:
    """What processes of a run share while it runs: small files, replaced whole or appended to.

    Of a run whose folder is a URL it is on this machine, and serves the processes that are here.
    """
    if not files.is_url(folder):
        return Path(folder, "work")
    name = hashlib.sha256(folder.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"nst-work-{name}")


def images_folder(folder: str) -> str:
    """Where a run's pictures go."""
    return files.join(folder, "images")


def metadata_folder(folder: str, run_id: str) -> str:
    """Where a run's own Parquet files are, named part-*."""
    return files.join(folder, "metadata", f"run_id={run_id}")


def new_run_id() -> str:
    """Begins with the time, down to the microsecond in hexadecimal, so that ids sort by it."""
    moment = now()
    return f"{moment:%Y%m%dT%H%M%SZ}-{moment.microsecond:05x}{secrets.token_hex(2)}"
