"""How many processes share one machine, where no engine decides."""

import functools
import os
import subprocess
from pathlib import Path

from nst_ops.engines.memory import cuda_is_installed, default_limit, predict_bytes
from pipeline.config.run_config import RunConfig

# A process of several threads waits for its slowest one at every convolution, so as many threads
# as there are of these in a picture, and as many processes as there is room for.
_PIXELS_PER_THREAD = 500_000
_CACHE, _CACHE_SHARE = 512 * 2**20, 16  # bytes at most, and at most this part of the memory
_ROWS_WORTH_A_PROCESS = 4  # its start takes as long as a small picture or two


def processes(config: RunConfig, rows: int) -> int:
    """For a run of so many rows: as `parallelism` says, or one a GPU, or as many as cores and
    memory allow.
    """
    if config.parallelism != "auto":
        return config.parallelism
    if gpus():
        return max(1, min(gpus(), rows))
    side = config.final_size
    threads = min(cores(), max(1, side * side // _PIXELS_PER_THREAD))
    batch = config.batch_of(side * side)
    room = int(default_limit() // predict_bytes((side, side), config, batch=batch))
    return max(1, min(cores() // threads, room, rows // _ROWS_WORTH_A_PROCESS))


def memory_limit(config: RunConfig, processes: int) -> int:
    """Bytes that each of this machine's processes may take: a GPU's memory belongs to those that
    share it, a machine's to all.
    """
    return config.memory_limit or default_limit() // on_one_gpu(processes)


def cache_budget(config: RunConfig, processes: int) -> int:
    """Bytes of that for each of a process's two caches: paintings' pixels and their targets."""
    return min(_CACHE, memory_limit(config, processes) // _CACHE_SHARE)


def room_for_pictures(config: RunConfig, processes: int) -> int:
    """Bytes of that for what is being made, beside the caches. What they hold at the time does not
    count: how a picture is made must not depend on what came before it.
    """
    return memory_limit(config, processes) - 2 * cache_budget(config, processes)


def on_one_gpu(processes: int) -> int:
    """How many of the processes share a GPU; without one, all share the machine."""
    return -(-processes // max(1, gpus()))


def cores() -> int:
    """That this process may use: by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no quota ("max")
        return count or 1


@functools.cache
def gpus() -> int:
    """NVIDIA GPUs that this process may use, counted without starting TensorFlow."""
    if not cuda_is_installed():
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0
