"""A worker process of a run on one machine: Beam's own, but quiet, and gone when its launcher is.

Run by Beam as `python -P -m pipeline.workers.sdk_worker`.
"""

import logging
import os
import sys
import threading

from pipeline.machine.messages import is_verbose, tell_warnings
from pipeline.machine.signals import ignore_signals


def main() -> None:
    """Works for the launcher that the environment names."""
    ignore_signals()
    tell_warnings()
    if not is_verbose():
        # What fails in here is the launcher's to tell; what is left is Beam's surprise that the
        # launcher has died.
        logging.disable(logging.CRITICAL)
        threading.excepthook = lambda arguments: None
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    code = 0
    try:
        sdk_worker_main.main(sys.argv)
    except grpc.RpcError:
        code = 1
    # Not waiting for threads: what they are at would be made again by the next run.
    os._exit(code)


if __name__ == "__main__":
    main()
