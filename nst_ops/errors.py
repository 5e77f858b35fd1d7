"""What can be wrong with what a user gave us; every message names the thing, the value and the
remedy. Messages are for people; what code acts on is the error's type and code.
"""

import reprlib
from typing import Literal

ErrorCode = Literal[
    "invalid",  # any other
    "unreadable",  # a file that is not there, or cannot be read
    "too_large",  # for a limit that the user set
    "too_small",  # for the network
    "format_limit",  # more than the format of the result can hold
    "changed",  # while it was at work
    "memory",  # more than there is
]


class InputError(ValueError):
    """A file or value from outside that cannot be used. Its text names the thing, the value and the
    remedy.

    Attributes:
      path: the file at fault; "" where there is none.
      code: what code may act on, where the text is for people.
    """

    def __init__(self, message: str, *, path: str = "", code: ErrorCode = "invalid"):
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.code = path, code


class NonFiniteError(ArithmeticError):
    """The loss of a picture was not a number at any step."""


def short(value: object) -> str:
    """As `repr`, but of a length for messages, whatever hostile input holds."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
