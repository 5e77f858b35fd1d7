"""How processes share one machine: how many there are where no engine of Beam's decides, and how
much memory each has.
"""

import math

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.machine.devices import cores, default_memory_limit, gpus

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
    side = config.engine.long_side
    threads = min(cores(), max(1, side * side // _PIXELS_PER_THREAD))
    room = default_memory_limit() // _bytes_of_batch(config, side)
    return max(1, min(cores() // threads, room, rows // _ROWS_WORTH_A_PROCESS))


def _bytes_of_batch(config: RunConfig, side: int) -> int:
    """Of square pictures of this side, as fast as they can be made."""
    size = side, side
    try:
        return config.engine.plan(size, batch=config.batch_of(size), limit=math.inf).bytes
    except InputError:  # pictures of this size cannot be made: their rows will fail
        return 1


def memory_limit(config: RunConfig, processes: int) -> int:
    """Bytes that each of this machine's processes may take: a GPU's memory belongs to those that
    share it, a machine's to all.
    """
    return config.memory_limit or default_memory_limit() // on_one_gpu(processes)


def cache_budget(config: RunConfig, processes: int) -> int:
    """Bytes of that for each of a process's two caches: paintings' pixels, and what the engine
    keeps.
    """
    return min(_CACHE, memory_limit(config, processes) // _CACHE_SHARE)


def room_for_pictures(config: RunConfig, processes: int) -> int:
    """Bytes of that for what is being made, beside the caches. What they hold at the time does not
    count: how a picture is made must not depend on what came before it.
    """
    return memory_limit(config, processes) - 2 * cache_budget(config, processes)


def on_one_gpu(processes: int) -> int:
    """How many of the processes share a GPU; without one, all share the machine."""
    return -(-processes // max(1, gpus()))
