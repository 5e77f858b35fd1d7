"""Decides how processes share one machine: how many there are, and how much memory each may take.

On a cluster, its engine decides how many there are.
"""

import math

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.machine.devices import cores, default_memory_limit, gpus

# At every convolution a process waits for its slowest thread. So a process gets only one thread
# per so many pixels of a picture, and there are as many processes as cores and memory allow.
_PIXELS_PER_THREAD = 500_000
_CACHE, _CACHE_SHARE = 512 * 2**20, 16  # bytes at most, and at most 1/16 of the memory
_ROWS_WORTH_A_PROCESS = 4  # starting one takes as long as a small picture or two


def processes(config: RunConfig, rows: int) -> int:
    """Returns how many processes a run of so many rows gets on this machine.

    That is what `parallelism` says; if it is `auto`, one per GPU, or without a GPU as many as cores
    and memory allow.
    """
    if config.parallelism != "auto":
        return config.parallelism
    if gpus():
        return max(1, min(gpus(), rows))
    side = config.engine.long_side
    threads = min(cores(), max(1, side * side // _PIXELS_PER_THREAD))
    room = default_memory_limit() // _bytes_of_batch(config, side)
    return max(1, min(cores() // threads, room, rows // _ROWS_WORTH_A_PROCESS))


def _bytes_of_batch(config: RunConfig, side: int) -> int:
    """Returns the bytes that a batch of square pictures takes if memory is not limited."""
    size = side, side
    try:
        return config.engine.plan(size, batch=config.batch_of(size), limit=math.inf).bytes
    except InputError:  # pictures of this size cannot be made: their rows will fail
        return 1


def memory_limit(config: RunConfig, processes: int) -> int:
    """Returns how many bytes each of this machine's processes may take.

    A GPU's memory is shared by the processes on it, the machine's by all processes.
    """
    return config.memory_limit or default_memory_limit() // on_one_gpu(processes)


def cache_budget(config: RunConfig, processes: int) -> int:
    """Returns how many of a process's bytes each of its two caches may take.

    One cache holds paintings' pixels, the other what the engine keeps.
    """
    return min(_CACHE, memory_limit(config, processes) // _CACHE_SHARE)


def room_for_pictures(config: RunConfig, processes: int) -> int:
    """Returns how many of a process's bytes are left for pictures, beside the caches.

    Caches count as full: how a picture is made must not depend on what was made before it.
    """
    return memory_limit(config, processes) - 2 * cache_budget(config, processes)


def on_one_gpu(processes: int) -> int:
    """Returns how many of the processes share one GPU; without a GPU, all share the machine."""
    return -(-processes // max(1, gpus()))
