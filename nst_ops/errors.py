"""What can be wrong with what a user gave us; every message names the thing, the value and the
remedy.
"""

import reprlib


class InputError(ValueError):
    """A file or value from outside that cannot be used. `path` is the file at fault, where there is
    one.
    """

    def __init__(self, message: str, *, path: str = ""):
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


def short(value: object) -> str:
    """As `repr`, but of a length for messages, whatever hostile input holds."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
