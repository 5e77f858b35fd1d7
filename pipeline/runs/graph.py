"""Builds the Beam graph of a run: parts of the manifest go in, pictures and metadata come out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from nst_ops.errors import InputError
from pipeline.errors import ConfigError
from pipeline.jobs.job import BadRow, Job
from pipeline.jobs.planned_job import PlannedJob
from pipeline.jobs.row import Row
from pipeline.manifest.parts import read_part
from pipeline.planning.batches import cut_batches
from pipeline.planning.finished import Finished
from pipeline.planning.planner import Planner
from pipeline.runs.spec import RunSpec
from pipeline.store import files, layout, metadata
from pipeline.store.metadata import error_columns, row
from pipeline.store.progress import Progress
from pipeline.workers.limits import Stopped, Supervisor
from pipeline.workers.stylizer import Stylizer

# Batches that a worker gets at once, so that one is read and another written while a third is made.
_BATCHES_AT_ONCE = 8
_READERS = 8  # threads that look at the files of a part


def build(root: beam.Pipeline, spec: RunSpec) -> None:
    """Adds the whole graph of a run to a pipeline."""
    parts = root | "JobParts" >> beam.Create(range(spec.parts)) | "SpreadParts" >> Spread(str)
    planned = parts | "PlanParts" >> beam.ParDo(PlanPart(spec)).with_outputs("rows", main="batches")
    made = (
        planned.batches
        | "SpreadBatches" >> Spread(_first_output)
        | "Stylize" >> StylizeBatches(spec)
    )
    # Rows are written where they arise, so that no process holds a million of them.
    planned.rows | "WriteFinished" >> WriteMetadata(spec, "finished")
    made | "WriteMade" >> WriteMetadata(spec, "made")


class Spread(beam.PTransform):
    """Spreads elements over all workers.

    They are grouped by key, since Flink's reshuffle leaves with a worker what that worker made, and
    then reshuffled, since keys alone may give few elements to one worker.

    Args:
      key: gives the key of an element.
    """

    def __init__(self, key: Callable[[Any], str]):
        super().__init__()
        self.key = key

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Returns the same elements."""
        return (
            elements
            | beam.Map(lambda element, key: (key(element), element), self.key)
            | beam.GroupByKey()
            | beam.FlatMap(lambda group: group[1])
            | beam.Reshuffle()
        )


def _first_output(batch: Sequence[PlannedJob]) -> str:
    return batch[0].job.output


class PlanPart(beam.DoFn):
    """Plans a part of the manifest, given its number.

    Its main output is batches of `PlannedJob`s that need work; its output `rows` is the metadata
    rows of all other jobs, which are done already or cannot be done.
    """

    def __init__(self, spec: RunSpec):
        self.spec = spec

    def setup(self) -> None:
        """Prepares a worker, once."""
        spec = self.spec
        spec.begin_worker()
        self.supervisor = Supervisor(spec.folder, spec.run_id, spec.deadline)
        self.index = spec.file_index(before_reading=self.supervisor.check_stop)
        self.planner = Planner(spec.config, dict(spec.assets), self.index)
        self.progress = Progress(spec.folder, f"{spec.run_id}-planning")
        self.finished = Finished(spec.folder, spec.run_id, self.index, spec.processes)
        # The failures of earlier runs, which `retry_failed: false` does not try again.
        self.failed = {} if spec.retry_failed else metadata.failures(spec.folder)

    def process(self, part: int) -> Iterator[Any]:
        """Plans one part."""
        spec = self.spec
        elements = read_part(spec.folder, spec.run_id, part)
        results = _map_in_threads(self._plan, elements)
        planned = [result for result in results if isinstance(result, PlannedJob)]
        # Cut before finished jobs drop out, so that the same jobs always share a batch.
        batches = list(cut_batches(planned, self.planner.configs, spec.workers))
        found = _map_in_threads(self._finished_row, [p for batch in batches for p in batch])
        done = {row["manifest_line"] for row in found if row}
        rows = [result for result in results if not isinstance(result, PlannedJob)]
        rows += [row for row in found if row]
        self.progress.count(rows)
        self.index.flush()
        yield from (beam.pvalue.TaggedOutput("rows", row) for row in rows)
        for batch in batches:
            if left := tuple(planned for planned in batch if planned.job.line not in done):
                yield left

    def _plan(self, element: Job | BadRow) -> PlannedJob | Row:
        run_id = self.spec.run_id
        if isinstance(element, BadRow):
            unusable = error_columns(InputError(element.message))
            return row(run_id, element.as_job(), "failed", **unusable)
        try:
            # Where no picture is there, its hash is not needed yet: the worker reads the photo.
            identify = not self.spec.retry_failed or self.finished.is_there(element.output)
            planned = self.planner.plan(element, identify=identify)
        except (InputError, ConfigError) as error:
            return row(run_id, element, "failed", **error_columns(error))
        except Stopped as stopped:
            return self._deferred(element, stopped)
        before = self.failed.get((element.output, planned.spec_hash))
        return row(run_id, element, "failed", **planned.facts(), **before) if before else planned

    def _finished_row(self, planned: PlannedJob) -> Row | None:
        """Returns the row of a job that is done, or deferred by a stop; None if it needs work."""
        try:
            return self.finished.row(planned, self.planner.configs.of(planned.job))
        except Stopped as stopped:
            return self._deferred(planned.job, stopped)

    def _deferred(self, job: Job, stopped: Stopped) -> Row:
        """Returns a deferred row, or the one that an earlier attempt of this run kept."""
        return self.finished.earlier_row(job.output) or row(
            self.spec.run_id, job, "deferred", error_message=str(stopped)
        )


def _map_in_threads(function: Callable[[Any], Any], elements: Sequence[Any]) -> list[Any]:
    """Returns the results in any order; waiting for files and hashing them free the GIL."""
    parts = [elements[start::_READERS] for start in range(_READERS)]
    with ThreadPoolExecutor(_READERS) as readers:
        done = readers.map(lambda part: [function(element) for element in part], parts)
        return [result for part in done for result in part]


class StylizeHandler(ModelHandler[tuple[PlannedJob, ...], Row, Stylizer]):
    """Gives Beam's RunInference a `Stylizer` per worker process."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def load_model(self) -> Stylizer:
        """Returns the stylizer, which is cheap: the network is loaded with the first batch."""
        spec = self.spec
        spec.begin_worker()
        return Stylizer(
            spec.folder,
            spec.run_id,
            spec.config,
            index=spec.file_index(),
            deadline=spec.deadline,
            progress=Progress(spec.folder, spec.run_id),
            processes=spec.processes,
        )

    def run_inference(
        self,
        batch: Sequence[tuple[PlannedJob, ...]],
        model: Stylizer,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Row]:
        """Makes the batches that Beam hands over together; returns one row per job."""
        return list(model.stylize_batches(batch))

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """Tells Beam to hand over a fixed number of batches at once."""
        return {"min_batch_size": _BATCHES_AT_ONCE, "max_batch_size": _BATCHES_AT_ONCE}

    def get_num_bytes(self, batch: Any) -> int:
        """Returns a number that costs nothing; Beam's default pickles every batch to measure it."""
        return len(batch)

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of Beam's metrics, which is that of our own counters."""
        return "nst"


class StylizeBatches(beam.PTransform):
    """Turns batches of `PlannedJob`s into metadata rows, and writes their pictures on the way."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Returns the metadata rows of the batches."""
        config = self.spec.config
        stylize = RunInference(StylizeHandler(self.spec))
        hints = {"accelerator": config.accelerator, "min_ram": config.min_ram}
        given = {key: value for key, value in hints.items() if value}
        return batches | (stylize.with_resource_hints(**given) if given else stylize)


class WriteMetadata(beam.PTransform):
    """Writes rows to Parquet, in as many files as there are workers or bundles.

    Args:
      spec: the run.
      name: tells the files of these rows from others of the run.
    """

    def __init__(self, spec: RunSpec, name: str):
        super().__init__()
        self.spec, self.name = spec, name

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Returns the names of the files."""
        folder, run_id = self.spec.folder, self.spec.run_id
        prefix = files.join(layout.metadata_folder(folder, run_id), f"part-{self.name}")
        return (
            rows
            | beam.Map(_count)
            | WriteToParquet(
                prefix, metadata.file_schema(), codec="zstd", file_name_suffix=".parquet"
            )
            | beam.Map(_forget_recovered, folder, run_id)
        )


def _forget_recovered(path: str, folder: str, run_id: str) -> str:
    metadata.forget_recovered(folder, run_id)
    return path


def _count(done: Row) -> Row:
    """Counts a row in Beam's own metrics, for the dashboards of clusters, and returns it."""
    Metrics.counter("nst", done["status"]).inc()
    if done["error_type"]:
        Metrics.counter("nst", f"failed_{done['error_type']}").inc()
    for name in ("seconds_total", "peak_memory_bytes", "batch_size"):
        if done[name] is not None:
            # Beam's distributions hold whole numbers only.
            unit, scale = ("_ms", 1000) if name.startswith("seconds") else ("", 1)
            Metrics.distribution("nst", name + unit).update(round(done[name] * scale))
    return done
