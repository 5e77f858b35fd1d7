"""Handles SIGINT, SIGTERM and SIGHUP: the first signal ends a run in order, a second at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


def ignore_signals() -> None:
    """Ignores the signals in this process, which is not a run's launcher.

    They reach all processes of a run, but only the launcher decides what follows.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """Calls `stop` with the name of the first signal; a second has the effect it had before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_first_signal(number: int, frame: object) -> None:
        restore()
        stop(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, on_first_signal)
    try:
        yield
    finally:
        restore()
