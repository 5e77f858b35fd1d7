"""Which precision convolutions should have on this machine. TensorFlow is imported only by the
functions that ask it.
"""

import contextlib
import ctypes.util
import functools
import importlib.util
import platform
from pathlib import Path


@functools.lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Tells whether this process's device multiplies bfloat16 in hardware: a GPU of compute
    capability 8 or more, or a CPU with AVX512_BF16 or AMX.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get(
            "compute_capability", (0, 0)
        )
        return capability >= (8, 0)
    return cpu_multiplies_bfloat16()


@functools.lru_cache(maxsize=1)
def cpu_multiplies_bfloat16() -> bool:
    """Tells whether this machine's processor has instructions that multiply bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str) -> str:
    """Replaces `auto` by bfloat16 where that is fast, else by float32; keeps other names."""
    if precision == "auto":
        return "bfloat16" if fast_bfloat16() else "float32"
    return precision


def device_name() -> str:
    """Returns the name of the device that convolutions run on, for people and metadata."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(
            tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
        )
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"CPU: {model}"


@functools.cache  # `find_library` starts processes, such as the linker
def cuda_is_installed() -> bool:
    """Tells whether cuDNN is installed, without which TensorFlow cannot use an NVIDIA GPU. A driver
    alone, as on many workstations, is not enough.
    """
    with contextlib.suppress(ModuleNotFoundError):  # none of NVIDIA's Python packages is installed
        if importlib.util.find_spec("nvidia.cudnn"):
            return True
    return ctypes.util.find_library("cudnn") is not None
