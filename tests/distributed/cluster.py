"""A cluster on one machine: Beam's job service and worker pools, all in processes of their own.

`nst run --runner=PortableRunner` talks to it as it talks to Flink's job server, and pools start
workers for it as they do beside Flink's task managers. What a cluster's runner has and Beam's own
job service lacks is here: several workers, and a job that is begun again when one of them is lost
(Flink's fixed-delay restart strategy).
"""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_job_api_pb2,
    beam_runner_api_pb2,
)
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner, RunnerResult

ROOT = Path(__file__).parent.parent.parent  # so that processes import what the test imports
_ATTEMPTS = 3
_SECONDS_TO_START = 60
# `worker_pool_main` starts its workers with a bare `python`.
_ENVIRONMENT = os.environ | {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
}


class RestartedJob(local_job_service.BeamJob):
    """A job for several workers, begun again when it fails, as when a worker is lost."""

    failures: list[Exception]  # of the attempts so far

    def _invoke_runner(self) -> RunnerResult:
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        self.failures = []
        while True:
            runner = FnApiRunner(provision_info=self._provision_info)
            # Which it takes from the options only where it is given a pipeline of Python objects.
            runner._num_workers = int(self._pipeline_options["beam:option:direct_num_workers:v1"])
            pipeline = beam_runner_api_pb2.Pipeline()
            pipeline.CopyFrom(self._pipeline_proto)
            try:
                return runner.run_via_runner_api(pipeline, PipelineOptions([]))
            except Exception as error:
                self.failures.append(error)
                if len(self.failures) == _ATTEMPTS:
                    raise


class RoundRobin(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """One address for several pools, as a load balancer gives it; skips pools that are gone."""

    def __init__(self, ports: Sequence[int]):
        channels = [grpc.insecure_channel(f"localhost:{port}") for port in ports]
        for channel in channels:
            grpc.channel_ready_future(channel).result(_SECONDS_TO_START)
        stubs = [beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel) for channel in channels]
        self._count, self._pools = len(stubs), itertools.cycle(stubs)

    def StartWorker(  # noqa: N802  # Beam's name
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Passes the request on to the next pool that answers."""
        for _ in range(self._count):
            with contextlib.suppress(grpc.RpcError):
                return next(self._pools).StartWorker(request, timeout=10)
        return beam_fn_api_pb2.StartWorkerResponse(error="no worker pool answers")


@dataclass(frozen=True)
class Cluster:
    """A cluster at work.

    Attributes:
      options: of Beam, for `nst run`.
      pools: one for each machine, with its workers in its process group.
      service: the job service.
    """

    options: list[str]
    pools: list[subprocess.Popen]
    service: local_job_service.LocalJobServicer

    @property
    def failures(self) -> list[Exception]:
        """Of the attempts at its jobs."""
        return [failure for job in self.service._jobs.values() for failure in job.failures]

    def wait(self, seconds: float) -> None:
        """For the end of its jobs.

        Raises:
          TimeoutError: they go on.
        """
        end = time.monotonic() + seconds
        while not all(job.is_terminal_state(job.state) for job in self.service._jobs.values()):
            if time.monotonic() > end:
                raise TimeoutError(f"the cluster's jobs have not ended in {seconds} s")
            time.sleep(1)


@contextlib.contextmanager
def cluster(folder: Path, machines: int = 2) -> Iterator[Cluster]:
    """Starts a cluster, and ends all of its processes, whatever happens.

    Args:
      folder: for logs.
      machines: worker pools; a job gets as many workers.
    """
    with contextlib.ExitStack() as stack:
        ports = [_free_port() for _ in range(machines)]
        module = "apache_beam.runners.worker.worker_pool_main"
        pools = [
            stack.enter_context(
                process(
                    [sys.executable, "-m", module, f"--service_port={port}"],
                    folder / f"pool-{port}.log",
                )
            )
            for port in ports
        ]
        balancer = grpc.server(ThreadPoolExecutor(machines))
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
            RoundRobin(ports), balancer
        )
        address = balancer.add_insecure_port("localhost:0")
        balancer.start()
        stack.callback(lambda: balancer.stop(None).wait())
        service = local_job_service.LocalJobServicer(str(folder), beam_job_type=RestartedJob)
        options = [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{service.start_grpc_server()}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{address}",
            f"--direct_num_workers={machines}",
        ]
        stack.callback(service.stop)
        yield Cluster(options, pools, service)


@contextlib.contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen]:
    """Runs a command as the leader of a process group, which is killed in the end."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        kill(started)


def kill(leader: subprocess.Popen) -> None:
    """As a power cut does: the process and all that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
