"""Files by path or URL: whole reads with a limit, and writes that appear under their name complete
or not at all.

URLs (`s3://`, `gs://`) go through Beam's FileSystems, with the pipeline's options where there is a
pipeline and else with the endpoint and credentials that the environment names.
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
    """Whether the path names an object store rather than a local file."""
    return "://" in path


def join(folder: str, *parts: str) -> str:
    """Joins with the separator that the folder's kind uses."""
    return posixpath.join(folder, *parts) if is_url(folder) else os.path.join(folder, *parts)


def absolute(path: str) -> str:
    """For workers, which may have another working folder."""
    return path.rstrip("/") if is_url(path) else os.path.abspath(path)


def resolve(path: str, folder: str) -> str:
    """A path from a manifest in `folder`: URLs and absolute paths stay, others are relative to the
    folder.
    """
    if is_url(path) or os.path.isabs(path):
        return path
    if not is_url(folder):
        return os.path.normpath(join(folder, path))
    scheme, _, rest = join(folder, path).partition("://")
    return f"{scheme}://{posixpath.normpath(rest)}"  # a store takes `..` for a part of the name


def parent(path: str) -> str:
    """The folder a path is in."""
    return posixpath.dirname(path) if is_url(path) else os.path.dirname(os.path.abspath(path))


def read(path: str, max_bytes: int | None = None, *, first: int | None = None) -> bytes:
    """All bytes of a file, or the `first` so many.

    Raises:
      InputError: it cannot be read, is no regular file, or is larger than `max_bytes` (nothing is
        read then).
    """
    try:
        if not is_url(path) and not stat.S_ISREG(os.stat(path).st_mode):
            # A named pipe waits for a writer for ever, /dev/zero has no end.
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
    """What the file system or store says of a file, which is another text once the file has been
    changed; "" if it is not there, or nothing can be told.
    """
    try:
        if is_url(path):
            # An object store's entity tag.
            return str(_filesystems().checksum(path))
        found = os.stat(path)
    except Exception:  # object stores raise their clients' own kinds
        return ""
    facts = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
    return ".".join(map(str, facts)) if stat.S_ISREG(found.st_mode) else ""


def listing(folder: str, pattern: str) -> list[str]:
    """Names of the files in a folder that match a glob such as `runs/*/summary.json`, sorted and
    relative to the folder; none, if there is no such folder.

    Raises:
      InputError: the object store does not answer.
    """
    if not is_url(folder):
        paths = [path for path in Path(folder).glob(pattern) if path.is_file()]
        return sorted(path.relative_to(folder).as_posix() for path in paths)
    prefix = folder.rstrip("/") + "/"
    # Beam has no quotes for what it takes for wildcards in the folder's own name.
    wildcard = re.sub(r"[*?\[]", "?", prefix) + pattern
    try:
        (found,) = _filesystems().match([wildcard])
    except Exception as error:
        raise InputError(f"cannot be listed ({_reason(error)})", path=folder) from error
    paths = [metadata.path for metadata in found.metadata_list]
    return sorted(path.removeprefix(prefix) for path in paths if path.startswith(prefix))


def exists(path: str) -> bool:
    """Whether there is a file under this name.

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
    """Puts a file in place whole: locally a synced temporary file is renamed, an object is put
    once.

    Args:
      path: missing folders are made.
      data: not empty for `s3://`, where Beam uploads in parts and S3 takes no upload without one.

    Raises:
      OSError: no space, no permission, no such bucket; there is no half file under `path` then.
    """
    try:
        if is_url(path):
            with _filesystems().create(path, compression_type="uncompressed") as file:
                file.write(data)
        else:
            with replacing(path) as file:
                file.write(data)
    except Exception as error:
        # Of the path that the user knows, not of the temporary file.
        number = getattr(error, "errno", None) or errno.EIO
        raise OSError(number, f"cannot be written ({_reason(error)})", path) from error


@contextlib.contextmanager
def replacing(path: str, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, unless by an exception.

    Args:
      path: a URL's bytes are gathered in memory and put at the end.
      sync: whether the file must outlive a power cut from then on.
    """
    if is_url(path):
        memory = io.BytesIO()
        yield memory
        write(path, memory.getvalue())
        return
    with atomic.replacing(path, sync=sync) as file:
        yield file


def delete(path: str) -> None:
    """Removes a file, if it is there."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        _filesystems().delete([path])


def set_aside(error: InputError) -> None:
    """Moves a damaged record out of the way, to be looked at, and says so: what went wrong one
    night must not stop the next.
    """
    warnings.warn(f"{error}; it is kept as {error.path}.damaged", stacklevel=2)
    with contextlib.suppress(OSError, InputError):
        write(f"{error.path}.damaged", read(error.path))
        delete(error.path)


def connect(paths: Iterable[str], arguments: Sequence[str] = ()) -> None:
    """Tells object stores' clients what Beam's options say of them, and asks once for each bucket.

    Beam tries again for ten minutes where there are no credentials or nobody answers: right in the
    middle of a night, wrong for a mistyped endpoint.

    Args:
      paths: local ones pass.
      arguments: of the command line, Beam's `--s3_endpoint_url=...` among them; what they leave
        out is taken from the environment.

    Raises:
      InputError: of an S3 path: no answer, no credentials, or no such bucket.
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
        if get_http_error_code(error) == 403:  # who may read objects need not see their bucket
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
