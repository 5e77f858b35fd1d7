"""What the `nst` commands do. A command maps (its arguments, those it does not know, a console for
what people want to know) to an exit code.
"""

import argparse
import itertools
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nst_ops.errors import InputError
from nst_ops.images.codec import EXTENSIONS
from nst_ops.images.margins import Margin
from nst_ops.settings import LEAST_SHARE, MOST_SHARE
from pipeline.cli.display import PairDisplay, RunDisplay, count_words
from pipeline.config.loading import load_config
from pipeline.config.run_config import RunConfig
from pipeline.jobs.job import Job, StyleSource
from pipeline.jobs.row import STATUSES
from pipeline.jobs.shard import Shard
from pipeline.machine.messages import printable
from pipeline.manifest.originals import Originals
from pipeline.manifest.pairing import make_manifest, write_manifest
from pipeline.manifest.rows import style_source, with_masks
from pipeline.store import files
from pipeline.store.stop_requests import request_stop
from pipeline.workers.limits import parse_deadline

if TYPE_CHECKING:
    from pipeline.runs.preparation import PreparedRun

_NO_MASK = "-"  # among others, for a painting without one
OK, RUN_FAILED, BAD_INPUT, ROWS_FAILED, DEFERRED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def run(options: argparse.Namespace, beam_arguments: list[str], console: Console) -> int:
    """`nst run`: all rows of a manifest."""
    config = load_config(options.config, options.overrides)
    shard = Shard.parse(options.shard)
    deadline = parse_deadline(options.deadline, options.max_hours)
    from pipeline.runs.preparation import prepare_run

    prepared = prepare_run(
        options.manifest,
        options.output,
        config,
        arguments=beam_arguments,
        config_file=options.config,
        shard=shard,
        deadline=deadline,
        retry_failed=options.retry_failed,
        check_full=options.check == "full",
    )
    summary, show = _carry_out(prepared, console, as_json=options.log_format == "json")
    code = _explain(options.command, summary, show.complain)
    if summary["deferred"]:
        show.note("run the same command again to make the deferred pictures")
    record = os.path.join(options.output, "runs", prepared.spec.run_id, "report.html")
    show.note(
        f"{count_words(summary)} in {summary['seconds']:.0f} s; pictures in "
        f"{os.path.join(options.output, 'images')}, report in {record}",
        "end",
        **summary,
    )
    return code


def _carry_out(
    prepared: "PreparedRun", console: Console, *, as_json: bool = False
) -> tuple[dict[str, Any], RunDisplay]:
    """Runs what was prepared, to its end or until it is stopped; returns its summary, and the
    display to say more on.
    """
    from pipeline.machine.signals import stopping
    from pipeline.runs.launcher import execute

    spec, parts = prepared.spec, prepared.parts
    with RunDisplay(console, spec.share, as_json=as_json) as show:
        text = f"run {spec.run_id}: {parts.rows} rows"
        text += f", {parts.unreadable} of them of no use" if parts.unreadable else ""
        text += f"; shard {spec.shard} of them" if spec.shard.count > 1 else ""
        show.note(
            text,
            "begin",
            run_id=spec.run_id,
            rows=parts.rows,
            unreadable=parts.unreadable,
            shard=str(spec.shard),
        )

        def stop(signal: str) -> None:
            show.note("stopping after this step; once more to stop at once", "stopping")
            request_stop(spec.folder, spec.run_id, "signal", f"stopped by {signal}")

        with stopping(stop):
            return execute(prepared, show.show, lambda text: show.note(f"warning: {text}")), show


def sweep(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst sweep`: one pair under many settings, on one sheet."""
    from pipeline.cli.sweep import manifest_rows, row_length, variants, write_sheets
    from pipeline.runs.preparation import prepare_run
    from pipeline.store.metadata import read_metadata

    config = load_config(options.config, options.overrides)
    found = variants(options.vary, config)
    styles = _style_sources(options, config)
    folder = Path(os.path.abspath(options.output))
    manifest = str(folder / "sweep.jsonl")
    write_manifest(manifest_rows(options.content, styles, _mask(options.keep), found), manifest)
    prepared = prepare_run(manifest, str(folder), config, config_file=options.config)
    summary, show = _carry_out(prepared, console)
    code = _explain(options.command, summary, show.complain)
    table = read_metadata(
        str(folder), prepared.spec.run_id, ["manifest_line", "status", "output", "spec_hash"]
    )
    rows = {found[row["manifest_line"] - 1].name: row for row in table.to_pylist()}
    painting = styles[0].name if os.path.isfile(styles[0].name) else None
    columns = options.columns or row_length(found)
    sheets = write_sheets(folder, options.content, painting, found, rows, columns)
    show.note(f"{count_words(summary)}; {' and '.join(map(str, sheets))}")
    return code


def _explain(command: str, summary: dict, complain: Callable[..., None]) -> int:
    """Says what went wrong; returns the exit code."""
    if summary["failed"]:
        _tell_failures(summary["folder"], summary["run_id"], complain)
    if summary["stop_reason"] == "failures":
        facts = {"message": summary["stopped"], "exit_code": RUN_FAILED}
        complain(f"nst {command}: {summary['stopped']}", "error", **facts)
        return RUN_FAILED
    if summary["deferred"]:
        return DEFERRED
    return ROWS_FAILED if summary["failed"] else OK


def _tell_failures(folder: str, run_id: str, complain: Callable[..., None]) -> None:
    import pyarrow.compute

    from pipeline.store.metadata import read_metadata

    table = read_metadata(folder, run_id, ["manifest_line", "status", "error_message"])
    failed = table.filter(pyarrow.compute.field("status") == "failed").sort_by("manifest_line")
    for row in failed.slice(0, 10).to_pylist():  # of what may be a million
        line, message = row["manifest_line"], row["error_message"]
        complain(f"failed: line {line}: {message}", "failed", line=line, message=message)
    if len(failed) > 10:
        complain(f"... and {len(failed) - 10} more; see the report")


def stylize(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst stylize`: one pair, without Beam."""
    extension = Path(options.output).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(f"-o {options.output}: ends in {extension!r}; use {', '.join(EXTENSIONS)}")
    if files.is_url(options.output):
        raise InputError(
            "nst stylize writes local files; use nst run for URLs", path=options.output
        )
    config = load_config(options.config, [*options.overrides, f"format={EXTENSIONS[extension]}"])
    from pipeline.planning.planner import Planner
    from pipeline.workers.stylizer import Stylizer

    folder, name = os.path.split(os.path.abspath(options.output))
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        raise InputError("is not writable; give another place to -o", path=folder)
    styles = _style_sources(options, config)
    job = Job(1, Path(name).stem, options.content, styles, name, keep=_mask(options.keep))
    originals = Originals(folder)
    originals.writes(name)
    originals.reads(job.files)
    originals.check_against(options.config, config)
    files.connect(job.files)
    planned = Planner(config, config.engine.assets()).plan(job, identify=False)
    with PairDisplay(console) as display:
        stylizer = Stylizer(
            folder,
            "stylize",
            config,
            single=True,
            show=display.show,
            announce=lambda plan: console.print(printable(f"computed {plan}")),
        )
        (row,) = stylizer.stylize_batches([[planned]])
    if row["status"] == "failed":
        print(f"nst stylize: {printable(row['error_message'])}", file=sys.stderr)
        return RUN_FAILED
    for style, trim in zip(styles, row["style_trims"] or [], strict=False):
        if any(trim.values()):
            console.print(printable(f"{style.name}: left out a margin, {Margin(**trim)}"))
    name = printable(options.output)
    console.print(
        f"{name}: {row['width']}x{row['height']} px, {row['seconds_total']:.1f} s on "
        f"{row['device']} in {row['precision']}"
    )
    return OK


def _style_sources(options: argparse.Namespace, config: RunConfig) -> tuple[StyleSource, ...]:
    weighted = map(_weighted, options.styles)
    styles = tuple(style_source(name, weight, "", config) for name, weight in weighted)
    places, parts = options.masks or [], options.painting_masks or []
    if (places or parts or options.keep) and not config.engine.takes_masks:
        raise InputError(f"the engine {config.engine.name!r} takes no masks; leave them out")
    masks = itertools.zip_longest(places, parts)
    return with_masks(styles, [(_mask(place), _mask(part)) for place, part in masks], "")


def _mask(path: str | None) -> str:
    return "" if path in (None, _NO_MASK) else str(path)


def _weighted(style: str) -> tuple[str, float]:
    """PATH or PATH=WEIGHT; a path may hold a `=` of its own."""
    path, equals, text = style.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        return style, 1.0
    if not equals or os.path.exists(style):
        return style, 1.0
    if not LEAST_SHARE <= weight <= MOST_SHARE:
        raise InputError(
            f"{style}: the weight {text!r} must be a number above 0, from {LEAST_SHARE:g} to "
            f"{MOST_SHARE:g}"
        )
    return path, weight


def manifest(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst manifest`: rows from files."""
    rows = make_manifest(
        options.content,
        options.style,
        pair=options.pair,
        seed=options.seed,
        name=options.name,
        folder=os.path.dirname(os.path.abspath(options.output)),
        warn=lambda text: print(f"warning: {printable(text)}", file=sys.stderr),
    )
    write_manifest(rows, options.output)
    console.print(f"{printable(options.output)}: {len(rows)} rows")
    return OK


def validate(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst validate`: what a run would meet, from headers."""
    config = load_config(options.config, options.overrides)
    files.connect([options.manifest])
    from pipeline.planning.estimate import examine, measure_speed

    config.engine.assets()
    found = examine(options.manifest, config)
    for kind, problems in sorted(found.problems.items()):
        print(f"{kind}: {len(problems)}")
        for line, message in problems[: options.show]:
            print(f"  {printable(f'line {line}: {message}')}")
        if len(problems) > options.show:
            lines = ", ".join(str(line) for line, _ in problems[options.show :][:100])
            print(f"  and on lines {lines}{' ...' if len(problems) > options.show + 100 else ''}")
    for line in found.lines():
        print(line)
    if found.batches and options.speed != "none":
        speed = measure_speed(config) if options.speed == "probe" else float(options.speed)
        print(found.time(speed))
    return BAD_INPUT if found.problems else OK


def report(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst report`: the HTML page of a run that has ended."""
    from pipeline.report.page import write_report
    from pipeline.store.records import run_ids

    folder = files.absolute(options.folder)
    files.connect([folder])
    known = run_ids(folder)
    chosen = options.run or (known[-1] if known else "")
    if chosen not in known:
        raise InputError(
            f"no run {chosen!r} that has ended; there are {', '.join(known)}"
            if known
            else "no run has ended here; give the DIR that was nst run's --output",
            path=folder,
        )
    console.print(printable(write_report(folder, chosen)))
    return OK


def runs(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst runs`: one line a run, oldest first."""
    from pipeline.store.records import summaries

    files.connect([options.folder])
    if not files.is_url(options.folder) and not os.path.isdir(options.folder):
        raise InputError("there is no such folder; give nst run's --output", path=options.folder)
    for summary in summaries(files.absolute(options.folder)):
        counts = ", ".join(f"{summary[status]} {status}" for status in STATUSES if summary[status])
        seconds = summary["seconds"]
        facts = [counts or "no rows", f"{seconds:.0f} s" if seconds is not None else ""]
        shard = summary["shard"]
        facts += [f"shard {shard}" if shard != "1/1" else "", summary["stopped"]]
        print(printable(f"{summary['run_id']}  {'; '.join(fact for fact in facts if fact)}"))
    return OK


def merge(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst merge`: the last runs of all shards as one."""
    from pipeline.runs.merge import merge_shards

    files.connect([options.folder])
    summary = merge_shards(files.absolute(options.folder))
    words = f"{count_words(summary)}, from {len(summary['merged'])} shards"
    console.print(f"run {summary['run_id']}: {words}")
    return _explain(options.command, summary, RunDisplay(console, summary["rows"]).complain)


def settings(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst settings`: what can be set."""
    from pipeline.config import reference

    if options.markdown:
        print(reference.markdown())
    elif options.name is None:
        print(reference.listing(shutil.get_terminal_size((100, 24)).columns))
    else:
        print("\n\n".join(map(reference.describe, reference.find_settings(options.name))))
    return OK


def doctor(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst doctor`: what this machine has."""
    from pipeline.machine.tensorflow_setup import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from nst_ops.export.formats import NEEDED, missing_packages
    from nst_ops.network.facts import EMBEDDED as EMBEDDED_NETWORK
    from nst_ops.network.facts import network_facts
    from nst_ops.vgg.precision import device_name, fast_bfloat16
    from nst_ops.vgg.weights import EMBEDDED, load_weights
    from pipeline.store.metadata import versions

    network = network_facts(EMBEDDED_NETWORK)
    facts = {
        **versions(),
        "system": platform.platform(),
        "device": device_name(),
        "GPUs": str(len(tf.config.list_physical_devices("GPU"))),
        "precision": f"auto is {'bfloat16, fast here' if fast_bfloat16() else 'float32'}",
        "threads": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "weights": f"{EMBEDDED.name}, SHA-256 {load_weights().sha256}, verified",
        "network": f"{len(network.styles)} styles, {', '.join(network.names)}",
    }
    for format in NEEDED:
        missing = missing_packages(format)
        facts[f"to {format}"] = (
            f"needs {' and '.join(missing)}: install 'nst[export]'"
            if missing
            else "can be made and tried here"
        )
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    facts["browser"] = f"{browser}, tests of the page" if browser else "none, for tests of the page"
    for name, value in facts.items():
        print(f"{name:12} {value}")
    return OK
