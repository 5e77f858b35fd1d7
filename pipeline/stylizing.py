"""The one room where pictures are made: a batch of planned jobs in, pictures on disk and metadata
rows out.

Free of Beam, and importing TensorFlow only when the first batch comes: what is pickled to workers
stays small, and launchers do not start TensorFlow.
"""

import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nst_ops.errors import InputError
from nst_ops.images import SOFTWARE, Picture, decode, encode, shrink
from pipeline import files
from pipeline.config import RunConfig
from pipeline.manifest import Job
from pipeline.outputs import Progress, Row, failed_row, now, row
from pipeline.planning import PlannedJob
from pipeline.starting import start_tensorflow

if TYPE_CHECKING:
    from nst_ops.iterates import Iterate, Report
    from nst_ops.memory import MemoryPlan
    from nst_ops.targets import TargetCache

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
      images: the folder of the pictures.
      run_id: for the rows.
      progress: told of every row and step.
      show: called with every iterate.
      announce: told how each batch will be computed, given its memory.
      threads: for TensorFlow in this process; None: as many as there are cores.
    """

    def __init__(
        self,
        images: str,
        run_id: str,
        *,
        progress: Progress | None = None,
        show: Callable[["Iterate"], None] = lambda iterate: None,
        announce: Callable[["MemoryPlan"], None] = lambda plan: None,
        threads: int | None = None,
    ):
        self.images, self.run_id, self.progress, self.show = images, run_id, progress, show
        self.announce, self.threads = announce, threads
        self._targets: TargetCache | None = None
        self._paintings: OrderedDict[str, np.ndarray] = OrderedDict()

    def stylize_batch(self, batch: Sequence[PlannedJob]) -> list[Row]:
        """Reads, decodes, optimises, encodes and writes; one row per job, whatever happens to
        it.
        """
        started, clock = now(), time.perf_counter()
        config = RunConfig.model_validate_json(batch[0].settings)
        rows: dict[int, Row] = {}
        ready: list[Ready] = []

        def fail(planned: PlannedJob, error: BaseException) -> None:
            facts = planned.facts() | {"started_at": started}
            rows[planned.job.line] = failed_row(self.run_id, planned.job, error, **facts)

        for planned in batch:
            try:
                ready.append(self._read(planned, config))
            except Exception as error:  # one bad file is one failed row
                fail(planned, error)
        try:
            results = self._optimise(ready, config)
        except Exception as error:
            results = []
            for planned, *_ in ready:
                fail(planned, error)
        for planned, pixels, alpha, report, facts in results:
            try:
                if report.non_finite:
                    raise NonFiniteError(
                        "the loss was not finite at any step; use `precision: float32` or "
                        "smaller weights"
                    )
                data = encode_result(pixels, alpha, config, planned)
                files.write(files.join(self.images, planned.job.output), data)
                rows[planned.job.line] = row(
                    self.run_id,
                    planned.job,
                    "ok",
                    **planned.facts(),
                    **_figures(report),
                    **facts,
                    **_machine(config),
                    started_at=started,
                    seconds_total=time.perf_counter() - clock,
                )
            except Exception as error:
                fail(planned, error)
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
        if not ready:
            return []
        start_tensorflow(self.threads)
        from nst_ops.coarse_to_fine import run
        from nst_ops.memory import default_limit, plan_memory, predict_bytes

        size = ready[0].planned.size
        limit = config.memory_limit or default_limit()
        if len(ready) > 1 and predict_bytes(size, config, batch=len(ready)) > limit:
            middle = len(ready) // 2
            halves = ready[:middle], ready[middle:]
            return [made for half in halves for made in self._optimise(half, config)]
        plan = plan_memory(size, config, batch=len(ready), limit=limit, tiling=config.tiling)
        self.announce(plan)
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
            progress=self._reporter(ready[0].planned.job, len(ready)),
        )
        facts = {
            "batch_size": len(ready),
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


def encode_result(
    pixels: np.ndarray, alpha: np.ndarray | None, config: RunConfig, planned: PlannedJob
) -> bytes:
    """A result's file, with its provenance."""
    provenance = {
        "software": SOFTWARE,
        "spec_hash": planned.spec_hash,
        "content": planned.job.content,
        # JPEG's EXIF holds 64 KB.
        "styles": [{"path": path, "weight": weight} for path, weight in planned.job.styles[:100]],
    }
    return encode(pixels, config.format, quality=config.quality, alpha=alpha, provenance=provenance)


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
