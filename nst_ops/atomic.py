"""Files that appear under their name whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PREFIX, _DIGITS = ".nst-", 16
TEMPORARY = _PREFIX + _DIGITS * "[0-9a-f]"  # what a file is called while it is written: a glob


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, unless by an exception.

    Args:
      path: missing folders are made.
      sync: whether the file must outlive a power cut from then on.

    Raises:
      OSError: no space, no permission; there is no half file left then.
    """
    target = Path(path)
    _make_folder(target.parent)
    temporary = target.parent / (_PREFIX + secrets.token_hex(_DIGITS // 2))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        _sync_folder(target.parent)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Without it a power cut may take back the new name, though not the file's bytes."""
    with contextlib.suppress(OSError):  # the file is in place; not all network drives can do this
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
