"""The whole graph, and running it: manifest in, pictures and metadata out."""

import contextlib
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
import yaml
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)

from pipeline import files, outputs, work
from pipeline.config import ConfigError, RunConfig
from pipeline.manifest import BadRow, Job, read_manifest
from pipeline.outputs import Row
from pipeline.planning import PlannedJob, Planner, bucket_key, cut_batches, settle
from pipeline.stylizing import Stylizer

_ENOUGH_TO_JUDGE = 20  # rows, before a ratio of failures means anything


@dataclass(frozen=True)
class RunSpec:
    """One run: plain values, pickled to workers."""

    manifest: str
    folder: str
    run_id: str
    settings: str  # RunConfig as JSON
    weights_sha256: str
    rows: int  # of the manifest
    processes: int = 1  # that share one machine's cores
    deadline: float = math.inf  # as time.time(); no picture is begun that would end after it

    @property
    def config(self) -> RunConfig:
        """The settings that rows override."""
        return RunConfig.model_validate_json(self.settings)


def build(root: beam.Pipeline, spec: RunSpec) -> None:
    """The whole graph."""
    jobs = root | "ReadManifest" >> ReadManifest(spec)
    planned = jobs | "PlanJobs" >> beam.ParDo(PlanJob(spec)).with_outputs("done", main="todo")
    made = planned.todo | "PlanBatches" >> PlanBatches(spec) | "Stylize" >> StylizeBatches(spec)
    (planned.done, made) | beam.Flatten() | "CountRows" >> beam.Map(_count) | WriteMetadata(spec)


class ReadManifest(beam.PTransform):
    """Manifest rows as `Job | BadRow`, spread over workers."""

    def __init__(self, spec: RunSpec):
        super().__init__()
        self.spec = spec

    def expand(self, root: beam.Pipeline) -> beam.PCollection:
        """From the pipeline's root."""
        return (
            root
            | beam.Create([self.spec.manifest])
            | beam.FlatMap(read_manifest, self.spec.config)
            | beam.Reshuffle()
        )


class PlanJob(beam.DoFn):
    """`PlannedJob`s on the main output; rows of jobs that are done or cannot be done on `done`."""

    def __init__(self, spec: RunSpec):
        self.spec = spec

    def setup(self) -> None:
        """Once per worker."""
        spec = self.spec
        self.planner = Planner(spec.config, spec.weights_sha256)
        self.progress = work.Progress(spec.folder, f"{spec.run_id}-planning")

    def process(self, element: Job | BadRow) -> Iterator[Any]:
        """One job."""
        spec = self.spec
        if work.stop_requested(spec.folder, spec.run_id):
            job = element if isinstance(element, Job) else _job_of(element)
            result: Any = outputs.row(spec.run_id, job, "deferred")
        elif isinstance(element, BadRow):
            result = _unplannable(spec, element)
        else:
            result = settle(self.planner, element, spec.folder, spec.run_id)
        if isinstance(result, PlannedJob):
            yield result
        else:
            self.progress.count(result["status"])
            yield beam.pvalue.TaggedOutput("done", result)

    def finish_bundle(self) -> None:
        """Makes counts visible."""
        self.progress.flush()


class PlanBatches(beam.PTransform):
    """`PlannedJob`s to tuples of them that share shape and settings: deterministic on every
    runner.
    """

    def __init__(self, spec: RunSpec):
        super().__init__()
        # One group is sorted in memory: ten thousand plans are a few megabytes.
        self.shards = -(-spec.rows // 10_000)

    def expand(self, planned: beam.PCollection) -> beam.PCollection:
        """To batches, spread over workers."""
        return (
            planned
            | beam.Map(lambda plan, shards: (bucket_key(plan, shards), plan), self.shards)
            | beam.GroupByKey()
            | beam.FlatMap(lambda group: cut_batches(group[1]))
            | beam.Reshuffle()
        )


class StylizeHandler(ModelHandler[PlannedJob, Row, Stylizer]):
    """Gives Beam's RunInference a `Stylizer` per worker process."""

    def __init__(self, spec: RunSpec):
        self.spec = spec

    def load_model(self) -> Stylizer:
        """Cheap: the network is loaded with the first batch."""
        spec = self.spec
        return Stylizer(
            spec.folder,
            spec.run_id,
            deadline=spec.deadline,
            progress=work.Progress(spec.folder, spec.run_id),
            # Processes that share a machine divide its cores.
            threads=(os.cpu_count() or 1) // spec.processes if spec.processes > 1 else None,
        )

    def run_inference(
        self, batch: Any, model: Stylizer, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Row]:
        """One row per job of the batch."""
        rows = model.stylize_batch(batch)
        work.journal(self.spec.folder, self.spec.run_id, rows)
        return rows

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
        stylize = RunInference(StylizeHandler(self.spec).with_no_batching())
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


def new_spec(
    manifest: str,
    folder: str,
    config: RunConfig,
    rows: int,
    weights_sha256: str,
    options: PipelineOptions,
    deadline: float = math.inf,
) -> RunSpec:
    """A run that begins now."""
    run_id = f"{outputs.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    processes = options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1
    settings = config.model_dump_json()
    return RunSpec(manifest, folder, run_id, settings, weights_sha256, rows, processes, deadline)


def beam_options(arguments: list[str]) -> PipelineOptions:
    """Beam's options from the command line, with our defaults where they say nothing.

    Raises:
      ConfigError: an option that Beam does not have either; it would ignore it.
    """
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False)
    for group in PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise ConfigError(
            f"unknown arguments: {' '.join(unknown)}; settings are given as --set key=value, other "
            "options must be Beam's"
        )
    options = PipelineOptions(arguments, pickle_library="cloudpickle")
    standard = options.view_as(StandardOptions)
    if standard.runner is None:
        # Beam's own default would fetch another runner, or choose by what the graph contains.
        standard.runner = "FnApiRunner"
    return options


def execute(
    spec: RunSpec, options: PipelineOptions, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Runs the pipeline and writes the run's record.

    Args:
      options: from `beam_options`.
      show: is given `work.read_progress` every half second while it runs.

    Returns:
      The summary, as in summary.json.

    Raises:
      ConfigError: Beam does not take the options or hints; nothing was started.
      LockedError: another run is at work on the folder; nothing was started.
    """
    started = time.time()
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline, spec)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"Beam's options or resource hints: {error}") from error
    with work.lock(spec.folder, spec.run_id):
        work.recover(spec.folder)
        record = files.join(spec.folder, "runs", spec.run_id)
        settings = yaml.safe_dump(json.loads(spec.settings)).encode()
        files.write(files.join(record, "config.yaml"), _header(spec) + settings)
        with _watched(spec, show):
            pipeline.run().wait_until_finish()
        summary = _summary(spec, started)
        files.write(files.join(record, "summary.json"), json.dumps(summary, indent=2).encode())
        if not summary["deferred"]:
            files.write(files.join(record, "_SUCCESS"), b"")
        work.clear(spec.folder, spec.run_id)
    return summary


@contextlib.contextmanager
def _watched(spec: RunSpec, show: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            work.heartbeat(spec.folder)
            progress = work.read_progress(spec.folder, spec.run_id)
            _stop_if_most_fail(spec, progress)
            show(progress)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        show(work.read_progress(spec.folder, spec.run_id))


def _stop_if_most_fail(spec: RunSpec, progress: dict[str, Any]) -> None:
    """A wrong mount should not burn a night."""
    done = sum(progress[status] for status in outputs.STATUSES)
    ratio = spec.config.max_failure_ratio
    if done >= _ENOUGH_TO_JUDGE and progress["failed"] > ratio * done:
        reason = (
            f"{progress['failed']} of {done} rows failed, more than max_failure_ratio = {ratio:g}"
        )
        work.request_stop(spec.folder, spec.run_id, reason)


def _summary(spec: RunSpec, started: float) -> dict[str, Any]:
    table = outputs.read_metadata(spec.folder, spec.run_id, ["status", "error_type"])
    statuses = table["status"].to_pylist()
    errors = [error for error in table["error_type"].to_pylist() if error]
    return {
        **{key: value for key, value in asdict(spec).items() if key != "settings"},
        "seconds": round(time.time() - started, 3),
        "stopped": work.stop_requested(spec.folder, spec.run_id),
        **{status: statuses.count(status) for status in outputs.STATUSES},
        "errors": {kind: errors.count(kind) for kind in sorted(set(errors))},
        "versions": outputs.versions(),
    }


def _header(spec: RunSpec) -> bytes:
    command = f"nst run --config config.yaml --manifest {spec.manifest} --output {spec.folder}"
    return f"# {command}\n".encode()


def _unplannable(spec: RunSpec, bad: BadRow) -> Row:
    return outputs.row(
        spec.run_id,
        _job_of(bad),
        "failed",
        error_type="InputError",
        error_message=bad.message,
        error_path=bad.path or None,
    )


def _job_of(bad: BadRow) -> Job:
    return Job(bad.line, "", bad.content, (), "")


def _count(row: Row) -> Row:
    Metrics.counter("nst", row["status"]).inc()
    return row
