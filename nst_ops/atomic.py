"""Files that appear under their name whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PREFIX, _DIGITS = ".nst-", 16
TEMPORARY = _PREFIX + _DIGITS * "[0-9a-f]"  # glob that matches the names of unfinished files


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Yields a new file, which takes the place of `path` when the block ends without an exception.

    Args:
      path: where the file will be; missing folders are made.
      sync: whether the file must survive a power cut once the block has ended.

    Raises:
      OSError: there is no space or no permission; no unfinished file is left then.
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
    """Forces the folder to disk: else a power cut may undo the file's new name, though not its
    bytes.
    """
    with contextlib.suppress(OSError):  # the file is in place; not all network drives can do this
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
