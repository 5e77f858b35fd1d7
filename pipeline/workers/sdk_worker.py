"""Runs Beam's own worker process for a run on one machine, but quietly.

The process ends when its launcher does. Beam starts it as
`python -P -m pipeline.workers.sdk_worker`.
"""

import logging
import os
import sys
import threading

from pipeline.machine.messages import is_verbose, tell_warnings
from pipeline.machine.signals import ignore_signals


def main() -> None:
    """Works for the launcher that Beam's environment variables name."""
    ignore_signals()
    tell_warnings()
    if not is_verbose():
        # The launcher reports what fails here; all else that would be logged is that the
        # launcher itself has died.
        logging.disable(logging.CRITICAL)
        threading.excepthook = lambda arguments: None
    import grpc
    from apache_beam.runners.worker import sdk_worker_main

    code = 0
    try:
        sdk_worker_main.main(sys.argv)
    except grpc.RpcError:
        code = 1
    # Does not wait for threads: the next run makes again what they are making.
    os._exit(code)


if __name__ == "__main__":
    main()
