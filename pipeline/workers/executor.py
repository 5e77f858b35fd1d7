"""From photos to pictures, all in memory: fitted to the machine, watched, kept in checkpoints, and
tried a second time where that can help.

Imports TensorFlow only when the first batch comes: launchers do not start it.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nst_ops.coarse_to_fine.schedule import pixel_steps
from nst_ops.engines.memory import MemoryPlan, Sources, plan_memory, predict_bytes
from nst_ops.errors import InputError
from nst_ops.images.codec import Picture
from nst_ops.images.inputs import Style
from nst_ops.vgg.weights import load_weights
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.machine import parallelism
from pipeline.machine.tensorflow_setup import start_tensorflow
from pipeline.store.metadata import Row
from pipeline.store.progress import Progress
from pipeline.workers import batch_checkpoint
from pipeline.workers.batch_checkpoint import BatchCheckpoint
from pipeline.workers.limits import Stopped, Supervisor

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.iterates import Iterate
    from nst_ops.coarse_to_fine.reports import Report
    from nst_ops.losses.targets import TargetCache

_SMALL_TILE = 256  # px, when memory was short after all


class NonFiniteError(ArithmeticError):
    """The loss was not a number at any step."""


class DecodedJob(NamedTuple):
    """A job whose files are read and decoded."""

    planned: PlannedJob
    photo: Picture  # at the result's size
    styles: list[Style]
    initial: np.ndarray | None  # the first picture, if it comes from a file; of any size


class StylizedImage(NamedTuple):
    """A picture that is not yet a file."""

    pixels: np.ndarray
    report: "Report"
    spec_hash: str  # of what has made it
    facts: Row  # of the batch it was made in


Outcome = StylizedImage | Exception


class Optimizer:
    """Makes pictures; one per worker process.

    Args:
      folder: the run's, which keeps checkpoints; None: there are none.
      supervisor: asked before a batch and between steps.
      progress: told of every step.
      show: called with every iterate.
      announce: told how each batch will be computed, given its memory.
      processes: that share this machine's cores, GPUs and memory.
    """

    def __init__(
        self,
        folder: str | None,
        supervisor: Supervisor,
        *,
        progress: Progress | None = None,
        show: Callable[["Iterate"], None] = lambda iterate: None,
        announce: Callable[[MemoryPlan], None] = lambda plan: None,
        processes: int = 1,
    ):
        self._folder, self._supervisor, self._progress = folder, supervisor, progress
        self._show, self._announce, self._processes = show, announce, processes
        self._targets: TargetCache | None = None

    def make(
        self, ready: Sequence[DecodedJob], config: RunConfig
    ) -> Iterator[tuple[DecodedJob, Outcome]]:
        """A picture for each job, or what prevented it; in as many parts as memory asks for.

        An exception is one job's, or that of all that were optimized with it; `Stopped` means that
        the job is left for the next run.
        """
        if not ready:
            return
        start_tensorflow(self._processes)
        import tensorflow as tf

        from nst_ops.losses.targets import TargetCache

        if self._targets is None:  # `cache_dir` and `memory_limit` are the whole run's
            budget = parallelism.cache_budget(config, self._processes)
            self._targets = TargetCache(budget, config.cache_dir)
        size, count = ready[0].planned.size, len(ready)
        sources = functools.reduce(Sources.join, (job.planned.sources for job in ready))
        limit = parallelism.room_for_pictures(config, self._processes)
        if count > 1 and predict_bytes(size, config, batch=count, sources=sources) > limit:
            yield from self._halves(ready, config)
            return
        try:
            _check_weights(ready[0].planned, config)
            plan = plan_memory(
                size, config, batch=count, limit=limit, tiling=config.tiling, sources=sources
            )
            outcomes = self._finite(self._run(ready, config, plan), ready, config, plan)
        except Exception as error:
            # Without its frames, which hold what was in memory.
            outcomes = [(job, error.with_traceback(None)) for job in ready]
        _, first = outcomes[0]
        if not isinstance(first, MemoryError | tf.errors.ResourceExhaustedError):
            yield from outcomes
            return
        # The memory went elsewhere, or the plan was wrong. What led there is no way on.
        self._forget(ready)
        largest = config.tiling if isinstance(config.tiling, int) else max(size)
        if count > 1:
            yield from self._halves(ready, config)
        elif min(largest, max(size)) > _SMALL_TILE:
            yield from self.make(ready, config.model_copy(update={"tiling": _SMALL_TILE}))
        else:
            yield from outcomes

    def _halves(
        self, ready: Sequence[DecodedJob], config: RunConfig
    ) -> Iterator[tuple[DecodedJob, Outcome]]:
        middle = len(ready) // 2
        yield from self.make(ready[:middle], config)
        yield from self.make(ready[middle:], config)

    def _finite(
        self,
        batch: Sequence[StylizedImage],
        ready: Sequence[DecodedJob],
        config: RunConfig,
        plan: MemoryPlan,
    ) -> list[tuple[DecodedJob, Outcome]]:
        """The pictures; one whose loss was never a number gets a second try with small steps."""
        careful = config.model_copy(update={"learning_rate": 0.005})
        outcomes: list[tuple[DecodedJob, Outcome]] = []
        for job, made in zip(ready, batch, strict=True):
            outcome: Outcome = made
            if made.report.non_finite:
                self._forget([job])
                slowly = plan._replace(optimizer="adam")
                try:
                    (again,) = self._run([job], careful, slowly, keep=False)
                    # The method's own way out, and no lesser picture.
                    outcome = again._replace(spec_hash=made.spec_hash)
                except Exception as error:  # its neighbours are done
                    outcome = error
            if isinstance(outcome, StylizedImage) and outcome.report.non_finite:
                outcome = NonFiniteError(
                    "the loss was not finite at any step, nor with small steps of Adam; use "
                    "`precision: float32` or smaller weights"
                )
            outcomes.append((job, outcome))
        return outcomes

    def _run(
        self, ready: Sequence[DecodedJob], config: RunConfig, plan: MemoryPlan, *, keep: bool = True
    ) -> list[StylizedImage]:
        """One batch, from its checkpoint if there is one; `keep`: and with checkpoints."""
        from nst_ops.coarse_to_fine.loop import run

        size, count = ready[0].planned.size, len(ready)
        kept = self._checkpoint(ready, config) if keep else None
        found = kept.load(config, plan) if kept else None
        resume, plan = found or (None, plan)
        short = (
            keep and plan.optimizer != config.optimizer
        )  # of memory, and not of this one's choice
        config = config.model_copy(update={"optimizer": plan.optimizer})
        self._announce(plan)
        cost = 0 if resume else count * pixel_steps(size, config)  # at most, and unknown
        self._supervisor.begin(cost, config.timeout_seconds and config.timeout_seconds * count)
        name = ready[0].planned.job.id + (f" and {count - 1} more" if count > 1 else "")
        initial = [_stretch(r.initial, size) for r in ready if r.initial is not None]

        def watch(iterate: "Iterate") -> None:
            self._show(iterate)
            if self._progress:
                self._progress.show(_line(name, iterate), iterate.seconds / iterate.step)
            if iterate.last:
                return
            try:
                self._supervisor.check()
            except Stopped:
                if kept:
                    kept.save(iterate, plan)
                raise
            if kept:
                kept.offer(iterate, plan)

        result = run(
            _batch([r.photo.pixels for r in ready]),
            [job.styles for job in ready],
            config,
            initial=_batch(initial) if initial else None,
            seeds=[r.planned.seed for r in ready],
            cache=self._targets,
            tile=plan.tile,
            history=plan.history,
            resume=resume,
            progress=watch,
        )
        self._supervisor.end(cost)
        facts = {
            "batch_size": count,
            "tile": plan.tile,
            "optimizer": config.optimizer,
            "history": plan.history if config.optimizer == "lbfgs" else None,
            "seconds_optimize": result.seconds_optimize,
        }
        return [
            StylizedImage(
                pixels, report, job.planned.adam_hash if short else job.planned.spec_hash, facts
            )
            for job, pixels, report in zip(ready, result.images, result.reports, strict=True)
        ]

    def _checkpoint(self, ready: Sequence[DecodedJob], config: RunConfig) -> BatchCheckpoint | None:
        if self._folder is None or config.checkpoint_seconds is None:
            return None
        return BatchCheckpoint(self._folder, [r.planned for r in ready], config.checkpoint_seconds)

    def _forget(self, ready: Sequence[DecodedJob]) -> None:
        if self._folder is not None:
            batch_checkpoint.forget(self._folder, [r.planned.job.output for r in ready])


def _check_weights(planned: PlannedJob, config: RunConfig) -> None:
    """Whether the network is the one that the picture's hash names."""
    if load_weights(config.weights).sha256 != planned.weights_sha256:
        raise InputError(
            "has changed since the run began; run again", path=config.weights_file or config.weights
        )


def _line(name: str, iterate: "Iterate") -> str:
    height, width = iterate.size
    loss = float(np.mean(iterate.losses["total"]))
    return f"{name}: {width}x{height}, step {iterate.step}/{iterate.steps}, loss {loss:.4g}"


def _batch(images: Sequence[np.ndarray]) -> np.ndarray:
    """[B, H, W, 3]; of one image, which may be large, no copy."""
    return images[0][None] if len(images) == 1 else np.stack(images)


def _stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A first picture from a file takes the photo's size, whatever its aspect."""
    import tensorflow as tf

    from nst_ops.images.resampling import resize

    return np.clip(resize(tf.constant(image)[None], size)[0].numpy(), 0.0, 1.0)
