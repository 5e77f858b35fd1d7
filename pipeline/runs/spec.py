"""One run, as workers get it."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from nst_ops import __version__
from pipeline.config.run_config import RunConfig
from pipeline.jobs.shard import Shard
from pipeline.store.file_index import FileIndex
from pipeline.store.journal import PROCESS
from pipeline.workers.limits import end_with_run


@dataclass(frozen=True)
class RunSpec:
    """One run: plain values, pickled to workers."""

    manifest: str
    folder: str
    run_id: str
    settings: str  # RunConfig as JSON
    assets: tuple[tuple[str, str], ...]  # (what the engine works with, its SHA-256)
    rows: int  # of the manifest
    parts: int  # that the rows of the shard are in, see `manifest.parts`
    manifest_sha256: str  # of all that the rows say
    shard: Shard = Shard()
    processes: int = 1  # that share one machine
    deadline: float = math.inf  # as time.time(); no picture is begun that would end after it
    retry_failed: bool = True
    workers: int = 1  # of all machines, which should all get a part of the work
    check_full: bool = False  # reads every file, also those that have not changed since a run
    launcher: str = ""  # of a run on a cluster, whose workers may outlive it: its process
    version: str = __version__  # of nst

    def begin_worker(self) -> None:
        """Called by each worker first.

        Raises:
          RuntimeError: it has another version of nst than the launcher.
        """
        if self.version != __version__:
            raise RuntimeError(
                f"this worker has nst {__version__}, and the run was begun by nst {self.version}; "
                "install the same on both"
            )
        # Some runners' workers are the launcher's threads.
        if self.launcher not in ("", PROCESS):
            end_with_run(self.folder, self.run_id)

    @functools.cached_property
    def config(self) -> RunConfig:
        """The settings that rows override."""
        return RunConfig.model_validate_json(self.settings)

    @property
    def share(self) -> int:
        """How many rows this run has, of which its shard has a part, about."""
        return self.shard.share(self.rows)

    def file_index(self, before_reading: Callable[[], None] = lambda: None) -> FileIndex:
        """What is known of the run's files."""
        return FileIndex(
            self.folder,
            self.run_id,
            self.shard,
            full=self.check_full,
            before_reading=before_reading,
        )
