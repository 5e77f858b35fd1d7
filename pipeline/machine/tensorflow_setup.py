"""Starts TensorFlow in a process of ours, with its share of cores and GPUs, and without chatter."""

import contextlib
import fcntl
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

from pipeline.machine.devices import cores, gpus, use_gpu, visible_gpus
from pipeline.machine.messages import is_verbose
from pipeline.machine.parallelism import on_one_gpu

# Open files, whose locks last as long as this process.
_claims: list[contextlib.ExitStack] = []


def quiet_logs() -> None:
    """Keeps Beam's logs from the terminal; to be called before Beam is imported.

    Beam logs on the root logger: warnings of cloud clients that a local run does not need, and
    tracebacks of errors that are reported anyway.
    """
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


@functools.cache
def start_tensorflow(processes: int = 1) -> None:
    """Imports TensorFlow, once, with the C++ side's start-up lines kept from the terminal.

    They are written before TensorFlow has a log level. With `--verbose` all of it is shown.

    Args:
      processes: how many share this machine, each with its part of the cores or with its GPU.
    """
    if not is_verbose():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with native_chatter_hidden():
        _start(processes)
    if not is_verbose():
        # Importing TensorFlow sends Python's own warnings to absl too.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def native_chatter_hidden() -> Iterator[None]:
    """Keeps what libraries write to file descriptor 2 from the terminal, unless with `--verbose`.

    Nothing of ours may be printed meanwhile.
    """
    if is_verbose():
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
        sys.stderr.flush()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _start(processes: int) -> None:
    if processes > 1 and gpus() > 1:
        _see_one_gpu(on_one_gpu(processes))
    import tensorflow as tf

    if processes > 1:
        threads = max(1, cores() // processes)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # by default it takes all at once
    tf.config.list_logical_devices()  # prints the last of the start-up lines


def _see_one_gpu(sharers: int) -> None:
    """Claims a place on a GPU, and makes TensorFlow, not yet imported, see only that GPU."""
    places = [f"{name}.{turn}" for turn in range(sharers) for name in visible_gpus()]
    use_gpu(claim_one(places, "nst-gpu").rpartition(".")[0])


def claim_one(names: Sequence[str], kind: str) -> str:
    """Claims the first name that no living process of this machine holds, or else the last name.

    A claim is a locked file, which the system releases when its process ends, however it does.
    """
    for name in names:
        path = os.path.join(tempfile.gettempdir(), f"{kind}-{name}.lock")
        with contextlib.suppress(OSError), contextlib.ExitStack() as unless_claimed:
            file = unless_claimed.enter_context(open(path, "a"))  # OSError: perhaps another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or held by another process
            _claims.append(unless_claimed.pop_all())
            return name
    return names[-1]
