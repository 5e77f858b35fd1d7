"""The whole graph: manifest in, pictures and metadata out."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from nst_ops import __version__
from nst_ops.errors import InputError
from pipeline import outputs, work
from pipeline.config import ConfigError, RunConfig
from pipeline.manifest import BadRow, Job, checked_rows
from pipeline.outputs import Row, error_columns, row
from pipeline.planning import PlannedJob, Planner, bucket_key, cut_batches
from pipeline.sharding import Shard
from pipeline.stylizing import Stylizer
from pipeline.supervision import Stopped, Supervisor

# Batches that a worker takes at once, to read one and write another while a third is optimised.
_TRAY = 8


@dataclass(frozen=True)
class RunSpec:
    """One run: plain values, pickled to workers."""

    manifest: str
    folder: str
    run_id: str
    settings: str  # RunConfig as JSON
    weights_sha256: str
    rows: int  # of the manifest
    shard: Shard = Shard()
    processes: int = 1  # that share one machine
    deadline: float = math.inf  # as time.time(); no picture is begun that would end after it
    retry_failed: bool = True
    version: str = __version__  # of nst

    def check_version(self) -> None:
        """Raises RuntimeError in a worker that has another version of nst than the launcher."""
        if self.version != __version__:
            raise RuntimeError(
                f"this worker has nst {__version__}, and the run was begun by nst {self.version}; "
                "install the same on both"
            )

    @property
    def config(self) -> RunConfig:
        """The settings that rows override."""
        return RunConfig.model_validate_json(self.settings)


def build(root: beam.Pipeline, spec: RunSpec) -> None:
    """The whole graph."""
    jobs = root | "ReadManifest" >> ReadManifest(spec)
    planned = jobs | "PlanJobs" >> beam.ParDo(PlanJob(spec)).with_outputs("over", main="plans")
    made = planned.plans | "PlanBatches" >> PlanBatches(spec) | "Stylize" >> StylizeBatches(spec)
    (planned.over, made) | beam.Flatten() | "CountRows" >> beam.Map(_count) | WriteMetadata(spec)


class ReadManifest(beam.PTransform):
    """Manifest rows as `Job | BadRow`, spread over workers."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        """From the pipeline's root."""
        shard = self.spec.shard
        return (
            root
            | beam.Create([self.spec.manifest])
            | beam.FlatMap(checked_rows, self.spec.config)
            | beam.Filter(lambda element: shard.has(element.line))
            | beam.Reshuffle()
        )


class PlanJob(beam.DoFn):
    """`PlannedJob`s on the main output; rows of jobs that cannot be done on `over`."""

    def __init__(self, spec: RunSpec):
        self.spec = spec

    def setup(self) -> None:
        """Once per worker."""
        spec = self.spec
        spec.check_version()
        self.planner = Planner(spec.config, spec.weights_sha256)
        self.progress = work.Progress(spec.folder, f"{spec.run_id}-planning")
        self.supervisor = Supervisor(spec.folder, spec.run_id, spec.deadline)
        # What other runs failed at, if it is not to be tried again.
        self.failed = {} if spec.retry_failed else outputs.failures(spec.folder)
        self.earlier = work.finished_rows(spec.folder, spec.run_id)

    def process(self, element: Job | BadRow) -> Iterator[Any]:
        """One job."""
        result = self._plan(element)
        if isinstance(result, PlannedJob):
            yield result
        else:
            self.progress.count(result["status"])
            yield beam.pvalue.TaggedOutput("over", result)

    def finish_bundle(self) -> None:
        """Makes counts visible."""
        self.progress.flush()

    def _plan(self, element: Job | BadRow) -> PlannedJob | Row:
        run_id = self.spec.run_id
        job = element if isinstance(element, Job) else element.as_job()
        try:
            self.supervisor.check_stop()
        except Stopped as stopped:
            # Unless it was made before this run was begun anew.
            return self.earlier.get(job.output) or row(
                run_id, job, "deferred", error_message=str(stopped)
            )
        if isinstance(element, BadRow):
            return row(
                run_id, job, "failed", error_type="InputError", error_message=element.message
            )
        try:
            planned = self.planner.plan(element)
        except (InputError, ConfigError) as error:
            return row(run_id, job, "failed", **error_columns(error))
        before = self.failed.get((job.output, planned.spec_hash))
        return row(run_id, job, "failed", **planned.facts(), **before) if before else planned


class PlanBatches(beam.PTransform):
    """`PlannedJob`s to tuples of them that share shape and settings: deterministic on every
    runner, and whatever is done already.
    """

    def __init__(self, spec: RunSpec):
        super().__init__()
        # One group is sorted in memory: ten thousand plans are a few megabytes.
        self.groups = -(-spec.rows // 10_000)

    def expand(self, planned: beam.PCollection) -> beam.PCollection:
        """To batches, spread over workers."""
        return (
            planned
            | beam.Map(lambda plan, groups: (bucket_key(plan, groups), plan), self.groups)
            | beam.GroupByKey()
            | beam.FlatMap(lambda group: cut_batches(group[1]))
            | beam.Reshuffle()
        )


class StylizeHandler(ModelHandler[tuple[PlannedJob, ...], Row, Stylizer]):
    """Gives Beam's RunInference a `Stylizer` per worker process."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def load_model(self) -> Stylizer:
        """Cheap: the network is loaded with the first batch."""
        spec = self.spec
        spec.check_version()
        return Stylizer(
            spec.folder,
            spec.run_id,
            deadline=spec.deadline,
            progress=work.Progress(spec.folder, spec.run_id),
            processes=spec.processes,
        )

    def run_inference(
        self,
        batch: Sequence[tuple[PlannedJob, ...]],
        model: Stylizer,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Row]:
        """One row per job of the batches that Beam hands over together."""
        return list(model.stylize_batches(batch))

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """Trays of a fixed size."""
        return {"min_batch_size": _TRAY, "max_batch_size": _TRAY}

    def get_num_bytes(self, batch: Any) -> int:
        """Without Beam's default, which pickles every batch to measure it."""
        return len(batch)

    def get_metrics_namespace(self) -> str:
        """Beside our own counters."""
        return "nst"


class StylizeBatches(beam.PTransform):
    """Batches of `PlannedJob`s to metadata rows; pictures are written on the way."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """To rows."""
        config = self.spec.config
        stylize = RunInference(StylizeHandler(self.spec))
        hints = {"accelerator": config.accelerator, "min_ram": config.min_ram}
        given = {key: value for key, value in hints.items() if value}
        return batches | (stylize.with_resource_hints(**given) if given else stylize)


class WriteMetadata(beam.PTransform):
    """Rows to Parquet."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """To the names of files."""
        prefix = outputs.metadata_prefix(self.spec.folder, self.spec.run_id)
        return rows | WriteToParquet(
            prefix, outputs.SCHEMA, codec="zstd", file_name_suffix=".parquet", num_shards=1
        )


def _count(done: Row) -> Row:
    """Beam's own metrics, for the dashboards of clusters."""
    Metrics.counter("nst", done["status"]).inc()
    if done["error_type"]:
        Metrics.counter("nst", f"failed_{done['error_type']}").inc()
    for name in ("seconds_total", "seconds_optimise", "peak_memory_bytes", "batch_size"):
        if done[name] is not None:
            # Distributions are of whole numbers.
            unit, scale = ("_ms", 1000) if name.startswith("seconds") else ("", 1)
            Metrics.distribution("nst", name + unit).update(round(done[name] * scale))
    steps = sum(scale["steps"] for scale in done["scales"] or ())
    if steps:
        Metrics.distribution("nst", "steps").update(steps)
    return done
