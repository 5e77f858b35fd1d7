"""What a command costs: wall time, and processor time, which other work blurs less."""

import resource
import subprocess
import time
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float  # of all cores


def call(*command: object) -> Spent:
    """Runs a command to its end.

    Raises:
      RuntimeError: with what it said, if it fails.
    """
    started = Spent(time.perf_counter(), _children_cpu())
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Spent(time.perf_counter() - started.wall, _children_cpu() - started.cpu)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
