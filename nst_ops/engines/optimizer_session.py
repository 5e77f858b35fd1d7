"""A session of the optimizer: runs `stylize` on batches, and gathers figures for the metadata."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import tensorflow as tf

from nst_ops.coarse_to_fine import checkpoints
from nst_ops.coarse_to_fine.iterates import Iterate
from nst_ops.coarse_to_fine.loop import run, stylize
from nst_ops.coarse_to_fine.reports import LOSSES, Report, Result, ScaleReport
from nst_ops.coarse_to_fine.schedule import ScalePlan, pixel_steps, schedule
from nst_ops.engines.base import Batch, Painted, Resources, Step, stack
from nst_ops.engines.memory import MemoryPlan
from nst_ops.errors import InputError, NonFiniteError
from nst_ops.images.inputs import Style
from nst_ops.images.resampling import resize
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.settings import Scale, Settings
from nst_ops.vgg.precision import device_name, resolve_precision

_SMALL_TILE = 256  # px, for a second try if memory was short
_TRIAL_SIDE, _TRIAL_STEPS = 256, 4
_SMALL_STEPS = 0.005  # learning rate of a second try, if the loss was not finite


class OptimizerSession:
    """Implements `engines.base.Session`, where its methods are described."""

    def __init__(self, settings: Settings, resources: Resources):
        self._settings = settings
        if "targets" not in resources.shared:
            targets = TargetCache(resources.cache_bytes, resources.cache_dir)
            resources.shared["targets"] = targets
        self._targets: TargetCache = resources.shared["targets"]

    def stylize(
        self,
        batch: Batch,
        plan: MemoryPlan,
        *,
        resume: Callable[[], checkpoints.Checkpoint] | None = None,
    ) -> Iterator[Step]:
        """Optimizes the batch through all scales. A picture whose loss was not finite is then made
        again by itself, with small steps of Adam.
        """
        settings = self._settings.model_copy(update={"optimizer": plan.optimizer})
        careful = settings.model_copy(update={"optimizer": "adam", "learning_rate": _SMALL_STEPS})
        pictures: list[Painted | Exception] = []
        try:
            result = yield from self._optimize(batch, settings, plan, resume, keep=True)
            for row, report in enumerate(result.reports):
                if report.non_finite:
                    again = yield from self._optimize(batch.take(row), careful, plan)
                    pictures.append(_painted(again, 0, careful, plan))
                else:
                    pictures.append(_painted(result, row, settings, plan))
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(error.message) from None  # its frames would keep tensors in memory
        yield Step("", 0.0, 1.0, pictures=pictures)

    def retry(self, batch: Batch, plan: MemoryPlan, error: Exception) -> MemoryPlan | None:
        """Returns a plan with small tiles if memory was short; None after other errors, or if tiles
        were that small already.
        """
        if not isinstance(error, MemoryError):
            return None
        side = min(plan.tile or max(batch.size), max(batch.size))
        return plan._replace(tile=_SMALL_TILE) if side > _SMALL_TILE else None

    def measure_speed(self) -> float:
        """Measures how many pixels x steps are done in a second, on a small picture of noise."""
        trial = self._settings.model_copy(
            update={
                "scales": [Scale(size=_TRIAL_SIDE, steps=_TRIAL_STEPS)],
                "init": "content",
                "tolerance": 0.0,
            }
        )
        photo = np.random.default_rng(0).random((_TRIAL_SIDE, _TRIAL_SIDE, 3), np.float32)
        run(photo, [photo], trial)  # traces
        started = time.perf_counter()
        run(photo, [photo], trial)
        return pixel_steps(photo.shape[:2], trial) / (time.perf_counter() - started)

    def load_checkpoint(self, file: BinaryIO) -> tuple[checkpoints.Checkpoint, dict[str, Any]]:
        """Reads the checkpoint that `Checkpoint.save` wrote, and the values saved with it."""
        return checkpoints.load_checkpoint(file)

    def _optimize(
        self,
        batch: Batch,
        settings: Settings,
        plan: MemoryPlan,
        resume: Callable[[], checkpoints.Checkpoint] | None = None,
        *,
        keep: bool = False,
    ) -> Generator[Step, None, Result]:
        """Yields steps; with checkpoints only if they are of the whole batch (`keep`)."""
        scales = schedule(batch.size, settings)
        iterate: Iterate | None = None
        for iterate in stylize(
            stack(batch.contents),
            [cast(Sequence[Style], blend) for blend in batch.styles],
            settings,
            initial=_initial(batch),
            seeds=batch.seeds,
            keep=batch.keeps,
            cache=self._targets,
            tile=plan.tile,
            history=plan.history,
            resume=resume,
        ):
            step = _step(iterate, scales)
            yield step if keep else step._replace(checkpoint=None)
        if iterate is None:
            raise InputError("nothing to stylize: the batch is empty")
        return Result(iterate.image(), iterate.reports)


def _step(iterate: Iterate, scales: Sequence[ScalePlan]) -> Step:
    """Turns an iterate into a step, for people and for schedulers that know nothing of scales."""
    costs = [scale.size[0] * scale.size[1] * scale.steps for scale in scales]
    done = sum(costs[: iterate.scale])
    done += costs[iterate.scale] * (1.0 if iterate.finished else iterate.step / iterate.steps)
    height, width = iterate.size
    loss = float(np.mean(iterate.best["total"]))
    where = f"scale {iterate.scale + 1}/{iterate.scales} ({width}x{height})"
    text = f"{where}, step {iterate.step}/{iterate.steps}, loss {loss:.4g}"
    reasons = ", ".join(dict.fromkeys(iterate.stopped))
    stage = f"{where}: loss {loss:.4g}, {iterate.step} steps ({reasons}), {iterate.seconds:.1f} s"
    return Step(
        text,
        iterate.seconds / iterate.step,
        done / sum(costs),
        stage if iterate.finished else "",
        None if iterate.last else iterate.checkpoint,
    )


def _painted(
    result: Result, row: int, settings: Settings, plan: MemoryPlan
) -> Painted | NonFiniteError:
    report = result.reports[row]
    if report.non_finite:
        return NonFiniteError(
            "the loss was not finite at any step, nor with small steps of Adam; use "
            "`precision: float32` or smaller weights"
        )
    columns = {
        **_figures(report),
        "batch_size": len(result.reports),
        "tile": plan.tile,
        "optimizer": settings.optimizer,
        "history": plan.history if settings.optimizer == "lbfgs" else None,
        "seconds_optimize": result.seconds_optimize,
        "device": device_name(),
        "precision": resolve_precision(settings.precision),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
    }
    return Painted(result.images[row], plan.variant, columns)


def _figures(report: Report) -> dict[str, Any]:
    names = ("scale", "step", *LOSSES)
    return {
        "scales": [
            {**dict(zip(("height", "width"), scale.size, strict=True)), **_without_size(scale)}
            for scale in report.scales
        ],
        "loss_first": report.curve[0][2],
        "loss_last": report.losses["total"],
        "loss_content": report.losses["content"],
        "loss_style": report.losses["style"],
        "loss_tv": report.losses["tv"],
        "loss_attention": report.losses["attention"],
        "loss_curve": [dict(zip(names, point, strict=True)) for point in report.curve],
    }


def _without_size(scale: ScaleReport) -> dict[str, Any]:
    return {name: value for name, value in scale._asdict().items() if name != "size"}


def _initial(batch: Batch) -> np.ndarray | None:
    """Returns the first pictures [B, H, W, 3]: those that are given, or each the batch's one
    stretched to the photo's size, whatever its aspect; None if there is none.
    """
    if batch.initial is None:
        return None
    if not isinstance(batch.initial, np.ndarray):
        return stack(batch.initial)
    stretched = resize(tf.constant(batch.initial)[None], batch.size)[0].numpy()
    return stack([np.clip(stretched, 0.0, 1.0)] * len(batch.contents))
