"""Starting a run, watching over it, and its record at the end."""

import contextlib
import json
import math
import secrets
import shlex
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import apache_beam as beam
import yaml
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline import files, locking, outputs, parallelism, report, work, worker
from pipeline.config import ConfigError, RunConfig
from pipeline.run import RunSpec, build
from pipeline.sharding import Shard

_ENOUGH_TO_JUDGE = 20  # rows, before a ratio of failures means anything
_NOTIFY_SECONDS = 10.0


def new_spec(
    manifest: str,
    folder: str,
    config: RunConfig,
    rows: int,
    weights_sha256: str,
    options: PipelineOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    deadline: float = math.inf,
    retry_failed: bool = True,
) -> RunSpec:
    """A run that begins now."""
    return RunSpec(
        manifest,
        folder,
        f"{outputs.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        config.model_dump_json(),
        weights_sha256,
        rows,
        shard,
        options.view_as(DirectOptions).direct_num_workers or parallelism.cores(),
        deadline,
        retry_failed,
    )


def beam_options(arguments: list[str], config: RunConfig, rows: int) -> PipelineOptions:
    """Beam's options from the command line, with our defaults where they say nothing.

    Args:
      rows: of the manifest, which `parallelism` depends on.

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
    direct = options.view_as(DirectOptions)
    if standard.runner == "FnApiRunner" and "--direct_num_workers" not in " ".join(arguments):
        direct.direct_num_workers = parallelism.processes(config, rows)
        if direct.direct_num_workers > 1:
            direct.direct_running_mode = "multi_processing"
    return options


def _runner(options: PipelineOptions) -> str | FnApiRunner:
    """By name; but where Beam would start its worker processes here, it is to start ours."""
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if standard.runner != "FnApiRunner" or direct.direct_running_mode != "multi_processing":
        return standard.runner
    direct.direct_running_mode = "in_memory"  # the option goes before the environment
    # `exec`: no shell is left, to die of Ctrl-C.
    command = f"exec {shlex.quote(sys.executable)} -m {worker.__name__}"
    environment = SubprocessSDKEnvironment.from_command_string(command)  # pyright: ignore[reportFunctionMemberAccess]
    # Of its own accord this runner tells its processes no options, such as a store's endpoint.
    given = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    told = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=given))
    return FnApiRunner(environment, provision_info=told)


def execute(
    spec: RunSpec,
    options: PipelineOptions,
    show: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the pipeline and writes the run's record.

    Args:
      options: from `beam_options`.
      show: is given `work.read_progress` every half second while it runs.
      warn: is told what went wrong without harm to the run.

    Returns:
      The summary, as in summary.json.

    Raises:
      ConfigError: Beam does not take the options or hints; nothing was started.
      LockedError: another run is at work on the folder; nothing was started.
    """
    started = time.time()
    if options.get_all_options().get("template_location"):
        raise ConfigError(
            "--template_location only stores the pipeline, and nst run would take it for done; "
            "use deploy/dataflow/main.py"
        )
    try:
        pipeline = beam.Pipeline(_runner(options), options)
        build(pipeline, spec)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"Beam's options or resource hints: {error}") from error
    with locking.lock(spec.folder, spec.run_id, spec.shard):
        _bury_the_dead(spec)
        record = outputs.record_folder(spec.folder, spec.run_id)
        try:
            files.write(files.join(record, "config.yaml"), _settings_file(spec))
        except OSError as error:
            raise ConfigError(
                f"{error.filename}: {error.strerror}; give another --output"
            ) from error
        with _watched(spec, show):
            pipeline.run().wait_until_finish()
        outputs.remove_leftovers(spec.folder, spec.run_id)
        summary = _summary(spec, started)
        files.write(files.join(record, "summary.json"), json.dumps(summary, indent=2).encode())
        if not summary["deferred"]:
            files.write(files.join(record, "_SUCCESS"), b"\n")
        try:
            report.write_report(spec.folder, spec.run_id)
        except Exception as error:  # the pictures are there, and `nst report` can try again
            warn(f"no report: {type(error).__name__}: {error}")
        work.clear(spec.folder, spec.run_id)
    _notify(spec.config.notify_url, summary, warn)
    return summary


def _bury_the_dead(spec: RunSpec) -> None:
    """Runs that were killed get the record that they did not live to write."""
    folder = spec.folder
    alive = locking.running(folder)
    work.recover(folder, alive)
    if alive <= {spec.run_id} and not files.is_url(folder):  # a store has no half files
        for name in files.listing(folder, f"**/{files.TEMPORARY}*"):
            files.delete(files.join(folder, name))
    for name in files.listing(folder, "runs/*/config.yaml"):
        run_id = name.split("/")[1]
        path = files.join(outputs.record_folder(folder, run_id), "summary.json")
        if run_id not in alive and not files.exists(path):
            # To what a cluster may still do of it.
            work.request_stop(folder, run_id, "its launcher died")
            outputs.remove_leftovers(folder, run_id)
            table = outputs.read_metadata(folder, run_id, ["status", "error_type"])
            summary = {"run_id": run_id, "folder": folder, "stopped": "it was killed"}
            files.write(path, json.dumps(summary | outputs.counts(table), indent=2).encode())


@contextlib.contextmanager
def _watched(spec: RunSpec, show: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            locking.heartbeat(spec.folder, spec.shard)
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
    plain = asdict(spec) | {"shard": str(spec.shard)}
    del plain["settings"], plain["deadline"]  # the one has its own file, the other may be infinite
    return {
        **plain,
        "seconds": round(time.time() - started, 3),
        "stopped": work.stop_requested(spec.folder, spec.run_id),
        **outputs.counts(table),
        "versions": outputs.versions(),
    }


def _settings_file(spec: RunSpec) -> bytes:
    settings = json.loads(spec.settings)
    if settings["notify_url"]:
        settings["notify_url"] = "(not recorded: it may hold a secret)"
    command = f"nst run --config config.yaml --manifest {spec.manifest} --output {spec.folder}"
    return f"# {command}\n{yaml.safe_dump(settings)}".encode()


def _notify(url: str | None, summary: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Posts the summary; who does not listen does not fail the run."""
    if url is None:
        return
    data = json.dumps(summary).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=_NOTIFY_SECONDS).close()
    except (OSError, ValueError) as error:
        warn(f"notify_url: the summary could not be posted: {error}")
