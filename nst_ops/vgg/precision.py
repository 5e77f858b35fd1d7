"""Which precision convolutions run in here. TensorFlow is imported only where it is asked."""

import contextlib
import ctypes.util
import functools
import importlib.util
import platform
from pathlib import Path


@functools.lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this process's device multiplies bfloat16 in hardware (GPU of compute capability 8,
    AVX512_BF16, AMX).
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
    """Whether this machine's processor has instructions for it."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str) -> str:
    """`auto` becomes bfloat16 where it is fast, else float32; other names stay."""
    if precision == "auto":
        return "bfloat16" if fast_bfloat16() else "float32"
    return precision


def device_name() -> str:
    """The device that convolutions run on, for people and metadata."""
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


@functools.cache  # the system's linker is asked, by processes of its own
def cuda_is_installed() -> bool:
    """Whether TensorFlow could use an NVIDIA GPU: a driver alone, as on any workstation, is not
    enough.
    """
    with contextlib.suppress(ModuleNotFoundError):  # none of NVIDIA's packages
        if importlib.util.find_spec("nvidia.cudnn"):
            return True
    return ctypes.util.find_library("cudnn") is not None
