"""The `nst` command; what it returns is in the epilog below."""

import argparse
import contextlib
import datetime
import logging
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nst_ops import __version__
from nst_ops.errors import InputError
from pipeline.config import ConfigError, RunConfig, load_config
from pipeline.display import PairDisplay, RunDisplay
from pipeline.files import absolute
from pipeline.manifest import ManifestError, check_manifest
from pipeline.outputs import STATUSES
from pipeline.pairing import make_manifest, write_manifest
from pipeline.work import LockedError, request_stop

if TYPE_CHECKING:
    from pipeline.run import RunSpec

OK, RUN_FAILED, BAD_INPUT, ROWS_FAILED, DEFERRED, INTERRUPTED = 0, 1, 2, 3, 4, 130
_DESCRIPTION = "Stylizes photos after paintings: one, or a collection as a nightly job."
_EPILOG = """examples:
  nst stylize photo.jpg painting.jpg -o result.png
  nst manifest --content 'photos/**/*.jpg' --style 'paintings/*.jpg' --pair random:1 -o manifest.csv
  nst validate --manifest manifest.csv
  nst run --config configs/default.yaml --manifest manifest.csv --output out
exit codes: 0 all rows done; 1 the run itself failed; 2 bad arguments, config or manifest, nothing
  was started; 3 finished, but some rows failed (the metadata says which and why); 4 stopped, with
  rows deferred to the next run"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    _quiet_logs(options.verbose)
    if rest and options.command != "run":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True)

    def complain(message: object) -> None:
        print(f"nst {options.command}: {message}", file=sys.stderr)

    try:
        return _COMMANDS[options.command](options, rest, console)
    except (ConfigError, ManifestError, InputError, LockedError) as error:
        complain(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted; run the same command again to go on")
        return INTERRUPTED
    except Exception as error:
        if options.verbose:
            raise
        if "KeyboardInterrupt" in str(error):  # as Beam passes it on
            complain("interrupted; run the same command again to go on")
            return INTERRUPTED
        if isinstance(error, OSError):
            complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
        else:
            complain(f"failed: {type(error).__name__}: {error}\n--verbose shows where")
        return RUN_FAILED


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

    when = sub.add_mutually_exclusive_group()
    when.add_argument("--deadline", metavar="HH:MM", help="stop at this local time, in order")
    when.add_argument("--max_hours", metavar="N", type=float, help="stop after so many hours")

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
    deadline = _deadline(options.deadline, options.max_hours)
    manifest, folder = (absolute(path) for path in (options.manifest, options.output))
    spec = new_spec(manifest, folder, config, rows, _weights_sha256(config), beam, deadline)
    console.print(
        f"run {spec.run_id}: {rows} rows" + (f", {len(bad)} of them unreadable" if bad else "")
    )
    with RunDisplay(console, rows) as display, _stopping(spec, console):
        summary = execute(spec, beam, display.show)
    counts = ", ".join(f"{summary[status]} {status}" for status in STATUSES)
    console.print(
        f"{counts} in {summary['seconds']:.0f} s; pictures in "
        f"{os.path.join(options.output, 'images')}"
    )
    if summary["failed"]:
        _print_failures(spec.folder, spec.run_id)
    if "max_failure_ratio" in summary["stopped"]:
        print(f"nst run: {summary['stopped']}", file=sys.stderr)
        return RUN_FAILED
    if summary["deferred"]:
        console.print("run the same command again to make the deferred pictures")
        return DEFERRED
    return ROWS_FAILED if summary["failed"] else OK


@contextlib.contextmanager
def _stopping(spec: "RunSpec", console: Console) -> Iterator[None]:
    """A first SIGINT or SIGTERM lets the run end in order; a second ends it at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        console.print("stopping after this step; once more to stop at once")
        request_stop(spec.folder, spec.run_id, f"stopped by {signal.Signals(number).name}")

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deadline(clock: str | None, hours: float | None) -> float:
    """As `time.time()`: the next time that a local clock shows HH:MM, or so many hours from now."""
    if hours is not None:
        return time.time() + 3600.0 * hours
    if clock is None:
        return math.inf
    try:
        wanted = datetime.datetime.strptime(clock, "%H:%M").time()
    except ValueError as error:
        raise ConfigError(f"--deadline {clock}: expected HH:MM, such as 06:00") from error
    now = datetime.datetime.now()
    then = datetime.datetime.combine(now.date(), wanted)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


def _weights_sha256(config: RunConfig) -> str:
    """Of the network's weights, which must have all layers in use."""
    from nst_ops.weights import layer_weights, load_weights

    weights = load_weights(config.weights)
    for layer in (*config.content_layers, *config.style_layers):
        layer_weights(weights, layer)
    return weights.sha256


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
    from pipeline.manifest import Job
    from pipeline.planning import Planner
    from pipeline.stylizing import Stylizer

    folder, name = os.path.split(os.path.abspath(options.output))
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        raise InputError("is not writable; give another place to -o", path=folder)
    styles = tuple(_weighted(style) for style in options.styles)
    job = Job(1, Path(name).stem, options.content, styles, name)
    planned = Planner(config, _weights_sha256(config)).plan(job)
    with PairDisplay(console) as display:

        def announce(plan: object) -> None:
            console.print(f"computed {plan}")

        stylizer = Stylizer(folder, "stylize", images=folder, show=display.show, announce=announce)
        (row,) = stylizer.stylize_batch([planned])
    if row["status"] == "failed":
        print(f"nst stylize: {row['error_message']}", file=sys.stderr)
        return RUN_FAILED
    console.print(
        f"{options.output}: {row['width']}x{row['height']} px, loss {row['loss_last']:.4g}, "
        f"{row['seconds_total']:.1f} s on {row['device']} in {row['precision']}"
    )
    return OK


def _weighted(style: str) -> tuple[str, float]:
    """PATH or PATH=WEIGHT; a path may hold a `=` of its own."""
    path, equals, text = style.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        return style, 1.0
    if not equals or os.path.exists(style):
        return style, 1.0
    if not 0.0 < weight < math.inf:
        raise InputError(f"{style}: the weight {text!r} must be a number above 0")
    return path, weight


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
    from pipeline.manifest import BadRow, read_manifest
    from pipeline.planning import Planner

    planner = Planner(config, _weights_sha256(config))
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
    # Beam warns on the root logger, of clouds' clients that a local run does not need, and logs
    # the traceback of what `main` reports.
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str], Console], int]] = {
    "run": _run,
    "stylize": _stylize,
    "manifest": _manifest,
    "validate": _validate,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
