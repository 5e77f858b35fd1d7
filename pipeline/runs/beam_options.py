"""Parses Beam's options from the command line, and makes the pipeline that they ask for."""

import json
import os
import shlex
import sys
import urllib.request

import apache_beam as beam
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

from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError
from pipeline.machine import parallelism
from pipeline.machine.devices import cores
from pipeline.workers import sdk_worker

_FLINK_SECONDS = 10.0


def beam_options(arguments: list[str], config: RunConfig, rows: int) -> PipelineOptions:
    """Returns Beam's options from the command line, with our defaults for what they leave out.

    Args:
      rows: how many rows the run has, on which the number of processes depends.

    Raises:
      ConfigError: an option is not Beam's either; Beam would ignore it.
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
        # Beam's own default may download another runner, or choose one by what the graph contains.
        standard.runner = "FnApiRunner"
    if standard.runner == "FlinkRunner" and "--parallelism" not in _names(arguments):
        _fill_flink(options, rows)
    direct = options.view_as(DirectOptions)
    if runs_here(options):
        _reach_this_machine()
        given = _names(arguments)
        if "--direct_running_mode" not in given:
            if "--direct_num_workers" not in given:
                direct.direct_num_workers = parallelism.processes(config, rows)
            if direct.direct_num_workers != 1:
                direct.direct_running_mode = "multi_processing"
    return options


def _fill_flink(options: PipelineOptions, rows: int) -> None:
    """Asks Flink for all task slots of the cluster; by default it uses one."""
    flink = options.view_as(FlinkRunnerOptions)
    master = flink.flink_master
    address = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{address}/overview", timeout=_FLINK_SECONDS) as answer:
            slots = json.load(answer)["slots-total"]
    except (OSError, ValueError, KeyError):  # `[auto]`, `[local]`, or an error that Beam reports
        return
    flink.parallelism = max(1, min(slots, rows))


def runs_here(options: PipelineOptions) -> bool:
    """Says whether the workers are processes of this machine that we start."""
    return options.view_as(StandardOptions).runner == "FnApiRunner"


def _names(arguments: list[str]) -> set[str]:
    return {argument.partition("=")[0] for argument in arguments}


def _reach_this_machine() -> None:
    """Keeps traffic between processes of this machine from going through a web proxy."""
    names = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
    known = next((os.environ[name] for name in names if os.environ.get(name)), "")
    hosts = [*filter(None, known.split(",")), "localhost", "127.0.0.1", "::1"]
    os.environ["no_grpc_proxy"] = ",".join(dict.fromkeys(hosts))  # each once, even if called again


def processes_per_machine(options: PipelineOptions, config: RunConfig) -> int:
    """Returns how many processes share a machine: this one, or one of a cluster."""
    direct = options.view_as(DirectOptions)
    if not runs_here(options):
        return config.slots
    if direct.direct_running_mode != "multi_processing":
        return 1  # one process, whose threads take turns
    return direct.direct_num_workers or cores()  # 0 means all cores to Beam


def worker_count(options: PipelineOptions, config: RunConfig) -> int:
    """Returns the number of processes on all machines, as far as the options tell."""
    if runs_here(options):
        return processes_per_machine(options, config)
    given = options.get_all_options()
    named = (given.get(name) for name in ("parallelism", "direct_num_workers", "num_workers"))
    return max(1, *(number or 1 for number in named))


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns an empty pipeline for the runner that the options name."""
    return beam.Pipeline(_runner(options), options)


def _runner(options: PipelineOptions) -> str | FnApiRunner:
    """Returns the runner's name, or a runner that starts our workers instead of Beam's own."""
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if not runs_here(options) or direct.direct_running_mode != "multi_processing":
        return standard.runner
    direct.direct_running_mode = "in_memory"  # the option would override our environment
    # `exec` leaves no shell behind, which would die of Ctrl-C.
    # -P: code comes from where nst is installed, not from the current folder.
    command = f"exec {shlex.quote(sys.executable)} -P -m {sdk_worker.__name__}"
    environment = SubprocessSDKEnvironment.from_command_string(command)  # pyright: ignore[reportFunctionMemberAccess]
    # By itself this runner passes no options to its processes, such as a store's endpoint.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=encoded))
    return FnApiRunner(environment, provision_info=info)


def with_processes(arguments: list[str], processes: int) -> list[str]:
    """Returns Beam's arguments with the number of processes, unless they say it themselves.

    Args:
      processes: how many were found to fit when the run began.
    """
    if _names(arguments) & {"--direct_num_workers", "--direct_running_mode"}:
        return arguments
    return [*arguments, f"--direct_num_workers={processes}"]
