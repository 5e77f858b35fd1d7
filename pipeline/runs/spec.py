"""One run, as workers get it."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    PipelineOptions,
)

from nst_ops import __version__
from pipeline.config.run_config import RunConfig
from pipeline.jobs.shard import Shard
from pipeline.manifest.parts import JobParts
from pipeline.runs.beam_options import processes_per_machine, worker_count
from pipeline.store import layout
from pipeline.store.file_index import FileIndex


@dataclass(frozen=True)
class RunSpec:
    """One run: plain values, pickled to workers."""

    manifest: str
    folder: str
    run_id: str
    settings: str  # RunConfig as JSON
    weights_sha256: str
    rows: int  # of the manifest
    parts: int  # that the rows of the shard are in, see `job_parts`
    manifest_sha256: str  # of all that the rows say
    shard: Shard = Shard()
    processes: int = 1  # that share one machine
    deadline: float = math.inf  # as time.time(); no picture is begun that would end after it
    retry_failed: bool = True
    workers: int = 1  # of all machines, which should all get a part of the work
    check_full: bool = False  # reads every file, also those that have not changed since a run
    version: str = __version__  # of nst

    def check_version(self) -> None:
        """Raises RuntimeError in a worker that has another version of nst than the launcher."""
        if self.version != __version__:
            raise RuntimeError(
                f"this worker has nst {__version__}, and the run was begun by nst {self.version}; "
                "install the same on both"
            )

    @functools.cached_property
    def config(self) -> RunConfig:
        """The settings that rows override."""
        return RunConfig.model_validate_json(self.settings)

    def file_index(self, before_reading: Callable[[], None] = lambda: None) -> FileIndex:
        """What is known of the run's files."""
        return FileIndex(
            self.folder,
            self.run_id,
            self.shard,
            full=self.check_full,
            before_reading=before_reading,
        )


def new_spec(
    manifest: str,
    folder: str,
    config: RunConfig,
    parts: JobParts,
    weights_sha256: str,
    options: PipelineOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    deadline: float = math.inf,
    retry_failed: bool = True,
    check_full: bool = False,
) -> RunSpec:
    """A run that begins now."""
    return RunSpec(
        manifest,
        folder,
        layout.new_run_id(),
        config.model_dump_json(),
        weights_sha256,
        parts.rows,
        parts.count,
        parts.sha256,
        shard,
        processes_per_machine(options, config),
        deadline,
        retry_failed,
        worker_count(options, config),
        check_full,
    )
