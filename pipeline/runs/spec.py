"""A `RunSpec` is one run, as workers get it."""

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
    """Describes one run in plain values, which are pickled to workers."""

    manifest: str
    folder: str
    run_id: str
    settings: str  # RunConfig as JSON
    assets: tuple[tuple[str, str], ...]  # (what the engine works with, its SHA-256)
    rows: int  # in the manifest
    parts: int  # of the shard's rows, see `manifest.parts`
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
        """Checks a worker, and ties it to the run; each worker calls this first.

        Raises:
          RuntimeError: it has another version of nst than the launcher.
        """
        if self.version != __version__:
            raise RuntimeError(
                f"this worker has nst {__version__}, and the run was begun by nst {self.version}; "
                "install the same on both"
            )
        # With some runners the workers are threads of the launcher, which must not be ended.
        if self.launcher not in ("", PROCESS):
            end_with_run(self.folder, self.run_id)

    @functools.cached_property
    def config(self) -> RunConfig:
        """Returns the settings that rows override."""
        return RunConfig.model_validate_json(self.settings)

    @property
    def share(self) -> int:
        """Returns about how many rows of the manifest this run has in its shard."""
        return self.shard.share(self.rows)

    def file_index(self, before_reading: Callable[[], None] = lambda: None) -> FileIndex:
        """Opens the index of the run's files.

        Args:
          before_reading: called before a file is read; what it raises ends the call.
        """
        return FileIndex(
            self.folder,
            self.run_id,
            self.shard,
            full=self.check_full,
            before_reading=before_reading,
        )
