"""Makes pictures: takes batches of planned jobs, writes pictures, and returns metadata rows.

It does not know Beam, so that a loop, a test or `nst stylize` can drive it.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from nst_ops.engines.base import READ_AHEAD, NamedStyle, Plan, Step
from nst_ops.errors import InputError
from nst_ops.images.codec import SOFTWARE, Picture, decode, encode
from nst_ops.images.inputs import Style
from nst_ops.images.margins import Scan, decode_scan
from pipeline.config.job_configs import JobConfigs
from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob
from pipeline.jobs.row import Row
from pipeline.machine import parallelism
from pipeline.planning.finished import Finished
from pipeline.planning.identity import Identities
from pipeline.store import files
from pipeline.store.file_index import FileIndex
from pipeline.store.journal import deaths
from pipeline.store.layout import images_folder, now
from pipeline.store.metadata import error_columns, row
from pipeline.store.progress import Progress
from pipeline.workers.batch_checkpoint import remove_checkpoints
from pipeline.workers.executor import DecodedJob, Executor, Outcome, changed
from pipeline.workers.limits import Stopped, Supervisor

# Larger batches are not read ahead: they take minutes to make, beside which reading does not count,
# and their pixels take memory.
_READ_AHEAD_PIXELS = 16_000_000

_BLACK = 0.1  # a mask that is nowhere brighter chooses nothing, or was saved with 1 for white
_MOST_DEATHS = 2  # workers that may die over one picture before its row fails

Batch = Sequence[PlannedJob]


class WorkerDiedError(RuntimeError):
    """Raised for a picture over which too many workers have died."""


class LoadedBatch(NamedTuple):
    """Holds a batch whose files are read and decoded."""

    batch: Batch
    config: RunConfig
    started: datetime
    seconds: float
    jobs: list[DecodedJob]
    rows: list[Row]  # of jobs that need no picture or get none


class Stylizer:
    """Makes pictures; there is one stylizer per worker process.

    Args:
      folder: the run's folder.
      run_id: the id of the run, for its rows.
      config: the settings that rows override.
      single: whether this is `nst stylize`: pictures go into `folder` itself, are made even if they
        are there, and have no checkpoints.
      index: tells what files hold, and notes pictures that are written.
      deadline: as `time.time()`; what is not done by then is deferred.
      progress: shows every row and step to the launcher.
      show: called with every step.
      announce: called with the plan by which each batch will be computed.
      processes: how many share this machine's cores, GPUs and memory.
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
        show: Callable[[Step], None] = lambda step: None,
        announce: Callable[[Plan], None] = lambda plan: None,
        processes: int = 1,
    ):
        self.folder, self.run_id, self.single, self.progress = folder, run_id, single, progress
        self._configs, self._index = JobConfigs(config), index or FileIndex()
        self._identities = Identities()
        self.images = folder if single else images_folder(folder)
        self._supervisor = Supervisor(folder, run_id, deadline)
        self._executor = Executor(
            None if single else folder,
            self._supervisor,
            progress=progress,
            show=show,
            announce=announce,
            processes=processes,
        )
        self._processes = processes
        # What earlier attempts of this run have done.
        self._finished = None if single else Finished(folder, run_id, self._index, processes)
        self._deaths = {} if single else deaths(folder, run_id)
        self._lock = threading.Lock()
        self._files = _DecodedFiles(processes)

    def stylize_batches(self, batches: Sequence[Batch]) -> Iterator[Row]:
        """Makes batches, and yields one row per job, whatever happens.

        While a batch is made, the next one is read and decoded, and the one before is encoded
        and written.
        """
        # Some runners have several threads in a worker; one batch at a time uses all cores anyway.
        with self._lock, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            batches = list(self._isolate_suspects(batches))
            reading: Future[LoadedBatch] | None = None
            writing: Future[list[Row]] | None = None
            for index, batch in enumerate(batches):
                loaded = reading.result() if reading else self._load(batch)
                following = batches[index + 1] if index + 1 < len(batches) else None
                ahead = following is not None and _can_be_read_ahead(following)
                # With two suspects at work at once, nobody could tell which one killed the worker.
                ahead = ahead and not self._deaths
                reading = reader.submit(self._load, following) if ahead else None
                clock = time.perf_counter()
                outcomes = list(self._executor.make(loaded.jobs, loaded.config))
                seconds = loaded.seconds + time.perf_counter() - clock
                if writing:
                    yield from writing.result()
                writing = writer.submit(self._write, loaded, outcomes, seconds)
                del loaded, outcomes  # they hold pictures, which are the writer's now
                if not ahead:
                    yield from writing.result()
                    writing = None
            if writing:
                yield from writing.result()

    def _isolate_suspects(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Puts each picture that a worker died over into a batch of its own, to tell them apart."""
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

    def _load(self, batch: Batch) -> LoadedBatch:
        """Reads and decodes a batch; jobs that are done already, or fail here, become rows."""
        clock = time.perf_counter()
        config = self._configs.of(batch[0].job)
        loaded = LoadedBatch(batch, config, now(), 0.0, [], [])
        for planned in batch:
            try:
                data = None
                if not planned.spec_hash:
                    self._supervisor.check_stop()
                    planned, data = self._identify(planned, config)
                # It may have been made since it was planned: some runners repeat batches.
                if done := self._finished and self._finished.row(planned, config):
                    loaded.rows.append(done)
                else:
                    self._supervisor.check_stop()
                    self._check_deaths(planned)
                    if self.progress:
                        self.progress.begin([planned.job.output])
                    loaded.jobs.append(self._decode(planned, config, data))
            except Exception as error:  # one bad file is one failed row
                loaded.rows.append(self._failure_row(loaded, planned, error))
        return loaded._replace(seconds=time.perf_counter() - clock)

    def _identify(self, planned: PlannedJob, config: RunConfig) -> tuple[PlannedJob, bytes]:
        """Reads the photo of a job that was planned from the photo's header only.

        Returns the job with its spec hashes, and the photo's bytes.
        """
        path = planned.job.content
        data, facts = self._index.read(
            path, max_bytes=config.max_file_bytes, max_pixels=config.max_pixels
        )
        # A larger photo of the same shape would take more memory than was planned.
        larger = facts.header.decoded_pixels(max(planned.size)) > planned.sources.decoded
        if larger or config.engine.output_size(facts.size) != planned.size:
            raise changed(path)
        return self._identities.identify(planned, config, facts.sha256), data

    def _write(
        self, loaded: LoadedBatch, outcomes: Sequence[tuple[DecodedJob, Outcome]], seconds: float
    ) -> list[Row]:
        """Encodes and writes the pictures of a batch, and returns the rows of all its jobs."""
        unrecorded, written = list(loaded.rows), []
        for job, outcome in outcomes:
            clock = time.perf_counter()
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                spec_hash = dict(job.planned.spec_hashes)[outcome.variant]
                data = encode_result(job, outcome.pixels, spec_hash, loaded.config)
                path = files.join(self.images, job.planned.job.output)
                files.write(path, data)
            except Exception as error:
                unrecorded.append(self._failure_row(loaded, job.planned, error))
            else:
                spent = seconds + time.perf_counter() - clock
                figures = {**outcome.columns, **_process(), "seconds_total": spent}
                figures["spec_hash"] = spec_hash
                figures["style_trims"] = [trim._asdict() for trim in job.trims]
                written.append(self._row(loaded, job.planned, "ok", **figures))
                # At once: a picture whose worker dies before its row is kept loses its figures.
                if self.progress:
                    self.progress.record(written[-1:])
                self._index.note_result(path, data)
        rows = unrecorded + written
        if not self.single:
            finished = {done["output"] for done in rows if done["status"] != "deferred"}
            remove_checkpoints(self.folder, finished)
        if self.progress:
            self.progress.record(unrecorded)
            self.progress.end([planned.job.output for planned in loaded.batch])
        self._index.flush()
        return rows

    def _row(self, loaded: LoadedBatch, planned: PlannedJob, status: str, **values: Any) -> Row:
        facts = planned.facts() | {"started_at": loaded.started} | values
        return row(self.run_id, planned.job, status, **facts)

    def _failure_row(self, loaded: LoadedBatch, planned: PlannedJob, error: Exception) -> Row:
        """Returns the metadata row of a job that got no picture: failed, or deferred by a stop."""
        if isinstance(error, Stopped):
            # It may have been made before this run was begun anew.
            earlier = self._finished and self._finished.earlier_row(planned.job.output)
            return earlier or self._row(loaded, planned, "deferred", error_message=str(error))
        return self._row(loaded, planned, "failed", **error_columns(error))

    def _decode(self, planned: PlannedJob, config: RunConfig, data: bytes | None) -> DecodedJob:
        """Reads and decodes a job's photo, paintings, masks and first picture.

        Args:
          data: the photo's bytes, if they were read already.
        """
        path, side = planned.job.content, max(planned.size)
        if data is None:
            data = _read_unchanged(path, config, planned.content_sha256)
        photo = decode(data, path=path, max_pixels=config.max_pixels, long_side=side, enlarge=True)
        sides = iter(planned.style_sides)
        styles, trims = [], []
        for style, sha256 in zip(planned.job.styles, planned.style_sha256, strict=True):
            if not style.is_file:
                styles.append(NamedStyle(style.name, style.weight))
                continue
            painting_side = next(sides)
            if learned := config.engine.learned_style(sha256):
                styles.append(NamedStyle(learned, style.weight))
                continue
            painting, scan = self._painting(style.name, config, sha256, painting_side)
            photo_mask = self._mask(style.photo_mask, planned, config)
            painting_mask = self._mask(style.painting_mask, planned, config)
            if painting_mask is not None:
                painting_mask = scan.cut(painting_mask)
                if painting_mask.max() < _BLACK:
                    raise InputError(
                        f"is white only in the margin that is left out of {style.name} "
                        f"({scan.margin}); draw it on the painting, or use `trim: off`",
                        path=style.painting_mask,
                    )
            styles.append(painting.placed(style.weight, photo_mask, painting_mask))
            trims.append(scan.margin)
        initial = None
        if file := config.engine.initial_file:
            initial = self._picture(file, config, planned.initial_sha256, side).on_white()
        keep = self._mask(planned.job.keep, planned, config)
        return DecodedJob(planned, photo, styles, initial, keep, trims)

    def _painting(self, path: str, config: RunConfig, sha256: str, side: int) -> tuple[Style, Scan]:
        """Returns a painting without its margin, at most `side` px long."""

        def read() -> tuple[Style, Scan]:
            data = _read_unchanged(path, config, sha256)
            scan = decode_scan(
                data, path=path, max_pixels=config.max_pixels, long_side=side, trim=config.trim
            )
            scan.pixels.flags.writeable = False  # so that its digest is computed only once
            return Style(scan.pixels), scan

        return self._files.get((path, sha256, side, config.trim), read, config)

    def _picture(self, path: str, config: RunConfig, sha256: str, side: int) -> Picture:
        """Returns any other image, at most `side` px long."""

        def read() -> Picture:
            data = _read_unchanged(path, config, sha256)
            return decode(data, path=path, max_pixels=config.max_pixels, long_side=side)

        return self._files.get((path, sha256, side), read, config)

    def _mask(self, path: str, planned: PlannedJob, config: RunConfig) -> np.ndarray | None:
        """Returns the greys of a mask's file, [h, w] in [0, 1], black where it is transparent; None
        if there is no path.
        """
        if not path:
            return None
        sha256 = dict(planned.mask_sha256)[path]
        picture = self._picture(path, config, sha256, max(planned.size))
        mask = picture.pixels.mean(axis=2)
        if picture.alpha is not None:
            mask = mask * picture.alpha
        # To keep nothing is no mistake.
        if mask.max() < _BLACK and (mask.any() or path != planned.job.keep):
            raise InputError(
                f"is black, or nearly so ({255 * mask.max():.0f} of 255 at most); make white (255) "
                "what the mask is to choose",
                path=path,
            )
        return mask


class _DecodedFiles:
    """Keeps paintings, masks and first pictures, which many rows share.

    Args:
      processes: how many share this machine's memory.
    """

    def __init__(self, processes: int):
        self._processes = processes
        self._known: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, read: Callable[[], Any], config: RunConfig) -> Any:
        """Returns what is kept under a key; else what `read` returns."""
        if key not in self._known:
            self._known[key] = read()
            budget = parallelism.cache_budget(config, self._processes)
            while len(self._known) > 1 and sum(map(_bytes, self._known.values())) > budget:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def _bytes(decoded: Picture | tuple[Style, Scan]) -> int:
    return decoded.pixels.nbytes if isinstance(decoded, Picture) else decoded[1].pixels.nbytes


def _read_unchanged(path: str, config: RunConfig, sha256: str) -> bytes:
    """Reads a file, and raises an InputError if it has changed since it was planned."""
    data = files.read(path, config.max_file_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise changed(path)
    return data


def encode_result(
    decoded: DecodedJob, pixels: np.ndarray, spec_hash: str, config: RunConfig
) -> bytes:
    """Returns the bytes of a result's file, with its provenance in its metadata."""
    job = decoded.planned.job
    provenance = {
        "software": SOFTWARE,
        "spec_hash": spec_hash,
        "content": job.content,
        # JPEG's EXIF holds 64 KB, so not every long blend fits.
        "styles": [{"path": style.name, "weight": style.weight} for style in job.styles[:100]],
    }
    return encode(
        pixels,
        config.format,
        quality=config.quality,
        alpha=decoded.photo.alpha,
        provenance=provenance,
    )


def _can_be_read_ahead(batch: Batch) -> bool:
    small = max(planned.sources.decoded for planned in batch) <= READ_AHEAD
    return small and _pixels(batch) <= _READ_AHEAD_PIXELS


def _pixels(batch: Batch) -> int:
    height, width = batch[0].size
    return len(batch) * height * width


def _process() -> dict[str, Any]:
    """Returns the metadata columns that describe this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
    }
