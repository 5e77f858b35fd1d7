"""Keeps a batch's checkpoint in the run's `work` folder while the batch is made.

A checkpoint is named by the last picture of its batch. Pictures are written in order, so as long as
any picture of the batch is missing, the last one is.
"""

import contextlib
import hashlib
import io
import time
import warnings
from collections.abc import Callable, Iterable, Sequence

from nst_ops.engines.base import Checkpoint, Plan, Session, Step
from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.store import files


def remove_checkpoints(folder: str, outputs: Iterable[str]) -> None:
    """Removes the checkpoints of pictures that are made or failed."""
    for output in outputs:
        # A store may not answer; a checkpoint that stays does no harm.
        with contextlib.suppress(OSError, InputError):
            files.delete(_path(folder, output))


def all_checkpoints(folder: str) -> list[str]:
    """Returns the paths of all checkpoints."""
    return [files.join(folder, name) for name in files.listing(folder, "work/checkpoints/*.npz")]


class BatchCheckpoint:
    """Loads and saves the checkpoint of jobs that are made together.

    Args:
      folder: the run's folder.
      jobs: in the order of the batch.
      every: seconds between two checkpoints within a stage.
    """

    def __init__(self, folder: str, jobs: Sequence[PlannedJob], every: float):
        self._members = [[job.job.output, job.spec_hash] for job in jobs]
        self.path = _path(folder, jobs[-1].job.output)
        self._every, self._saved = every, time.monotonic()

    def load(
        self, session: Session, config: RunConfig, plan: Plan
    ) -> tuple[Callable[[], Checkpoint], Plan] | None:
        """Returns a function that gives the checkpoint, and the plan that the batch was made by.

        Returns None if the batch has to begin anew, with a warning if the checkpoint is unusable.
        A checkpoint may take gigabytes, so the function hands it over once, and nothing keeps it.

        Args:
          config: the batch's settings; `memory_limit` and `tiling` may have changed since the
            checkpoint, because memory was short.
          plan: how the batch would be computed if it began now.
        """
        if not files.exists(self.path):
            return None
        try:
            checkpoint, facts = session.load_checkpoint(io.BytesIO(files.read(self.path)))
        except InputError as error:
            return self._ignore(str(error))
        if not all(member in facts["members"] for member in self._members):
            return self._ignore("it is of other settings or files")
        if facts["members"] != self._members:  # some are done, or rows changed places
            rows = [facts["members"].index(member) for member in self._members]
            checkpoint = checkpoint.take(rows)
        engine, before = config.engine, facts["plan"]
        # Only a limit that was set counts: the free memory varies from run to run.
        if config.memory_limit and before["bytes"] > config.memory_limit:
            return self._ignore("it needs more than memory_limit")
        if problem := engine.resume_problem(before, plan, tiling=config.tiling):
            return self._ignore(problem)
        return [checkpoint].pop, engine.restore_plan(before)

    def offer(self, step: Step, plan: Plan) -> None:
        """Saves at the end of a stage, or when the last checkpoint is old enough."""
        if step.stage or time.monotonic() - self._saved >= self._every:
            self.save(step, plan)

    def save(self, step: Step, plan: Plan) -> None:
        """Saves the step's checkpoint, if it has one.

        A failure is only a warning: it costs time after an interruption, not the picture.
        """
        if step.checkpoint is None:
            return
        self._saved = time.monotonic()
        try:
            # Not synced: after a power loss, damage is noticed and the batch begins anew.
            with files.replacing(self.path, sync=False) as file:
                step.checkpoint().save(file, members=self._members, plan=plan._asdict())
        except OSError as error:
            warnings.warn(f"{self.path}: no checkpoint: {error}", stacklevel=2)

    def _ignore(self, reason: str) -> None:
        warnings.warn(f"{self.path}: ignored: {reason}; the pictures begin anew", stacklevel=3)


def _path(folder: str, output: str) -> str:
    name = hashlib.sha256(output.encode()).hexdigest()[:24]
    return files.join(folder, "work", "checkpoints", f"{name}.npz")
