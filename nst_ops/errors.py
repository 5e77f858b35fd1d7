"""The errors of this package. Every message names the thing, the value and the remedy. Messages are
for people; code acts on the error's type and code.
"""

import reprlib
from typing import Literal

ErrorCode = Literal[
    "invalid",  # anything else that is wrong
    "unreadable",  # a file that is not there, or cannot be read
    "too_large",  # above a limit that the user set
    "too_small",  # below what the network needs
    "format_limit",  # more than the format of the result can hold
    "changed",  # a file that changed during the run
    "memory",  # a picture that needs more than there is
]


class InputError(ValueError):
    """Raised for a file or value from outside that cannot be used. Its text names the thing, the
    value and the remedy.

    Attributes:
      path: the file at fault; "" where there is none.
      code: the kind of fault, for code to act on; the text is for people.
    """

    def __init__(self, message: str, *, path: str = "", code: ErrorCode = "invalid"):
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.code = path, code


class NonFiniteError(ArithmeticError):
    """Raised for a picture whose loss was not finite at any step."""


def short(value: object) -> str:
    """Returns the `repr` of a value, cut to a length that fits into a message."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
