"""Starting a run, watching over it, and its record at the end."""

import contextlib
import functools
import json
import math
import os
import shlex
import shutil
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
    FlinkRunnerOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from nst_ops.atomic import TEMPORARY
from nst_ops.errors import InputError
from pipeline import (
    file_index,
    files,
    locking,
    outputs,
    parallelism,
    report,
    resuming,
    work,
    worker,
)
from pipeline.attempts import run_attempts, run_jobs
from pipeline.config import ConfigError, RunConfig
from pipeline.job_parts import JobParts, remove_parts, runs_with_parts
from pipeline.run import RunSpec, build
from pipeline.sharding import Shard

_NOTIFY_SECONDS = 10.0
_FLINK_SECONDS = 10.0
# Of a stylized picture, which is full of strokes; a rough guess, not measured.
_BYTES_PER_PIXEL = {"png": 2.0, "tiff": 3.0, "jpeg": 0.6, "webp": 0.5}


def new_spec(
    manifest: str,
    folder: str,
    config: RunConfig,
    parts: JobParts,
    weights_sha256: str,
    options: PipelineOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    deadline: float = math.inf,
    retry_failed: bool = True,
    check_full: bool = False,
) -> RunSpec:
    """A run that begins now."""
    return RunSpec(
        manifest,
        folder,
        outputs.new_run_id(),
        config.model_dump_json(),
        weights_sha256,
        parts.rows,
        parts.count,
        parts.sha256,
        shard,
        _processes(options, config),
        deadline,
        retry_failed,
        _workers(options, config),
        check_full,
        "" if _runs_here(options) else work.PROCESS,
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
    if standard.runner == "FlinkRunner" and "--parallelism" not in _names(arguments):
        _fill_flink(options, rows)
    direct = options.view_as(DirectOptions)
    if _runs_here(options):
        _reach_this_machine()
        given = _names(arguments)
        if "--direct_running_mode" not in given:
            if "--direct_num_workers" not in given:
                direct.direct_num_workers = parallelism.processes(config, rows)
            if direct.direct_num_workers != 1:
                direct.direct_running_mode = "multi_processing"
    return options


def _fill_flink(options: PipelineOptions, rows: int) -> None:
    """Takes all task slots of the cluster: by default Flink takes one."""
    flink = options.view_as(FlinkRunnerOptions)
    master = flink.flink_master
    address = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{address}/overview", timeout=_FLINK_SECONDS) as answer:
            slots = json.load(answer)["slots-total"]
    except (OSError, ValueError, KeyError):  # `[auto]`, `[local]`, or Beam will say what is wrong
        return
    flink.parallelism = max(1, min(slots, rows))


def _runs_here(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner == "FnApiRunner"


def _names(arguments: list[str]) -> set[str]:
    return {argument.partition("=")[0] for argument in arguments}


def _reach_this_machine() -> None:
    """Keeps what processes of this machine tell each other from going through a web proxy."""
    names = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
    known = next((os.environ[name] for name in names if os.environ.get(name)), "")
    hosts = [*filter(None, known.split(",")), "localhost", "127.0.0.1", "::1"]
    os.environ["no_grpc_proxy"] = ",".join(dict.fromkeys(hosts))  # once, however often asked


def _processes(options: PipelineOptions, config: RunConfig) -> int:
    """That share a machine: this one, or one of a cluster."""
    direct = options.view_as(DirectOptions)
    if not _runs_here(options):
        return config.slots
    if direct.direct_running_mode != "multi_processing":
        return 1  # whose threads take turns
    return direct.direct_num_workers or parallelism.cores()  # 0 is Beam's word for them


def _workers(options: PipelineOptions, config: RunConfig) -> int:
    """Processes of all machines, as far as the options tell."""
    if _runs_here(options):
        return _processes(options, config)
    given = options.get_all_options()
    named = (given.get(name) for name in ("parallelism", "direct_num_workers", "num_workers"))
    return max(1, *(number or 1 for number in named))


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline for the runner that the options name."""
    return beam.Pipeline(_runner(options), options)


def _runner(options: PipelineOptions) -> str | FnApiRunner:
    """By name; but where Beam would start its worker processes here, it is to start ours."""
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if not _runs_here(options) or direct.direct_running_mode != "multi_processing":
        return standard.runner
    direct.direct_running_mode = "in_memory"  # the option goes before the environment
    # `exec`: no shell is left, to die of Ctrl-C.
    # -P: code comes from where nst is installed, not from the current folder.
    command = f"exec {shlex.quote(sys.executable)} -P -m {worker.__name__}"
    environment = SubprocessSDKEnvironment.from_command_string(command)  # pyright: ignore[reportFunctionMemberAccess]
    # Of its own accord this runner tells its processes no options, such as a store's endpoint.
    given = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    told = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=given))
    return FnApiRunner(environment, provision_info=told)


def execute(
    spec: RunSpec,
    parts: JobParts,
    options: PipelineOptions,
    show: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
    *,
    arguments: list[str] | None = None,
) -> dict[str, Any]:
    """Runs the pipeline and writes the run's record.

    Args:
      parts: the rows.
      options: from `beam_options`.
      show: is given what `work.Tally` reads every half second while it runs.
      warn: is told what went wrong without harm to the run.
      arguments: what the options were made of. With them, a run on this machine has a process of
        its own, and a run on a cluster has a job, which is begun anew when it dies.

    Returns:
      The summary, as in summary.json.

    Raises:
      ConfigError: Beam does not take the options or hints; nothing was started.
      LockedError: another run is at work on the folder; nothing was started.
      RuntimeError: the run failed; it has a summary that says so.
    """
    started = time.time()
    if options.get_all_options().get("template_location"):
        raise ConfigError(
            "--template_location only stores the pipeline, and nst run would take it for done; "
            "use deploy/dataflow/main.py"
        )
    try:
        # Here too, if an attempt will build its own: what is wrong is said before anything begins.
        pipeline = make_pipeline(options)
        build(pipeline, spec)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"Beam's options or resource hints: {error}") from error
    with locking.lock(spec.folder, spec.run_id, spec.shard):
        _bury_the_dead(spec)
        begun = _begin_record(spec, parts)
        _warn_of_little_space(spec, warn)
        tally = work.Tally(spec.folder, spec.run_id)
        try:
            with _watched(spec, tally, show, warn):
                if arguments is None:
                    pipeline.run().wait_until_finish()
                elif _runs_here(options):
                    run_attempts(spec, _with_processes(arguments, spec.processes), warn)
                else:
                    job = functools.partial(_run_job, spec, arguments)
                    run_jobs(spec.folder, spec.run_id, job, warn)
            summary = begun | _outcome(spec, started)
        except Exception as error:
            reason = _in_short(error)
            summary = begun | {"stopped": f"failed: {type(error).__name__}: {reason}"}
            # The rows become metadata when the next run finds them.
            done = tally.read()
            summary |= {status: done[status] for status in outputs.STATUSES} | {"errors": {}}
            outputs.write_record(spec.folder, spec.run_id, "summary.json", summary)
            remove_parts(spec.folder, spec.run_id)
            _notify(spec.config.notify_url, summary, warn)
            raise RuntimeError(reason) from error
        _end_record(spec, summary, warn)
    _notify(spec.config.notify_url, summary, warn)
    return summary


def _run_job(spec: RunSpec, arguments: list[str]) -> None:
    """Runs the pipeline once, on a cluster."""
    # Options of its own: runners change them.
    pipeline = make_pipeline(beam_options(arguments, spec.config, spec.rows))
    build(pipeline, spec)
    try:
        pipeline.run().wait_until_finish()
    except RuntimeError as error:
        raise RuntimeError(_in_short(error)) from error


def _in_short(error: Exception) -> str:
    """Without the traces that engines of Java add: a message's beginning, and the first cause."""
    beginning, *others = str(error).splitlines() or [""]
    causes = [line for line in others if line.startswith("Caused by: ")]
    return "; ".join([beginning, *causes[-1:]]) if causes else str(error)


def _with_processes(arguments: list[str], processes: int) -> list[str]:
    """With as many as were found to fit when the run began."""
    if _names(arguments) & {"--direct_num_workers", "--direct_running_mode"}:
        return arguments
    return [*arguments, f"--direct_num_workers={processes}"]


def _begin_record(spec: RunSpec, parts: JobParts) -> dict[str, Any]:
    """Writes what is known by now: the run may not live to say more."""
    begun = asdict(spec) | {"shard": str(spec.shard), "versions": outputs.versions()}
    del begun["settings"], begun["deadline"]  # the one has its own file, the other may be infinite
    path = files.join(outputs.record_folder(spec.folder, spec.run_id), "config.yaml")
    try:
        files.write(path, _settings_file(spec))
        outputs.write_record(spec.folder, spec.run_id, "run.json", begun)
        # Found out now rather than when the first picture is done.
        trial = files.join(outputs.images_folder(spec.folder), f"{spec.run_id}.trial")
        files.write(trial, b"may be deleted\n")
        files.delete(trial)
        parts.publish(spec.folder, spec.run_id)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise ConfigError(f"{what}; give another --output") from error
    return begun


def _warn_of_little_space(spec: RunSpec, warn: Callable[[str], None]) -> None:
    """A disk that will be full should be known of before the night."""
    if files.is_url(spec.folder):
        return
    config, images = spec.config, outputs.images_folder(spec.folder)
    each = config.final_size**2 * _BYTES_PER_PIXEL[config.format]
    left = spec.shard.share(spec.rows)
    free = shutil.disk_usage(images if os.path.isdir(images) else spec.folder).free
    if left * each > free:  # else nobody need count what is there, perhaps a million pictures
        left = max(0, left - sum(len(names) for _, _, names in os.walk(images)))
    expected = left * each
    if expected > free:
        warn(
            f"{left} pictures of up to {config.final_size} px may take {expected / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB are free at {spec.folder}; free some, or lower size"
        )


def _outcome(spec: RunSpec, started: float) -> dict[str, Any]:
    """How the run ended."""
    outputs.remove_leftovers(spec.folder, spec.run_id)
    table = outputs.read_metadata(spec.folder, spec.run_id, ["status", "error_type", "output"])
    counts = outputs.counts(table)
    if missing := outputs.count_missing(spec.folder, table):
        raise RuntimeError(
            f"{missing} pictures that were there are gone from {outputs.images_folder(spec.folder)}"
            "; was it deleted or replaced? run the same command again to make them anew"
        )
    stopped = work.stop_requested(spec.folder, spec.run_id) or _most_fail(spec, counts)
    if counts["deferred"] and not stopped:
        stopped = "the deadline has come"
    return {"seconds": round(time.time() - started, 3), "stopped": stopped, **counts}


def _end_record(spec: RunSpec, summary: dict[str, Any], warn: Callable[[str], None]) -> None:
    outputs.close_record(spec.folder, spec.run_id, summary)
    try:
        report.write_report(spec.folder, spec.run_id)
    except Exception as error:  # the pictures are there, and `nst report` can try again
        warn(f"no report: {type(error).__name__}: {error}")
    file_index.gather(spec.folder, spec.shard, spec.run_id)
    remove_parts(spec.folder, spec.run_id)
    work.clear(spec.folder, spec.run_id)
    strays = resuming.all_kept(spec.folder)  # such as those of rows that no manifest has any more
    if strays and locking.running(spec.folder) <= {spec.run_id} and _all_is_done(spec.folder):
        for path in strays:
            files.delete(path)


def _all_is_done(folder: str) -> bool:
    """Whether the last run of every manifest, and of every shard of it, left no row over."""
    last = {(s["manifest"], s["shard"]): s for s in outputs.summaries(folder)}
    return all(s["seconds"] is not None and not s["deferred"] for s in last.values())


def _bury_the_dead(spec: RunSpec) -> None:
    """Runs that were killed get the record that they did not live to write."""
    folder = spec.folder
    # Looked for before asking who lives: a run takes its lock before it leaves anything.
    records = files.listing(folder, "runs/*/run.json")
    left = outputs.runs_with_leftovers(folder) | runs_with_parts(folder)
    # A store has no half files.
    half = [] if files.is_url(folder) else files.listing(folder, f"**/{TEMPORARY}")
    file_index.gather_dead(folder, spec.shard, lambda: locking.running(folder))
    work.recover(folder, lambda: locking.running(folder))
    alive = locking.running(folder)
    if alive <= {spec.run_id}:
        for name in half:
            files.delete(files.join(folder, name))
    dead = {name.split("/")[1] for name in records} - alive
    for run_id in sorted(dead):
        path = files.join(outputs.record_folder(folder, run_id), "summary.json")
        if not files.exists(path):
            # To what a cluster may still do of it.
            work.request_stop(folder, run_id, "its launcher died")
            left.add(run_id)
            try:
                begun = outputs.read_record(folder, run_id, "run.json")
                table = outputs.read_metadata(folder, run_id, ["status", "error_type"])
            except InputError as error:
                outputs.set_aside(error)
                continue
            if begun.get("launcher"):
                left.discard(run_id)  # a job of a cluster may need it to end in order
            summary = begun | {"stopped": "it was killed"} | outputs.counts(table)
            outputs.write_record(folder, run_id, "summary.json", summary)
    for run_id in left & dead:
        outputs.remove_leftovers(folder, run_id)
        remove_parts(folder, run_id)


@contextlib.contextmanager
def _watched(
    spec: RunSpec,
    tally: work.Tally,
    show: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        progress = tally.read()
        reason = _most_fail(spec, progress)
        if reason and not work.stop_requested(spec.folder, spec.run_id):
            work.request_stop(spec.folder, spec.run_id, reason)
        show(progress)

    def watch() -> None:
        while not done.wait(0.5):
            try:
                look()
            except Exception as error:  # a full disk, a closed terminal: the run goes on
                warn(f"progress is not shown any more: {type(error).__name__}: {error}")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(Exception):
            look()


def _most_fail(spec: RunSpec, counts: dict[str, Any]) -> str:
    """Why the run should stop, if it should: a wrong mount should not burn a night."""
    rows = spec.shard.share(spec.rows)
    ratio = spec.config.max_failure_ratio
    if counts["failed"] <= ratio * rows:
        return ""
    return f"{counts['failed']} of {rows} rows failed, more than max_failure_ratio = {ratio:g}"


def _settings_file(spec: RunSpec) -> bytes:
    """The settings as they were, headed by the command that runs them again from this folder."""
    settings = json.loads(spec.settings)
    words = ["nst", "run", "--config", "config.yaml", "--manifest", spec.manifest]
    words += ["--output", spec.folder]
    words += ["--shard", str(spec.shard)] if spec.shard.count > 1 else []
    comments = [shlex.join(words)]
    if settings.pop("notify_url"):
        comments.append("notify_url was set, and is not recorded, as it may hold a secret")
    head = "".join(f"# {comment}\n" for comment in comments)
    return f"{head}{yaml.safe_dump(settings)}".encode()


def _notify(url: str | None, summary: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Posts the summary; who does not listen, or listens slowly, does not hold up the end."""
    if url is None:
        return
    failed = ["no answer"]

    def post() -> None:
        try:
            data = json.dumps(summary).encode()
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=_NOTIFY_SECONDS).close()
            failed.clear()
        except Exception as error:  # urllib raises of all kinds, such as for a port that is none
            failed[:] = [str(error)]

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(_NOTIFY_SECONDS)  # of all of it; a socket's limit is for each of its answers
    if failed:
        warn(f"notify_url: the summary could not be posted: {failed[0]}")
