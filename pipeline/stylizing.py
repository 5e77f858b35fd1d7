"""The one room where pictures are made: a batch of planned jobs in, pictures on disk and metadata
rows out.

Free of Beam, and importing TensorFlow only when the first batch comes: what is pickled to workers
stays small, and launchers do not start TensorFlow.
"""

import math
import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nst_ops.errors import InputError
from nst_ops.images import SOFTWARE, Picture, decode, encode, shrink
from pipeline import files
from pipeline.config import RunConfig
from pipeline.manifest import Job
from pipeline.outputs import Row, error_columns, images_folder, now, row
from pipeline.planning import PlannedJob
from pipeline.starting import start_tensorflow
from pipeline.supervision import Stopped, Supervisor
from pipeline.work import Progress

if TYPE_CHECKING:
    from nst_ops.iterates import Iterate, Report
    from nst_ops.memory import MemoryPlan
    from nst_ops.targets import TargetCache

_SMALL_TILE = 256  # px, when memory was short after all
_PAINTINGS_BYTES = 5e8  # of decoded paintings, kept in memory


class NonFiniteError(ArithmeticError):
    """The loss was not a number at any step."""


class Ready(NamedTuple):
    """A job whose files are read and decoded."""

    planned: PlannedJob
    photo: Picture  # at the result's size
    styles: list[tuple[np.ndarray, float]]
    initial: np.ndarray | None  # the first picture, if it comes from a file; of any size


class Made(NamedTuple):
    """A job whose picture is optimised, but not yet a file."""

    planned: PlannedJob
    pixels: np.ndarray
    alpha: np.ndarray | None
    report: "Report"
    facts: Row  # of the batch it was made in


class Stylizer:
    """Makes pictures; one per worker process.

    Args:
      folder: the run's folder.
      run_id: for the rows.
      images: the folder of the pictures, if it is not the run's usual one.
      deadline: as `time.time()`; what is not done by then is deferred.
      progress: told of every row and step.
      show: called with every iterate.
      announce: told how each batch will be computed, given its memory.
      threads: for TensorFlow in this process; None: as many as there are cores.
    """

    def __init__(
        self,
        folder: str,
        run_id: str,
        *,
        images: str | None = None,
        deadline: float = math.inf,
        progress: Progress | None = None,
        show: Callable[["Iterate"], None] = lambda iterate: None,
        announce: Callable[["MemoryPlan"], None] = lambda plan: None,
        threads: int | None = None,
    ):
        self.run_id, self.progress, self.show = run_id, progress, show
        self.images = images_folder(folder) if images is None else images
        self.announce, self.threads = announce, threads
        self._supervisor = Supervisor(folder, run_id, deadline)
        self._targets: TargetCache | None = None
        self._paintings: OrderedDict[str, np.ndarray] = OrderedDict()

    def stylize_batch(self, batch: Sequence[PlannedJob]) -> list[Row]:
        """Reads, decodes, optimises, encodes and writes; one row per job, whatever happens."""
        started, clock = now(), time.perf_counter()
        config = RunConfig.model_validate_json(batch[0].settings)
        rows: dict[int, Row] = {}
        ready: list[Ready] = []

        def end(planned: PlannedJob, status: str, **values: Any) -> None:
            seconds = time.perf_counter() - clock
            facts = planned.facts() | {"started_at": started, "seconds_total": seconds}
            rows[planned.job.line] = row(self.run_id, planned.job, status, **facts, **values)

        for planned in batch:
            try:
                ready.append(self._read(planned, config))
            except Exception as error:  # one bad file is one failed row
                end(planned, "failed", **error_columns(error))
        try:
            results = self._optimise(ready, config)
        except Stopped as stopped:
            results = []
            for planned, *_ in ready:
                end(planned, "deferred", error_message=str(stopped))
        except Exception as error:
            results = []
            for planned, *_ in ready:
                end(planned, "failed", **error_columns(error))
        for made in results:
            try:
                data = encode_result(made, config)
                files.write(files.join(self.images, made.planned.job.output), data)
                end(made.planned, "ok", **_figures(made.report), **made.facts, **_machine(config))
            except Exception as error:
                end(made.planned, "failed", **error_columns(error))
        if self.progress:
            for done in rows.values():
                self.progress.count(done["status"])
            self.progress.show("")
            self.progress.flush()
        return list(rows.values())

    def _read(self, planned: PlannedJob, config: RunConfig) -> Ready:
        photo = read_picture(planned.job.content, config)
        photo = shrink(photo, max(planned.size), enlarge=config.enlarge)
        if photo.pixels.shape[:2] != planned.size:
            raise InputError("has changed since the run began; run again", path=planned.job.content)
        styles = [(self._painting(path, config), weight) for path, weight in planned.job.styles]
        initial = self._painting(config.init_file, config) if config.init_file else None
        return Ready(planned, photo, styles, initial)

    def _painting(self, path: str, config: RunConfig) -> np.ndarray:
        """Pixels of a painting, from a cache: many rows share few."""
        if path not in self._paintings:
            self._paintings[path] = read_picture(path, config).pixels
            while len(self._paintings) > 1 and _total_bytes(self._paintings) > _PAINTINGS_BYTES:
                self._paintings.popitem(last=False)
        self._paintings.move_to_end(path)
        return self._paintings[path]

    def _optimise(self, ready: Sequence[Ready], config: RunConfig) -> list[Made]:
        """Pictures of a batch, in as many parts as memory asks for."""
        if not ready:
            return []
        start_tensorflow(self.threads)
        import tensorflow as tf

        from nst_ops.memory import default_limit, plan_memory, predict_bytes

        size, count = ready[0].planned.size, len(ready)
        limit = config.memory_limit or default_limit()
        if count > 1 and predict_bytes(size, config, batch=count) > limit:
            return self._optimise_halves(ready, config)
        plan = plan_memory(size, config, batch=count, limit=limit, tiling=config.tiling)
        try:
            results = self._run(ready, config, plan)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            # The prediction was wrong, or the memory went elsewhere.
            if count > 1:
                return self._optimise_halves(ready, config)
            if plan.tile is not None and plan.tile <= _SMALL_TILE:
                raise
            results = self._run(ready, config, plan._replace(tile=_SMALL_TILE))
        return [self._finite(made, r, config, plan) for made, r in zip(results, ready, strict=True)]

    def _optimise_halves(self, ready: Sequence[Ready], config: RunConfig) -> list[Made]:
        middle = len(ready) // 2
        return self._optimise(ready[:middle], config) + self._optimise(ready[middle:], config)

    def _finite(self, made: Made, ready: Ready, config: RunConfig, plan: "MemoryPlan") -> Made:
        """The picture; if its loss was never a number, a second try with small steps of Adam."""
        if made.report.non_finite:
            careful = config.model_copy(update={"optimizer": "adam", "learning_rate": 0.005})
            (made,) = self._run([ready], careful, plan)
        if made.report.non_finite:
            raise NonFiniteError(
                "the loss was not finite at any step, with L-BFGS and with Adam; use "
                "`precision: float32` or smaller weights"
            )
        return made

    def _run(self, ready: Sequence[Ready], config: RunConfig, plan: "MemoryPlan") -> list[Made]:
        from nst_ops.coarse_to_fine import run

        size, count = ready[0].planned.size, len(ready)
        self.announce(plan)
        self._supervisor.begin(size, count, config, config.timeout_seconds)
        initial = [_stretch(r.initial, size) for r in ready if r.initial is not None]
        result = run(
            np.stack([r.photo.pixels for r in ready]),
            [r.styles for r in ready],
            config,
            initial=np.stack(initial) if initial else None,
            seeds=[r.planned.seed for r in ready],
            cache=self._target_cache(config.cache_dir),
            tile=plan.tile,
            history=plan.history,
            progress=self._reporter(ready[0].planned.job, count),
        )
        self._supervisor.end(size, count, config)
        facts = {
            "batch_size": count,
            "tile": plan.tile,
            "seconds_optimise": result.seconds_optimise,
        }
        return [
            Made(r.planned, pixels, r.photo.alpha, report, facts)
            for r, pixels, report in zip(ready, result.images, result.reports, strict=True)
        ]

    def _target_cache(self, folder: str | None) -> "TargetCache":
        from nst_ops.targets import TargetCache

        if self._targets is None:
            self._targets = TargetCache(folder=folder)
        return self._targets

    def _reporter(self, job: Job, count: int) -> Callable[["Iterate"], None]:
        name = job.id if count == 1 else f"{job.id} and {count - 1} more"

        def show(iterate: "Iterate") -> None:
            self._supervisor.check()
            self.show(iterate)
            if self.progress is None:
                return
            height, width = iterate.size
            loss = float(np.mean(iterate.losses["total"]))
            self.progress.show(
                f"{name}: {width}x{height}, step {iterate.step}/{iterate.steps}, loss {loss:.4g}"
            )

        return show


def read_picture(path: str, config: RunConfig) -> Picture:
    """Reads and decodes within the config's limits."""
    return decode(files.read(path, config.max_file_bytes), path=path, max_pixels=config.max_pixels)


def encode_result(made: Made, config: RunConfig) -> bytes:
    """A result's file, with its provenance."""
    job = made.planned.job
    provenance = {
        "software": SOFTWARE,
        "spec_hash": made.planned.spec_hash,
        "content": job.content,
        # JPEG's EXIF holds 64 KB.
        "styles": [{"path": path, "weight": weight} for path, weight in job.styles[:100]],
    }
    return encode(
        made.pixels, config.format, quality=config.quality, alpha=made.alpha, provenance=provenance
    )


def _total_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A first picture from a file takes the photo's size, whatever its aspect."""
    import tensorflow as tf

    from nst_ops.pyramid import resize

    return np.clip(resize(tf.constant(image)[None], size)[0].numpy(), 0.0, 1.0)


def _figures(report: "Report") -> Row:
    names = ("scale", "step", "total", "content", "style", "tv")
    return {
        "scales": [
            {
                "height": scale.size[0],
                "width": scale.size[1],
                "steps": scale.steps,
                "evaluations": scale.evaluations,
                "seconds": scale.seconds,
                "stop_reason": scale.stop_reason,
            }
            for scale in report.scales
        ],
        "loss_first": report.curve[0][2],
        "loss_last": report.losses["total"],
        "loss_content": report.losses["content"],
        "loss_style": report.losses["style"],
        "loss_tv": report.losses["tv"],
        "loss_curve": [dict(zip(names, point, strict=True)) for point in report.curve],
    }


def _machine(config: RunConfig) -> Row:
    from nst_ops.precision import device_name, resolve_precision

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "device": device_name(),
        "precision": resolve_precision(config.precision),
        "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
    }
