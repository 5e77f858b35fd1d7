"""Reads and writes files by path or URL; a file appears under its name complete or not at all.

URLs (`s3://`, `gs://`) go through Beam's FileSystems, with the options of the pipeline if there is
one, and else with the endpoint and credentials that the environment names.
"""

import contextlib
import errno
import io
import os
import posixpath
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nst_ops import atomic
from nst_ops.errors import InputError


def is_url(path: str) -> bool:
    """Says whether the path is a URL of an object store rather than a local path."""
    return "://" in path


def join(folder: str, *parts: str) -> str:
    """Joins names to a folder, with the separator of URLs or of local paths."""
    return posixpath.join(folder, *parts) if is_url(folder) else os.path.join(folder, *parts)


def absolute(path: str) -> str:
    """Returns an absolute path, as workers may have another working folder; URLs stay."""
    return path.rstrip("/") if is_url(path) else os.path.abspath(path)


def resolve(path: str, folder: str) -> str:
    """Returns the path that a manifest in `folder` means by `path`.

    URLs and absolute paths stay; others are relative to the folder.
    """
    if is_url(path) or os.path.isabs(path):
        return path
    if not is_url(folder):
        return os.path.normpath(join(folder, path))
    scheme, _, rest = join(folder, path).partition("://")
    return f"{scheme}://{posixpath.normpath(rest)}"  # to a store, `..` is part of a name


def parent(path: str) -> str:
    """Returns the folder that a path is in."""
    return posixpath.dirname(path) if is_url(path) else os.path.dirname(os.path.abspath(path))


def read(path: str, max_bytes: int | None = None, *, first: int | None = None) -> bytes:
    """Reads a file whole, or only its `first` bytes.

    Raises:
      InputError: it cannot be read, is no regular file, or is larger than `max_bytes`; of a larger
        file nothing is read.
    """
    try:
        if not is_url(path) and not stat.S_ISREG(os.stat(path).st_mode):
            # Reading a named pipe waits for a writer for ever, and /dev/zero has no end.
            raise InputError(
                "is a folder, pipe or device; give a file", path=path, code="unreadable"
            )
        with _open(path) as file:
            size = file.seek(0, os.SEEK_END)
            if max_bytes is None or size <= max_bytes:
                file.seek(0)
                return file.read() if first is None else file.read(first)
    except InputError:
        raise
    except Exception as error:  # object stores raise their clients' own kinds
        raise InputError(
            f"cannot be read ({_reason(error)}); check the path", path=path, code="unreadable"
        ) from error
    raise InputError(
        f"is larger than max_file_bytes = {max_bytes}; raise the setting or shrink the file",
        path=path,
        code="too_large",
    )


def stamp(path: str) -> str:
    """Returns a text that becomes another one when the file changes.

    It is made of the file system's size, times and inode, or is an object store's entity tag; "" if
    the file does not exist, or neither can be had.
    """
    try:
        if is_url(path):
            return str(_filesystems().checksum(path))
        found = os.stat(path)
    except Exception:  # object stores raise their clients' own kinds
        return ""
    facts = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
    return ".".join(map(str, facts)) if stat.S_ISREG(found.st_mode) else ""


def listing(folder: str, pattern: str) -> list[str]:
    """Returns the sorted names, relative to a folder, of its files that match a glob.

    Args:
      folder: if it does not exist, there are no names.
      pattern: such as `runs/*/summary.json`.

    Raises:
      InputError: the object store does not answer.
    """
    if not is_url(folder):
        paths = [path for path in Path(folder).glob(pattern) if path.is_file()]
        return sorted(path.relative_to(folder).as_posix() for path in paths)
    prefix = folder.rstrip("/") + "/"
    # Beam cannot escape wildcards in the folder's own name, so each matches any character.
    wildcard = re.sub(r"[*?\[]", "?", prefix) + pattern
    try:
        (found,) = _filesystems().match([wildcard])
    except Exception as error:
        raise InputError(f"cannot be listed ({_reason(error)})", path=folder) from error
    paths = [metadata.path for metadata in found.metadata_list]
    return sorted(path.removeprefix(prefix) for path in paths if path.startswith(prefix))


def exists(path: str) -> bool:
    """Says whether there is a file of this name.

    Raises:
      InputError: the object store does not answer.
    """
    if not is_url(path):
        return os.path.isfile(path)
    try:
        return _filesystems().exists(path)
    except Exception as error:
        raise InputError(f"cannot be looked up ({_reason(error)})", path=path) from error


def write(path: str, data: bytes) -> None:
    """Writes a file whole: a local file by renaming a synced temporary one, an object by one put.

    Args:
      path: missing folders are made.
      data: not empty for `s3://`: Beam uploads in parts, and S3 refuses an upload without any.

    Raises:
      OSError: no space, no permission or no such bucket; `path` then holds no half-written file.
    """
    try:
        if is_url(path):
            with _filesystems().create(path, compression_type="uncompressed") as file:
                file.write(data)
        else:
            with replacing(path) as file:
                file.write(data)
    except Exception as error:
        # Names the path that the user knows, not the temporary file.
        number = getattr(error, "errno", None) or errno.EIO
        raise OSError(number, f"cannot be written ({_reason(error)})", path) from error


@contextlib.contextmanager
def replacing(path: str, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Gives a new file that replaces `path` when the block ends, unless it ends by an exception.

    Args:
      path: if it is a URL, the bytes are gathered in memory and put at the end.
      sync: whether the file has to survive a power cut from then on.
    """
    if is_url(path):
        memory = io.BytesIO()
        yield memory
        write(path, memory.getvalue())
        return
    with atomic.replacing(path, sync=sync) as file:
        yield file


def delete(path: str) -> None:
    """Removes a file if it exists."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        _filesystems().delete([path])


def set_aside(error: InputError) -> None:
    """Moves a damaged file to `<path>.damaged`, with a warning, so that it stops no later run.

    Args:
      error: names the file by its `path`.
    """
    warnings.warn(f"{error}; it is kept as {error.path}.damaged", stacklevel=2)
    with contextlib.suppress(OSError, InputError):
        write(f"{error.path}.damaged", read(error.path))
        delete(error.path)


def connect(paths: Iterable[str], arguments: Sequence[str] = ()) -> None:
    """Sets Beam's options for object stores, and checks once that each S3 bucket can be reached.

    Without credentials or an answer, Beam itself would try again for ten minutes: right in the
    middle of a night, wrong for a mistyped endpoint.

    Args:
      paths: paths and URLs; local paths need no check.
      arguments: of the command line, such as Beam's `--s3_endpoint_url=...`; what they leave out
        is taken from the environment.

    Raises:
      InputError: of an S3 path there is no answer, no credentials, or no such bucket.
    """
    urls = [path for path in paths if is_url(path)]
    if not urls:
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(arguments))
    _filesystems().set_options(options)
    for url in urls:
        if url.startswith("s3://"):
            _check_bucket(url, options)


def _check_bucket(url: str, options: Any) -> None:
    from apache_beam.io.aws.clients.s3.boto3_client import get_http_error_code
    from apache_beam.io.aws.s3io import S3IO

    bucket = url.removeprefix("s3://").partition("/")[0]
    try:
        S3IO(options=options).client.client.head_bucket(Bucket=bucket)
    except Exception as error:
        if get_http_error_code(error) == 403:  # objects may be readable where their bucket is not
            return
        raise InputError(
            f"no bucket {bucket!r} to be reached ({_reason(error)}); check its name, AWS's "
            "environment variables and Beam's --s3_... options, and install 'nst[aws]'",
            path=url,
        ) from error


def _open(path: str) -> Any:
    if is_url(path):
        return _filesystems().open(path, compression_type="uncompressed")
    return open(path, "rb")


def _reason(error: Exception) -> str:
    for text in (getattr(error, "strerror", None), getattr(error, "message", None), str(error)):
        if text:
            return str(text)
    return type(error).__name__


def _filesystems() -> Any:
    # Imported on first use: Beam takes a second to import, which `nst --help` need not wait for.
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))
    return FileSystems
