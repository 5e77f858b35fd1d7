"""Has the engine make pictures from decoded photos, all in memory.

Batches are fitted to the machine's memory, watched, kept in checkpoints, and tried a second time
where the engine knows another way.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nst_ops.engines.base import (
    Batch,
    NamedStyle,
    Painted,
    Plan,
    Resources,
    Session,
    Sources,
    Step,
)
from nst_ops.errors import InputError
from nst_ops.images.codec import Picture
from nst_ops.images.inputs import Style
from nst_ops.images.margins import Margin
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.machine import parallelism
from pipeline.machine.tensorflow_setup import start_tensorflow
from pipeline.store.progress import Progress
from pipeline.workers.batch_checkpoint import BatchCheckpoint, remove_checkpoints
from pipeline.workers.limits import Stopped, Supervisor


class DecodedJob(NamedTuple):
    """Holds a job whose files are read and decoded."""

    planned: PlannedJob
    photo: Picture  # at the result's size
    styles: list[Style | NamedStyle]
    initial: np.ndarray | None  # the first picture, if it comes from a file; of any size
    keep: np.ndarray | None = None  # where the photo stays as it is, [h, w] in [0, 1]
    trims: Sequence[Margin] = ()  # what was cut off each painting, in px of its file


Outcome = Painted | Exception


class Executor:
    """Has pictures made by the engine; there is one executor per worker process.

    Args:
      folder: the run's folder, which keeps checkpoints; None: there are no checkpoints.
      supervisor: decides before a batch and between steps whether to go on.
      progress: shows every step to the launcher.
      show: called with every step.
      announce: called with the plan by which each batch will be computed.
      processes: how many share this machine's cores, GPUs and memory.
    """

    def __init__(
        self,
        folder: str | None,
        supervisor: Supervisor,
        *,
        progress: Progress | None = None,
        show: Callable[[Step], None] = lambda step: None,
        announce: Callable[[Plan], None] = lambda plan: None,
        processes: int = 1,
    ):
        self._folder, self._supervisor, self._progress = folder, supervisor, progress
        self._show, self._announce, self._processes = show, announce, processes
        self._shared: dict[str, Any] = {}

    def make(
        self, jobs: Sequence[DecodedJob], config: RunConfig
    ) -> Iterator[tuple[DecodedJob, Outcome]]:
        """Yields a picture for each job, or the exception that prevented it.

        A batch that memory is too short for is halved, and one with an input that the engine
        refuses is made one by one. An exception belongs to one job, or to all that were made
        together with it; `Stopped` means that the job is left for the next run.
        """
        if not jobs:
            return
        try:
            _check_assets(jobs[0].planned, config)
            session = self._open(config)
            plan = self._plan(jobs, config)
        except Exception as error:
            plan, session, outcomes = None, None, _same_error(jobs, error)
        else:
            outcomes = self._try(session, jobs, config, plan)
        error = outcomes[0][1]
        if len(jobs) > 1 and (_is_memory_error(error) or isinstance(error, InputError)):
            middle = len(jobs) // 2 if _is_memory_error(error) else 1
            yield from self.make(jobs[:middle], config)
            yield from self.make(jobs[middle:], config)
            return
        if plan and session and isinstance(outcomes[0][1], Exception) and len(jobs) == 1:
            retry_plan = session.retry(_batch(jobs), plan, outcomes[0][1])
            if retry_plan:
                outcomes = self._try(session, jobs, config, retry_plan)
        yield from outcomes

    def _open(self, config: RunConfig) -> Session:
        start_tensorflow(self._processes)
        # A row cannot override `cache_dir` and `memory_limit`, so all sessions can share caches.
        budget = parallelism.cache_budget(config, self._processes)
        return config.engine.open(Resources(budget, config.cache_dir, self._shared))

    def _plan(self, jobs: Sequence[DecodedJob], config: RunConfig) -> Plan:
        return config.engine.plan(
            jobs[0].planned.size,
            batch=len(jobs),
            limit=parallelism.room_for_pictures(config, self._processes),
            tiling=config.tiling,
            sources=functools.reduce(Sources.join, (job.planned.sources for job in jobs)),
        )

    def _try(
        self, session: Session, jobs: Sequence[DecodedJob], config: RunConfig, plan: Plan
    ) -> list[tuple[DecodedJob, Outcome]]:
        try:
            return list(zip(jobs, self._paint(session, jobs, config, plan), strict=True))
        except Exception as error:
            if _is_memory_error(error):  # a checkpoint would only lead there again
                self._forget(jobs)
            return _same_error(jobs, error)

    def _paint(
        self, session: Session, jobs: Sequence[DecodedJob], config: RunConfig, plan: Plan
    ) -> Sequence[Outcome]:
        """Makes one batch, from its checkpoint if there is one, and saves checkpoints meanwhile."""
        checkpoint = self._checkpoint(jobs, config)
        found = checkpoint.load(session, config, plan) if checkpoint else None
        resume, plan = found or (None, plan)
        self._announce(plan)
        count = len(jobs)
        # At most; what a batch that resumes still costs is unknown.
        cost = 0 if resume else count * config.engine.cost(jobs[0].planned.size)
        self._supervisor.begin(cost, config.timeout_seconds and config.timeout_seconds * count)
        name = jobs[0].planned.job.id + (f" and {count - 1} more" if count > 1 else "")
        for step in session.stylize(_batch(jobs), plan, resume=resume):
            if step.pictures is not None:
                self._supervisor.end(cost)
                return [_with_batch_size(picture, count) for picture in step.pictures]
            self._show(step)
            if self._progress:
                self._progress.show(f"{name}: {step.text}", step.seconds)
            try:
                if step.share < 1.0:
                    self._supervisor.check()
            except Stopped:
                if checkpoint:
                    checkpoint.save(step, plan)
                raise
            if checkpoint:
                checkpoint.offer(step, plan)
        raise RuntimeError(f"the engine {config.engine.name!r} ended without pictures")

    def _checkpoint(self, jobs: Sequence[DecodedJob], config: RunConfig) -> BatchCheckpoint | None:
        if self._folder is None or config.checkpoint_seconds is None:
            return None
        return BatchCheckpoint(
            self._folder, [job.planned for job in jobs], config.checkpoint_seconds
        )

    def _forget(self, jobs: Sequence[DecodedJob]) -> None:
        if self._folder is not None:
            remove_checkpoints(self._folder, [job.planned.job.output for job in jobs])


def _with_batch_size(picture: Outcome, count: int) -> Outcome:
    """Adds the column `batch_size`, unless the engine gives it: it may split a batch by itself."""
    if isinstance(picture, Exception):
        return picture
    return picture._replace(columns={"batch_size": count, **picture.columns})


def _same_error(jobs: Sequence[DecodedJob], error: Exception) -> list[tuple[DecodedJob, Outcome]]:
    """Gives all jobs the same error, without its traceback, whose frames hold pictures."""
    return [(job, error.with_traceback(None)) for job in jobs]


def _batch(jobs: Sequence[DecodedJob]) -> Batch:
    return Batch(
        [job.photo.pixels for job in jobs],
        [job.styles for job in jobs],
        [job.planned.seed for job in jobs],
        jobs[0].initial,
        [job.keep for job in jobs] if any(job.keep is not None for job in jobs) else None,
        [job.planned.style_sha256 for job in jobs],
    )


def _is_memory_error(error: object) -> bool:
    planned = isinstance(error, InputError) and error.code == "memory"
    return planned or isinstance(error, MemoryError)


def _check_assets(planned: PlannedJob, config: RunConfig) -> None:
    """Raises an InputError if the engine's files are not those that the picture's hash names."""
    found, files = config.engine.assets(), config.engine.asset_files
    for name, sha256 in planned.assets:
        if found.get(name) != sha256:
            raise changed(", ".join(files) or f"the engine's {name}")


def changed(path: str) -> InputError:
    """Returns the error of a file that is not what it was when the run began."""
    return InputError("has changed since the run began; run again", path=path, code="changed")
