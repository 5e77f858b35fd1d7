"""Starts TensorFlow in a process of ours: its threads and GPU memory, and no chatter."""

import functools
import logging
import os
import sys


@functools.cache
def start_tensorflow(threads: int | None = None) -> None:
    """Imports TensorFlow, once, with the C++ side's start-up lines kept from the terminal.

    They are written to file descriptor 2 before TensorFlow has a log level. With
    TF_CPP_MIN_LOG_LEVEL=0 (`--verbose`) all of it is shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        _start(threads)
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        _start(threads)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
        # Importing TensorFlow sends Python's own warnings to absl too.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _start(threads: int | None) -> None:
    import tensorflow as tf

    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(max(1, threads))
        tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # not all of it at once
    tf.config.list_logical_devices()  # the rest of the lines come with the first device
