"""Prepares a run: checks what was asked for, and brings it together, before anything begins."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.shard import Shard
from pipeline.manifest.originals import Originals
from pipeline.manifest.parts import JobParts
from pipeline.manifest.reader import checked_rows
from pipeline.runs.beam_options import (
    beam_options,
    processes_per_machine,
    runs_here,
    worker_count,
)
from pipeline.runs.spec import RunSpec
from pipeline.store import files, layout
from pipeline.store.journal import PROCESS


class PreparedRun(NamedTuple):
    """Holds what a run needs to begin."""

    spec: RunSpec
    parts: JobParts  # of its rows
    options: PipelineOptions
    arguments: list[str]  # that the options were made of


def prepare_run(
    manifest: str,
    folder: str,
    config: RunConfig,
    *,
    arguments: Sequence[str] = (),
    config_file: str | None = None,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    deadline: float = math.inf,
    retry_failed: bool = True,
    check_full: bool = False,
) -> PreparedRun:
    """Checks what can be checked before anything is started.

    Args:
      manifest: path or URL.
      folder: path or URL of the run's folder.
      arguments: Beam's options from the command line.
      config_file: the file that `config` came from, which no picture may replace either.

    Raises:
      ConfigError, ManifestError, InputError: what was asked for cannot be done.
    """
    files.connect([manifest, folder], arguments)
    _check_folder(folder)
    manifest, folder = files.absolute(manifest), files.absolute(folder)
    originals = Originals(layout.images_folder(folder))
    parts = JobParts(checked_rows(manifest, config, originals), shard)
    originals.reads([manifest])
    originals.check_against(config_file, config)
    options = beam_options(list(arguments), config, shard.share(parts.rows))
    spec = new_spec(
        manifest,
        folder,
        config,
        parts,
        config.engine.assets(),
        options,
        shard=shard,
        deadline=deadline,
        retry_failed=retry_failed,
        check_full=check_full,
    )
    return PreparedRun(spec, parts, options, list(arguments))


def new_spec(
    manifest: str,
    folder: str,
    config: RunConfig,
    parts: JobParts,
    assets: Mapping[str, str],
    options: PipelineOptions,
    *,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    deadline: float = math.inf,
    retry_failed: bool = True,
    check_full: bool = False,
) -> RunSpec:
    """Returns the spec of a run that begins now, under a new id."""
    return RunSpec(
        manifest,
        folder,
        layout.new_run_id(),
        config.model_dump_json(),
        tuple(assets.items()),
        parts.rows,
        parts.count,
        parts.sha256,
        shard,
        processes_per_machine(options, config),
        deadline,
        retry_failed,
        worker_count(options, config),
        check_full,
        "" if runs_here(options) else PROCESS,
    )


def _check_folder(folder: str) -> None:
    if not folder:
        raise InputError("--output: give a folder")
    if wild := sorted(set(folder) & set("*?[]")):
        raise InputError(
            f"Beam takes {' '.join(wild)} for wildcards, and could not write the metadata; give a "
            "--output without",
            path=folder,
        )
