"""Formats what processes print: one line per message, whatever names hold, or one JSON object."""

import datetime
import json
import os
import re
import sys
import warnings
from typing import Any

# Environment variables by which a process passes these choices on to those that it starts.
_LOG_FORMAT, _VERBOSE = "NST_LOG_FORMAT", "NST_VERBOSE"

# Control characters, line ends, marks that turn the direction of writing, and bytes that are no
# text. A file's name may hold them; printed, they could fake a line, colour it or hide it.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    """Returns a text as one safe line; `\\n` or `\\x1b` is written for what would not be."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def indented(text: object) -> str:
    """Returns an error of many lines, such as a trace, safe to print and indented."""
    return "\n  ".join(printable(line.rstrip("\r")) for line in str(text).split("\n"))


def json_line(event: str, values: dict[str, Any]) -> str:
    """Returns an event as a JSON object on one line; JSON escapes all that is not ASCII."""
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": moment, "event": event, **values})
    return line.replace("\x7f", "\\u007f")  # DEL is ASCII, so JSON leaves it


def log_as_json() -> None:
    """Prints JSON from now on, in this process and those that it starts."""
    os.environ[_LOG_FORMAT] = "json"


def be_verbose() -> None:
    """Shows TensorFlow's and Beam's own logs, in this process and those that it starts."""
    os.environ[_VERBOSE] = "1"


def is_verbose() -> bool:
    """Says whether `be_verbose` was called, here or in the process that started this one."""
    return os.environ.get(_VERBOSE) == "1"


def tell_warnings() -> None:
    """Prints Python's warnings in the format of all other messages, without the line of code."""

    def show(message, category, filename, lineno, file=None, line=None):
        text = str(message) if category is UserWarning else f"{category.__name__}: {message}"
        if os.environ.get(_LOG_FORMAT) == "json":
            print(json_line("warning", {"text": text}), file=sys.stderr)
        else:
            print(f"warning: {printable(text)}", file=sys.stderr)

    warnings.showwarning = show
