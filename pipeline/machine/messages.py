"""What processes print: one line a message, whatever names hold; or one JSON object."""

import datetime
import json
import os
import re
import sys
import warnings
from typing import Any

# What the environment tells other processes of a run.
_LOG_FORMAT, _VERBOSE = "NST_LOG_FORMAT", "NST_VERBOSE"

# Control characters, line ends, those that turn the direction of writing, and bytes that are no
# text: a file's name may hold them, and what is printed may not begin a line with them, colour it
# or hide it.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    """A text as one line of a terminal or log, with `\\n` or `\\x1b` for what would be none."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def indented(text: object) -> str:
    """The same of an error of many lines, such as a trace: none but the first begins a line."""
    return "\n  ".join(printable(line.rstrip("\r")) for line in str(text).split("\n"))


def json_line(event: str, values: dict[str, Any]) -> str:
    """An event as an object on one line; JSON escapes all that is not ASCII."""
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": moment, "event": event, **values})
    return line.replace("\x7f", "\\u007f")  # which is ASCII, and deletes all the same


def log_as_json() -> None:
    """From now on, in this process and those that it starts."""
    os.environ[_LOG_FORMAT] = "json"


def be_verbose() -> None:
    """Shows TensorFlow's and Beam's own logs, in this process and those that it starts."""
    os.environ[_VERBOSE] = "1"


def is_verbose() -> bool:
    """Whether `be_verbose` was called, here or in the process that started this one."""
    return os.environ.get(_VERBOSE) == "1"


def tell_warnings() -> None:
    """Prints Python's own warnings as all else that is printed, rather than with a line of code."""

    def show(message, category, filename, lineno, file=None, line=None):
        text = str(message) if category is UserWarning else f"{category.__name__}: {message}"
        if os.environ.get(_LOG_FORMAT) == "json":
            print(json_line("warning", {"text": text}), file=sys.stderr)
        else:
            print(f"warning: {printable(text)}", file=sys.stderr)

    warnings.showwarning = show
