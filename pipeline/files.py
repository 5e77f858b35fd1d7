"""Files by path or URL: whole reads with a limit, and writes that appear under their name complete
or not at all.
"""

import os
import posixpath
import tempfile
from pathlib import Path
from typing import Any

from nst_ops.errors import InputError


def is_url(path: str) -> bool:
    """Whether the path names an object store rather than a local file."""
    return "://" in path


def join(folder: str, *parts: str) -> str:
    """Joins with the separator that the folder's kind uses."""
    return posixpath.join(folder, *parts) if is_url(folder) else os.path.join(folder, *parts)


def absolute(path: str) -> str:
    """For workers, which may have another working folder."""
    return path if is_url(path) else os.path.abspath(path)


def resolve(path: str, folder: str) -> str:
    """A path from a manifest in `folder`: URLs and absolute paths stay, others are relative to the
    folder.
    """
    return path if is_url(path) or os.path.isabs(path) else join(folder, path)


def parent(path: str) -> str:
    """The folder a path is in."""
    return posixpath.dirname(path) if is_url(path) else os.path.dirname(os.path.abspath(path))


def read(path: str, max_bytes: int | None = None) -> bytes:
    """All bytes of a file.

    Raises:
      InputError: it cannot be read, or is larger than `max_bytes` (nothing is read then, or
        little).
    """
    limit = -1 if max_bytes is None else max_bytes + 1
    try:
        if is_url(path):
            with _filesystems().open(path, compression_type="uncompressed") as file:
                data = file.read(limit) if limit > 0 else file.read()
        else:
            with open(path, "rb") as file:
                data = file.read(limit)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot be read ({reason}); check the path", path=path) from error
    except Exception as error:  # object stores raise their clients' own kinds
        raise InputError(f"cannot be read ({type(error).__name__}: {error})", path=path) from error
    if max_bytes is not None and len(data) > max_bytes:
        raise InputError(
            f"is larger than max_file_bytes = {max_bytes}; raise the setting or shrink the file",
            path=path,
        )
    return data


def exists(path: str) -> bool:
    """Whether there is a file under this name."""
    return _filesystems().exists(path) if is_url(path) else os.path.isfile(path)


def write(path: str, data: bytes) -> None:
    """Puts a file in place whole: locally a synced temporary file is renamed, an object is put
    once.

    Raises:
      OSError: no space, no permission; there is no half file under `path` then.
    """
    if is_url(path):
        with _filesystems().create(path, compression_type="uncompressed") as file:
            file.write(data)
        return
    try:
        _write_local(path, data)
    except OSError as error:
        # Of the path that the user knows, not of the temporary file.
        raise OSError(error.errno, f"cannot be written ({error.strerror})", path) from error


def _write_local(path: str, data: bytes) -> None:
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".nst-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _filesystems() -> Any:
    # Imported on first use: Beam takes a second to import, which `nst --help` need not wait for.
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
