"""Turns a manifest into one `Job` per row.

The file is read whole; its rows are parsed one by one.
"""

import unicodedata
from collections.abc import Iterator

from nst_ops.errors import InputError, short
from pipeline.config.job_configs import JobConfigs
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError, ManifestError
from pipeline.jobs.job import BadRow, Job
from pipeline.manifest.formats import read_rows
from pipeline.manifest.originals import Originals
from pipeline.manifest.rows import LONGEST_PATH, columns, parse_row
from pipeline.store import files


def read_manifest(path: str, config: RunConfig) -> Iterator[Job | BadRow]:
    """Parses a manifest row by row, without comparing rows: `checked_rows` does that too.

    Raises:
      ManifestError: the file cannot be read, or its header lacks a column or has an unknown one.
    """
    return _read(path, JobConfigs(config))


def _read(path: str, configs: JobConfigs) -> Iterator[Job | BadRow]:
    folder, config = files.parent(path), configs.run
    for line, row in read_rows(path, columns(config)):
        if isinstance(row, str):
            yield BadRow(line, row)
            continue
        try:
            job = parse_row(row, line, folder, config)
            own = configs.of(job)
            yield job if own.format == config.format else parse_row(row, line, folder, own)
        except (InputError, ConfigError) as error:
            content = row.get("content")
            content = content[:LONGEST_PATH] if isinstance(content, str) else ""
            message = "; ".join(map(str, error.args))  # a row is one line of a log
            yield BadRow(line, message, content=content.encode(errors="replace").decode())
        except RecursionError:
            yield BadRow(line, "lists within lists, too deep to be read")


def checked_rows(
    path: str, config: RunConfig, originals: Originals | None = None
) -> Iterator[Job | BadRow]:
    """Yields the rows of `read_manifest`; one that would write where an earlier one does is bad.

    Args:
      originals: is shown what the usable rows read and write.

    Raises:
      ManifestError: as `read_manifest`, or there is no row.
    """
    outputs: dict[str, int] = {}  # which line writes a file
    folders: dict[str, int] = {}  # which line needs a folder first
    configs = JobConfigs(config)
    row = None
    for row in _read(path, configs):
        if isinstance(row, Job):
            if clash := _clash(row, outputs, folders):
                yield BadRow(row.line, clash, row.content)
                continue
            if originals:
                originals.writes(row.output)
                initial = configs.of(row).engine.initial_file
                originals.reads(filter(None, [*row.files, initial]))
        yield row
    if row is None:
        raise ManifestError(f"{path}: no rows; add one with content and style")


def _clash(job: Job, outputs: dict[str, int], folders: dict[str, int]) -> str:
    """Returns why a job cannot have its output.

    If it can, returns "" and enters its line into `outputs` and `folders`.
    """
    # Some file systems do not tell A from a, or an é of one code point from one of two.
    name = unicodedata.normalize("NFC", job.output.casefold())
    remedy = "give them different `output` or `id` values"
    if name in outputs:
        return f"{short(job.output)} is written by line {outputs[name]} already; {remedy}"
    if name in folders:
        return f"{short(job.output)} is a folder to line {folders[name]}; {remedy}"
    parents = []
    parent = name.rpartition("/")[0]
    while parent and parent not in folders:  # the parents of a known folder are known
        if parent in outputs:
            return (
                f"{short(job.output)} needs a folder where line {outputs[parent]} writes a "
                f"picture; {remedy}"
            )
        parents.append(parent)
        parent = parent.rpartition("/")[0]
    outputs[name] = job.line
    folders.update(dict.fromkeys(parents, job.line))
    return ""
