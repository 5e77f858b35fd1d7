"""Our own files of arrays: NumPy's `.npz`, followed by a mark and a SHA-256. A file is read exactly
as it was written, or refused with an error.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from nst_ops.errors import InputError

_MARK = b"nst archive 1\n\0\0"
_DIGEST = hashlib.sha256().digest_size
_BLOCK = 2**20


def write(
    file: BinaryIO,
    kind: str,
    format: int,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes an archive, array by array, so that no second copy of the arrays is in memory.

    Args:
      file: open for writing, at its beginning.
      kind: what the file is, such as `checkpoint`.
      format: version of the layout of this kind of file.
      header: plain values, which JSON can hold.
      arrays: the arrays, by name.
    """
    facts = json.dumps({"kind": kind, "format": format, "header": header})
    hashing = _Hashing(file)
    np.savez(hashing, header=np.frombuffer(facts.encode(), np.uint8), **arrays)  # pyright: ignore
    file.write(_MARK + hashing.digest.digest())


@contextlib.contextmanager
def opened(
    file: BinaryIO, kind: str, format: int
) -> Iterator[tuple[dict[str, Any], Mapping[str, np.ndarray]]]:
    """Opens a file that `write` wrote, and yields its header and its arrays. Each array is read
    when it is asked for.

    Raises:
      InputError: it is damaged, or of another kind or format.
    """
    end = max(0, file.seek(0, 2) - len(_MARK) - _DIGEST)
    file.seek(0)
    digest = hashlib.sha256()
    for start in range(0, end, _BLOCK):
        digest.update(file.read(min(_BLOCK, end - start)))
    if file.read() != _MARK + digest.digest():
        raise InputError(f"damaged, or no {kind} of this version")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:  # pyright: ignore[reportArgumentType]
        facts = json.loads(arrays["header"].tobytes())
        if (facts["kind"], facts["format"]) != (kind, format):
            found = f"{facts['kind']} of format {facts['format']}"
            raise InputError(f"{found}; expected {kind} of format {format}")
        yield facts["header"], arrays


class _Hashing:
    """Hashes what is written through it. Since it cannot seek, NumPy writes from front to back."""

    def __init__(self, file: BinaryIO):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def read(self, *_: Any) -> bytes:
        """Exists only because NumPy takes nothing for a file that has no `read`."""
        raise OSError("only written to")

    def flush(self) -> None:
        self._file.flush()
