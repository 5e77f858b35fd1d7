"""Starts TensorFlow in a process of ours: its share of cores and GPUs, and no chatter."""

import contextlib
import fcntl
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Sequence

from pipeline.machine.devices import cores, gpus, use_gpu, visible_gpus
from pipeline.machine.messages import is_verbose
from pipeline.machine.parallelism import on_one_gpu

# Open files, whose locks last as long as this process.
_claims: list[contextlib.ExitStack] = []


def quiet_logs() -> None:
    """Keeps from the terminal what Beam logs on the root logger, before it is imported: warnings of
    clouds' clients that a local run does not need, and the traceback of what is reported anyway.
    """
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


@functools.cache
def start_tensorflow(processes: int = 1) -> None:
    """Imports TensorFlow, once, with the C++ side's start-up lines kept from the terminal.

    They are written to file descriptor 2 before TensorFlow has a log level. With `--verbose` all of
    it is shown.

    Args:
      processes: that share this machine, each with its part of the cores, or with a GPU of its own.
    """
    if is_verbose():
        _start(processes)
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        _start(processes)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
        # Importing TensorFlow sends Python's own warnings to absl too.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _start(processes: int) -> None:
    if processes > 1 and gpus() > 1:
        _see_one_gpu(on_one_gpu(processes))
    import tensorflow as tf

    if processes > 1:
        threads = max(1, cores() // processes)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # not all of it at once
    tf.config.list_logical_devices()  # the rest of the lines come with the first device


def _see_one_gpu(sharers: int) -> None:
    """Before TensorFlow looks: the GPU of this process's turn."""
    places = [f"{name}.{turn}" for turn in range(sharers) for name in visible_gpus()]
    use_gpu(claim_one(places, "nst-gpu").rpartition(".")[0])


def claim_one(names: Sequence[str], kind: str) -> str:
    """The first of the names that no living process of this machine has; the last can be shared.

    A claim is a locked file, which the system releases when its process ends, however it does.
    """
    for name in names:
        path = os.path.join(tempfile.gettempdir(), f"{kind}-{name}.lock")
        with contextlib.suppress(OSError), contextlib.ExitStack() as unless_claimed:
            file = unless_claimed.enter_context(open(path, "a"))  # perhaps another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or taken
            _claims.append(unless_claimed.pop_all())
            return name
    return names[-1]
