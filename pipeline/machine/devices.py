"""Finds the cores, the memory and the GPUs that this process may use, without TensorFlow.

This is the only module that reads CUDA_VISIBLE_DEVICES, asks NVIDIA's driver, or looks at a
container's limits.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nst_ops.vgg.precision import cuda_is_installed

_CONTAINER = Path("/sys/fs/cgroup")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """Returns how many cores this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = (_CONTAINER / "cpu.max").read_text().split()
        return max(1, min(count or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no quota ("max")
        return count or 1


@functools.cache
def default_memory_limit() -> int:
    """Returns 70 % of the free memory in bytes: the GPU's, else the container's or the machine's.

    The answer stays what it was when this process first asked: memory that the process takes later
    is its own, and how a picture is computed should not depend on the pictures before it.
    """
    gpu = _free_gpu_bytes()
    return int(0.7 * (_free_bytes() if gpu is None else gpu))


def gpus() -> int:
    """Returns how many NVIDIA GPUs this process may use."""
    return len(visible_gpus())


@functools.cache
def visible_gpus() -> tuple[str, ...]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: by number or
    UUID. The answer stays what it was first: processes that share a machine count all of its GPUs,
    also once each has taken its own.
    """
    return _chosen_gpus()


def _chosen_gpus() -> tuple[str, ...]:
    """Returns those that the environment names now."""
    if not cuda_is_installed():
        return ()
    chosen = os.environ.get(_VISIBLE)
    if chosen is None:
        return tuple(str(number) for number in range(_gpus_of_machine()))
    return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))


def use_gpu(name: str) -> None:
    """Makes TensorFlow see only the GPU of this name; it must not have looked for GPUs before."""
    os.environ[_VISIBLE] = name


@functools.cache
def _gpus_of_machine() -> int:
    with _driver() as driver:
        return driver.nvmlDeviceGetCount() if driver else 0


def _free_gpu_bytes() -> int | None:
    """Returns the free bytes of the GPU that this process uses; None if there is none, or unknown.

    NVIDIA's driver is asked: TensorFlow tells what it has taken, not what is free.
    """
    names = _chosen_gpus()
    if not names:
        return None
    with _driver() as driver:
        if driver is None:
            return None
        try:
            by_number = names[0].isdigit()
            handle = (
                driver.nvmlDeviceGetHandleByIndex(int(names[0]))
                if by_number
                else driver.nvmlDeviceGetHandleByUUID(names[0])
            )
            return int(driver.nvmlDeviceGetMemoryInfo(handle).free)
        except driver.NVMLError:  # no such GPU, or a MIG slice, which has no figures of its own
            return None


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """Gives NVIDIA's management library; None if it, its Python package or a driver is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # ModuleNotFoundError, or NVMLError of many kinds
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _free_bytes() -> int:
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    try:  # a container's own limit
        limit = (_CONTAINER / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_CONTAINER / "memory.current").read_text())
            # The page cache counts as used, though the kernel frees it on demand.
            facts = dict(map(str.split, (_CONTAINER / "memory.stat").read_text().splitlines()))
            cached = int(facts["inactive_file"]) + int(facts["active_file"])
            free = min(free, int(limit) - used + cached)
    except (OSError, ValueError, KeyError):
        pass
    return free
