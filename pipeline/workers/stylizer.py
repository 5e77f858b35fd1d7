"""The one room where pictures are made: batches of planned jobs in, pictures on disk and metadata
rows out.

Free of Beam, so that it can be driven by a loop, a test or `nst stylize`.
"""

import hashlib
import math
import os
import resource
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from nst_ops.coarse_to_fine.reports import LOSSES
from nst_ops.engines.memory import READ_AHEAD
from nst_ops.errors import InputError
from nst_ops.images.codec import SOFTWARE, Picture, decode, encode
from nst_ops.images.inputs import Style
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.machine import parallelism
from pipeline.planning.finished import Finished
from pipeline.store import files
from pipeline.store.file_index import FileIndex
from pipeline.store.journal import deaths
from pipeline.store.layout import images_folder, now
from pipeline.store.metadata import Row, error_columns, row
from pipeline.store.progress import Progress
from pipeline.workers import batch_checkpoint
from pipeline.workers.executor import DecodedJob, Optimizer, Outcome, StylizedImage
from pipeline.workers.limits import Stopped, Supervisor

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.iterates import Iterate
    from nst_ops.coarse_to_fine.reports import Report
    from nst_ops.engines.memory import MemoryPlan

# Larger batches are not read ahead: they take minutes, in which reading does not show, and
# their pixels take memory.
_READ_AHEAD_PIXELS = 16_000_000

_MOST_DEATHS = 2  # of workers, over one picture

Batch = Sequence[PlannedJob]


class WorkerDiedError(RuntimeError):
    """A picture that workers died over."""


class LoadedBatch(NamedTuple):
    """A batch whose files are read."""

    batch: Batch
    config: RunConfig
    started: datetime
    seconds: float
    ready: list[DecodedJob]
    rows: list[Row]  # of jobs that need no picture or get none


class Stylizer:
    """Makes pictures; one per worker process.

    Args:
      folder: the run's folder.
      run_id: for the rows.
      config: settings that rows override.
      single: the pictures go into `folder` itself, are made even if they are there, and there are
        no checkpoints: `nst stylize`.
      index: is told of pictures that are written.
      deadline: as `time.time()`; what is not done by then is deferred.
      progress: told of every row and step.
      show: called with every iterate.
      announce: told how each batch will be computed, given its memory.
      processes: that share this machine's cores, GPUs and memory.
    """

    def __init__(
        self,
        folder: str,
        run_id: str,
        config: RunConfig,
        *,
        index: FileIndex | None = None,
        single: bool = False,
        deadline: float = math.inf,
        progress: Progress | None = None,
        show: Callable[["Iterate"], None] = lambda iterate: None,
        announce: Callable[["MemoryPlan"], None] = lambda plan: None,
        processes: int = 1,
    ):
        self.folder, self.run_id, self.single, self.progress = folder, run_id, single, progress
        self._config, self._index = config, index or FileIndex()
        self.images = folder if single else images_folder(folder)
        self._supervisor = Supervisor(folder, run_id, deadline)
        self._optimizer = Optimizer(
            None if single else folder,
            self._supervisor,
            progress=progress,
            show=show,
            announce=announce,
            processes=processes,
        )
        self._processes = processes
        # What this run has behind it, if it was begun anew.
        self._finished = None if single else Finished(folder, run_id, self._index, processes)
        self._deaths = {} if single else deaths(folder, run_id)
        self._turn = threading.Lock()
        self._paintings: OrderedDict[tuple[str, str, int], Style] = OrderedDict()

    def stylize_batches(self, batches: Sequence[Batch]) -> Iterator[Row]:
        """One row per job, whatever happens.

        While a batch is optimized, the next one is read and decoded, and the one before is encoded
        and written.
        """
        # Some engines run several threads in a worker; one at a time has all cores anyway.
        with self._turn, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            batches = list(self._suspects_apart(batches))
            reading: Future[LoadedBatch] | None = None
            writing: Future[list[Row]] | None = None
            for index, batch in enumerate(batches):
                opened = reading.result() if reading else self._open(batch)
                following = batches[index + 1] if index + 1 < len(batches) else None
                ahead = following is not None and _can_be_read_ahead(following)
                # Of two suspects at once nobody could tell which it was.
                ahead = ahead and not self._deaths
                reading = reader.submit(self._open, following) if ahead else None
                clock = time.perf_counter()
                outcomes = list(self._optimizer.make(opened.ready, opened.config))
                seconds = opened.seconds + time.perf_counter() - clock
                if writing:
                    yield from writing.result()
                writing = writer.submit(self._close, opened, outcomes, seconds)
                del opened, outcomes  # the writer's now: they hold the pictures
                if not ahead:
                    yield from writing.result()
                    writing = None
            if writing:
                yield from writing.result()

    def _suspects_apart(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Pictures that a worker died over are made one by one, so that each answers for itself."""
        for batch in batches:
            suspects = [planned for planned in batch if planned.job.output in self._deaths]
            if not suspects:
                yield batch
                continue
            yield from ([planned] for planned in suspects)
            if rest := [planned for planned in batch if planned not in suspects]:
                yield rest

    def _check_deaths(self, planned: PlannedJob) -> None:
        died = self._deaths.get(planned.job.output, 0)
        if died >= _MOST_DEATHS:
            raise WorkerDiedError(
                f"{died} workers died while they made it: killed, perhaps for their memory, or "
                "crashed; lower size, parallelism or memory_limit, or leave the photo out"
            )

    def _open(self, batch: Batch) -> LoadedBatch:
        """Reads and decodes; what is done already, or cannot be done, is a row."""
        clock = time.perf_counter()
        config = batch[0].job.config(self._config)
        opened = LoadedBatch(batch, config, now(), 0.0, [], [])
        for planned in batch:
            try:
                # It may have been made since it was planned: some engines repeat batches.
                if done := self._finished and self._finished.row(planned, config):
                    opened.rows.append(done)
                else:
                    self._supervisor.check_stop()
                    self._check_deaths(planned)
                    if self.progress:
                        self.progress.begin([planned.job.output])
                    opened.ready.append(self._read(planned, config))
            except Exception as error:  # one bad file is one failed row
                opened.rows.append(self._failure_row(opened, planned, error))
        return opened._replace(seconds=time.perf_counter() - clock)

    def _close(
        self, opened: LoadedBatch, outcomes: Sequence[tuple[DecodedJob, Outcome]], seconds: float
    ) -> list[Row]:
        """Encodes and writes."""
        rows = list(opened.rows)
        for job, outcome in outcomes:
            clock = time.perf_counter()
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                data = encode_result(job, outcome, opened.config)
                path = files.join(self.images, job.planned.job.output)
                files.write(path, data)
                self._index.note_result(path, data)
            except Exception as error:
                rows.append(self._failure_row(opened, job.planned, error))
            else:
                figures = {**_figures(outcome.report), **outcome.facts, **_machine(opened.config)}
                spent = seconds + time.perf_counter() - clock
                figures |= {"seconds_total": spent, "spec_hash": outcome.spec_hash}
                rows.append(self._row(opened, job.planned, "ok", **figures))
        if not self.single:
            over = {done["output"] for done in rows if done["status"] != "deferred"}
            batch_checkpoint.forget(self.folder, over)
        if self.progress:
            self.progress.record(rows)
            self.progress.end([planned.job.output for planned in opened.batch])
        self._index.flush()
        return rows

    def _row(self, opened: LoadedBatch, planned: PlannedJob, status: str, **values: Any) -> Row:
        facts = planned.facts() | {"started_at": opened.started} | values
        return row(self.run_id, planned.job, status, **facts)

    def _failure_row(self, opened: LoadedBatch, planned: PlannedJob, error: Exception) -> Row:
        """Of a job without a picture."""
        if isinstance(error, Stopped):
            return self._row(opened, planned, "deferred", error_message=str(error))
        return self._row(opened, planned, "failed", **error_columns(error))

    def _read(self, planned: PlannedJob, config: RunConfig) -> DecodedJob:
        photo = _read_planned(
            planned.job.content,
            config,
            planned.content_sha256,
            long_side=max(planned.size),
            enlarge=config.enlarge,
        )
        styles = [
            self._style(path, config, sha256, side).weighing(weight)
            for (path, weight), sha256, side in zip(
                planned.job.styles, planned.style_sha256, planned.style_sides, strict=True
            )
        ]
        initial = None
        if config.init_file:
            side = max(planned.size)
            initial = self._style(config.init_file, config, planned.init_sha256, side).image
        return DecodedJob(planned, photo, styles, initial)

    def _style(self, path: str, config: RunConfig, sha256: str, side: int) -> Style:
        """A painting of at most this long side, from a cache: many rows share few."""
        key = (path, sha256, side)
        if key not in self._paintings:
            pixels = _read_planned(path, config, sha256, long_side=side).on_white()
            pixels.flags.writeable = False  # so that its digest need be taken only once
            self._paintings[key] = Style(pixels)
            budget = parallelism.cache_budget(config, self._processes)
            while len(self._paintings) > 1 and _total_bytes(self._paintings) > budget:
                self._paintings.popitem(last=False)
        self._paintings.move_to_end(key)
        return self._paintings[key]


def _read_planned(path: str, config: RunConfig, sha256: str, **size: Any) -> Picture:
    """Decodes a file, which must be what it was when it was planned."""
    data = files.read(path, config.max_file_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("has changed since the run began; run again", path=path)
    return decode(data, path=path, max_pixels=config.max_pixels, **size)


def encode_result(ready: DecodedJob, made: StylizedImage, config: RunConfig) -> bytes:
    """A result's file, with its provenance."""
    job = ready.planned.job
    provenance = {
        "software": SOFTWARE,
        "spec_hash": made.spec_hash,
        "content": job.content,
        # JPEG's EXIF holds 64 KB.
        "styles": [{"path": path, "weight": weight} for path, weight in job.styles[:100]],
    }
    return encode(
        made.pixels,
        config.format,
        quality=config.quality,
        alpha=ready.photo.alpha,
        provenance=provenance,
    )


def _can_be_read_ahead(batch: Batch) -> bool:
    small = max(planned.sources.decoded for planned in batch) <= READ_AHEAD
    return small and _pixels(batch) <= _READ_AHEAD_PIXELS


def _pixels(batch: Batch) -> int:
    height, width = batch[0].size
    return len(batch) * height * width


def _total_bytes(styles: Mapping[Any, Style]) -> int:
    return sum(style.image.nbytes for style in styles.values())


def _figures(report: "Report") -> Row:
    names = ("scale", "step", *LOSSES)
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
    import tensorflow as tf

    from nst_ops.vgg.precision import device_name, resolve_precision

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "device": device_name(),
        "precision": resolve_precision(config.precision),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count(),
        "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
    }
