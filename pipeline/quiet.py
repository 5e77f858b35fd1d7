"""Starts TensorFlow without its chatter: a dozen lines of log that mean nothing to who stylizes
photos.
"""

import functools
import logging
import os
import sys


@functools.cache
def quiet_start() -> None:
    """Imports TensorFlow, once, with the C++ side's start-up lines kept from the terminal.

    They are written to file descriptor 2 before TensorFlow has a log level. With
    TF_CPP_MIN_LOG_LEVEL=0 (`--verbose`) all of it is shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        import tensorflow  # noqa: F401

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow as tf

        tf.config.list_logical_devices()  # the rest of the lines come with the first device
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
        # Importing TensorFlow sends Python's own warnings to absl too.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
