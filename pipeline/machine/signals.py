"""SIGINT, SIGTERM and SIGHUP: the first lets a run end in order, the second ends it at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last of a closed terminal


def ignore_signals() -> None:
    """In processes of a run that are not its launcher: the signals reach all, and it says what
    follows.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """Calls `stop` with the name of the first signal; a second does what it did before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, frame: object) -> None:
        restore()
        stop(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()
