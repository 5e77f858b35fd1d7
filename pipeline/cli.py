"""The `nst` command. Exit codes: 0 done, 1 the run failed, 2 bad input before the start, 3 some
rows failed.
"""

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nst_ops import __version__
from nst_ops.errors import InputError
from pipeline.config import ConfigError, load_config
from pipeline.manifest import ManifestError, check_manifest, make_manifest, write_manifest

if TYPE_CHECKING:
    from nst_ops.iterates import Iterate

OK, RUN_FAILED, BAD_INPUT, ROWS_FAILED = 0, 1, 2, 3
_DESCRIPTION = "Stylizes photos after paintings: one, or a collection as a nightly job."
_EPILOG = """examples:
  nst stylize photo.jpg painting.jpg -o result.png
  nst manifest --content 'photos/**/*.jpg' --style 'paintings/*.jpg' --pair random:1 -o manifest.csv
  nst validate --manifest manifest.csv
  nst run --config configs/default.yaml --manifest manifest.csv --output out
exit codes: 0 all rows done; 1 the run itself failed; 2 bad arguments, config or manifest, nothing
was started;
  3 finished, but some rows failed (the metadata says which and why)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    _quiet_logs(options.verbose)
    if rest and options.command != "run":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True)
    try:
        return _COMMANDS[options.command](options, rest, console)
    except (ConfigError, ManifestError, InputError) as error:
        print(f"nst {options.command}: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(
            f"nst {options.command}: {error.filename or ''}: {error.strerror or error}",
            file=sys.stderr,
        )
        return RUN_FAILED
    except KeyboardInterrupt:
        print(
            f"nst {options.command}: interrupted; run the same command again to go on",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "nst", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"nst {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, *, config: bool) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        noise = sub.add_mutually_exclusive_group()
        noise.add_argument(
            "--verbose", action="store_true", help="show TensorFlow's and Beam's logs too"
        )
        noise.add_argument("--quiet", action="store_true", help="print errors only")
        if config:
            sub.add_argument(
                "--config", metavar="FILE", help="YAML settings (default: built-in, 512 px)"
            )
            sub.add_argument(
                "--set",
                metavar="KEY=VALUE",
                action="append",
                default=[],
                dest="overrides",
                help="override a setting, such as size=1024 or scales.0.steps=50; may be repeated",
            )
        return sub

    sub = command("run", "stylize all rows of a manifest; other options go to Beam", config=True)
    sub.add_argument("--manifest", required=True, metavar="FILE", help=".csv, .jsonl or .parquet")
    sub.add_argument(
        "--output", required=True, metavar="DIR", help="the run's folder; run again to go on"
    )

    sub = command("stylize", "stylize one photo after one or more paintings", config=True)
    sub.add_argument("content", metavar="CONTENT", help="the photo")
    sub.add_argument(
        "styles",
        metavar="STYLE",
        nargs="+",
        help="a painting, or several to blend; PATH=WEIGHT weighs",
    )
    sub.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".png, .jpg, .webp or .tif"
    )

    sub = command("manifest", "make a manifest from files", config=False)
    sub.add_argument(
        "--content", required=True, metavar="GLOB", help="photos, quoted: 'photos/**/*.jpg'"
    )
    sub.add_argument("--style", required=True, metavar="GLOB", help="paintings, quoted")
    sub.add_argument("--pair", default="product", help="product (default), zip or random:N")
    sub.add_argument("--seed", type=int, default=0, help="of random:N")
    sub.add_argument(
        "--name",
        metavar="TEMPLATE",
        help="output names, such as {content_dir}/{content_stem}-{style_stem}",
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help=".csv or .jsonl")

    sub = command(
        "validate",
        "read a config, a manifest and the images' headers; report problems",
        config=True,
    )
    sub.add_argument("--manifest", required=True, metavar="FILE")

    command(
        "doctor", "print versions, devices, threads, memory and the weights' hash", config=False
    )
    return parser


def _run(options: argparse.Namespace, beam_arguments: list[str], console: Console) -> int:
    config = load_config(options.config, options.overrides)
    rows, bad = check_manifest(options.manifest, config)
    from pipeline.run import beam_options, execute, new_spec

    beam = beam_options(beam_arguments)

    spec = new_spec(
        os.path.abspath(options.manifest) if "://" not in options.manifest else options.manifest,
        options.output,
        config,
        rows,
        beam,
    )
    console.print(
        f"run {spec.run_id}: {rows} rows" + (f", {len(bad)} of them unreadable" if bad else "")
    )
    with _RunDisplay(console, rows) as display:
        summary = execute(spec, beam, display.show)
    counts = ", ".join(f"{summary[status]} {status}" for status in ("ok", "cached", "failed"))
    console.print(
        f"{counts} in {summary['seconds']:.0f} s; pictures in "
        f"{os.path.join(options.output, 'images')}"
    )
    if summary["failed"]:
        _print_failures(spec.folder, spec.run_id)
        return ROWS_FAILED
    return OK


def _print_failures(folder: str, run_id: str) -> None:
    from pipeline.outputs import read_metadata

    rows = read_metadata(folder, run_id, ["manifest_line", "status", "error_message"]).to_pylist()
    failed = sorted(
        (row for row in rows if row["status"] == "failed"), key=lambda row: row["manifest_line"]
    )
    for row in failed[:10]:
        message = row["error_message"]
        prefix = "" if message.startswith("line ") else f"line {row['manifest_line']}: "
        print(f"failed: {prefix}{message}", file=sys.stderr)
    if len(failed) > 10:
        print(f"... and {len(failed) - 10} more; see the metadata", file=sys.stderr)


def _stylize(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    extensions = {
        ".png": "png",
        ".jpg": "jpeg",
        ".jpeg": "jpeg",
        ".webp": "webp",
        ".tif": "tiff",
        ".tiff": "tiff",
    }
    extension = Path(options.output).suffix.lower()
    if extension not in extensions:
        raise InputError(f"-o {options.output}: ends in {extension!r}; use {', '.join(extensions)}")
    config = load_config(options.config, [*options.overrides, f"format={extensions[extension]}"])
    from nst_ops.weights import load_weights
    from pipeline.manifest import Job
    from pipeline.planning import Planner
    from pipeline.stylizing import Stylizer

    folder, name = os.path.split(os.path.abspath(options.output))
    styles = tuple(_weighted(style) for style in options.styles)
    job = Job(1, Path(name).stem, options.content, styles, name)
    planned = Planner(config, load_weights(config.weights).sha256).plan(job)
    with _PairDisplay(console) as display:
        (row,) = Stylizer(folder, "stylize", show=display.show).stylize_batch([planned])
    if row["status"] == "failed":
        print(f"nst stylize: {row['error_message']}", file=sys.stderr)
        return RUN_FAILED
    console.print(
        f"{options.output}: {row['width']}x{row['height']} px, loss {row['loss_last']:.4g}, "
        f"{row['seconds_total']:.1f} s on {row['device']} in {row['precision']}"
    )
    return OK


def _weighted(style: str) -> tuple[str, float]:
    path, equals, weight = style.rpartition("=")
    if equals and not os.path.exists(style):
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if value <= 0.0:
            raise InputError(f"{style}: the weight {weight!r} must be a number above 0")
        return path, value
    return style, 1.0


def _manifest(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    rows = make_manifest(
        options.content,
        options.style,
        pair=options.pair,
        seed=options.seed,
        name=options.name,
        folder=os.path.dirname(os.path.abspath(options.output)),
    )
    write_manifest(rows, options.output)
    console.print(f"{options.output}: {len(rows)} rows")
    return OK


def _validate(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    config = load_config(options.config, options.overrides)
    check_manifest(options.manifest, config)
    from nst_ops.weights import load_weights
    from pipeline.manifest import BadRow, read_manifest
    from pipeline.planning import Planner

    planner = Planner(config, load_weights(config.weights).sha256)
    problems, shapes, count = [], set(), 0
    for row in read_manifest(options.manifest, config):
        count += 1
        if isinstance(row, BadRow):
            problems.append(row.message)
            continue
        try:
            shapes.add(planner.plan(row).size)
        except (ConfigError, InputError) as error:
            problems.append(f"line {row.line}: {error}")
    for problem in problems:
        print(problem)
    print(f"{count} rows, {len(problems)} problems, {len(shapes)} distinct shapes")
    return BAD_INPUT if problems else OK


def _doctor(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    from pipeline.starting import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from nst_ops.precision import device_name, fast_bfloat16
    from nst_ops.weights import EMBEDDED, load_weights
    from pipeline.outputs import versions

    facts = {
        **versions(),
        "system": platform.platform(),
        "device": device_name(),
        "GPUs": str(len(tf.config.list_physical_devices("GPU"))),
        "precision": f"auto is {'bfloat16, fast here' if fast_bfloat16() else 'float32'}",
        "threads": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "weights": f"{EMBEDDED.name}, SHA-256 {load_weights().sha256}, verified",
    }
    for name, value in facts.items():
        print(f"{name:12} {value}")
    return OK


def _quiet_logs(verbose: bool) -> None:
    """Before TensorFlow or Beam is imported."""
    if verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
        logging.basicConfig(level=logging.INFO)
        return
    # Beam warns on the root logger, of clouds' clients that a local run does not need.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)


class _RunDisplay:
    """Progress of a run: a live bar on a terminal, else a line every ten seconds at most."""

    def __init__(self, console: Console, rows: int):
        self.console, self.rows = console, rows
        self.bar = _bar(console) if console.is_terminal else None
        self.task = self.bar.add_task("planning", total=rows) if self.bar else None
        self.printed = time.monotonic()

    def __enter__(self) -> "_RunDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, progress: dict[str, Any]) -> None:
        done = progress["ok"] + progress["cached"] + progress["failed"]
        now = "; ".join(progress["now"])
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, description=now or "working")
        elif time.monotonic() - self.printed >= 10.0:
            self.printed = time.monotonic()
            counts = ", ".join(
                f"{progress[status]} {status}" for status in ("ok", "cached", "failed")
            )
            self.console.print(f"{done}/{self.rows}: {counts}{'; ' + now if now else ''}")


class _PairDisplay:
    """Progress of one pair: a bar on a terminal, else a line per scale."""

    def __init__(self, console: Console):
        self.console = console
        self.bar = _bar(console) if console.is_terminal else None
        self.tasks: dict[int, Any] = {}

    def __enter__(self) -> "_PairDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, iterate: "Iterate") -> None:
        height, width = iterate.size
        loss = iterate.losses["total"][0]
        text = f"scale {iterate.scale + 1}/{iterate.scales} ({width}x{height}): loss {loss:.4g}"
        if self.bar:
            if iterate.scale not in self.tasks:
                self.tasks[iterate.scale] = self.bar.add_task(text, total=iterate.steps)
            self.bar.update(self.tasks[iterate.scale], completed=iterate.step, description=text)
        elif iterate.finished:
            self.console.print(
                f"{text}, {iterate.step} steps ({iterate.stopped[0]}), {iterate.seconds:.1f} s"
            )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str], Console], int]] = {
    "run": _run,
    "stylize": _stylize,
    "manifest": _manifest,
    "validate": _validate,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
