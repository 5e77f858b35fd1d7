"""The one room where pictures are made: a batch of planned jobs in, pictures on disk and metadata
rows out.

Free of Beam, and importing TensorFlow only when the first batch comes: what is pickled to workers
stays small, and launchers do not start TensorFlow.
"""

import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nst_ops.errors import InputError
from nst_ops.images import SOFTWARE, Picture, decode, encode, shrink
from pipeline import files
from pipeline.config import RunConfig
from pipeline.manifest import Job
from pipeline.outputs import Progress, Row, failed_row, now, row
from pipeline.planning import PlannedJob
from pipeline.quiet import quiet_start

if TYPE_CHECKING:
    from nst_ops.stylize import Iterate, Report

_PAINTINGS = 64  # decoded, kept in memory


class NonFiniteError(ArithmeticError):
    """The loss was not a number at any step."""


class Stylizer:
    """Makes pictures; one per worker process.

    Args:
      images: the folder of the pictures.
      run_id: for the rows.
      progress: told of every row and step.
      show: called with every iterate.
    """

    def __init__(
        self,
        images: str,
        run_id: str,
        *,
        progress: Progress | None = None,
        show: Callable[["Iterate"], None] = lambda iterate: None,
    ):
        self.images, self.run_id, self.progress, self.show = images, run_id, progress, show
        self._paintings: OrderedDict[str, np.ndarray] = OrderedDict()

    def stylize_batch(self, batch: Sequence[PlannedJob]) -> list[Row]:
        """Reads, decodes, optimises, encodes and writes; one row per job, whatever happens to
        it.
        """
        started, clock = now(), time.perf_counter()
        config = RunConfig.model_validate_json(batch[0].settings)
        rows: dict[int, Row] = {}
        ready: list[
            tuple[PlannedJob, Picture, list[tuple[np.ndarray, float]], np.ndarray | None]
        ] = []
        for planned in batch:
            try:
                ready.append((planned, *self._inputs(planned, config)))
            except Exception as error:  # one bad file is one failed row
                rows[planned.job.line] = self._failed(planned, error, started)
        try:
            pictures, reports, seconds = self._optimise(ready, config)
        except Exception as error:
            for planned, *_ in ready:
                rows[planned.job.line] = self._failed(planned, error, started)
            ready, pictures, reports, seconds = [], np.empty(0), [], 0.0
        for index, (planned, photo, _, _) in enumerate(ready):
            try:
                report = reports[index]
                if report.non_finite:
                    raise NonFiniteError(
                        "the loss was not finite at any step; use `precision: float32` or "
                        "smaller weights"
                    )
                self._write(planned, pictures[index], photo.alpha, config)
                rows[planned.job.line] = row(
                    self.run_id,
                    planned.job,
                    "ok",
                    **planned.facts(),
                    started_at=started,
                    **_figures(report, config),
                    batch_size=len(ready),
                    seconds_optimise=seconds,
                    seconds_total=time.perf_counter() - clock,
                    **_machine(config),
                )
            except Exception as error:
                rows[planned.job.line] = self._failed(planned, error, started)
        if self.progress:
            for done in rows.values():
                self.progress.count(done["status"])
            self.progress.show("")
            self.progress.flush()
        return list(rows.values())

    def _inputs(
        self, planned: PlannedJob, config: RunConfig
    ) -> tuple[Picture, list[tuple[np.ndarray, float]], np.ndarray | None]:
        photo = read_picture(planned.job.content, config)
        photo = shrink(photo, max(planned.size), enlarge=config.enlarge)
        if photo.pixels.shape[:2] != planned.size:
            raise InputError("has changed since the run began; run again", path=planned.job.content)
        styles = [(self._painting(path, config), weight) for path, weight in planned.job.styles]
        initial = self._painting(config.init_file, config) if config.init_file else None
        return photo, styles, initial

    def _painting(self, path: str, config: RunConfig) -> np.ndarray:
        """Pixels of a painting, no larger than its largest use, from a small cache."""
        if path not in self._paintings:
            self._paintings[path] = read_picture(path, config).pixels
            if len(self._paintings) > _PAINTINGS:
                self._paintings.popitem(last=False)
        self._paintings.move_to_end(path)
        return self._paintings[path]

    def _optimise(
        self, ready: Sequence[tuple], config: RunConfig
    ) -> tuple[np.ndarray, list["Report"], float]:
        if not ready:
            return np.empty(0), [], 0.0
        quiet_start()
        from nst_ops.stylize import run

        size = ready[0][1].pixels.shape[:2]
        initial = None
        if ready[0][3] is not None:
            initial = np.stack([_stretch(first, size) for *_, first in ready])
        result = run(
            np.stack([photo.pixels for _, photo, _, _ in ready]),
            [styles for _, _, styles, _ in ready],
            config,
            initial=initial,
            seeds=[planned.seed for planned, *_ in ready],
            progress=self._reporter(ready[0][0].job, len(ready)),
        )
        return result.images, result.reports, result.seconds_optimise

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

    def _write(
        self, planned: PlannedJob, pixels: np.ndarray, alpha: np.ndarray | None, config: RunConfig
    ) -> None:
        data = encode_result(
            pixels,
            alpha,
            config,
            spec_hash=planned.spec_hash,
            content=planned.job.content,
            styles=planned.job.styles,
        )
        files.write(files.join(self.images, planned.job.output), data)

    def _failed(self, planned: PlannedJob, error: BaseException, started: Any) -> Row:
        return failed_row(self.run_id, planned.job, error, **planned.facts(), started_at=started)


def read_picture(path: str, config: RunConfig) -> Picture:
    """Reads and decodes within the config's limits."""
    return decode(files.read(path, config.max_file_bytes), path=path, max_pixels=config.max_pixels)


def encode_result(
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    config: RunConfig,
    *,
    spec_hash: str,
    content: str,
    styles: Sequence[tuple[str, float]],
) -> bytes:
    """A result's file, with its provenance."""
    provenance = {
        "software": SOFTWARE,
        "spec_hash": spec_hash,
        "content": content,
        "styles": [{"path": path, "weight": weight} for path, weight in styles],
    }
    return encode(pixels, config.format, quality=config.quality, alpha=alpha, provenance=provenance)


def _stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A first picture from a file takes the photo's size, whatever its aspect."""
    import tensorflow as tf

    from nst_ops.pyramid import resize

    return np.clip(resize(tf.constant(image)[None], size)[0].numpy(), 0.0, 1.0)


def _figures(report: "Report", config: RunConfig) -> Row:
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
