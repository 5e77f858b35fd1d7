"""The `nst` command: its arguments; what it returns is in the epilog below."""

import argparse
import logging
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from rich.console import Console

from nst_ops import __version__
from nst_ops.errors import InputError
from pipeline.cli import commands, export, train
from pipeline.cli.commands import BAD_INPUT, INTERRUPTED, OK, RUN_FAILED
from pipeline.errors import ConfigError, LockedError, ManifestError
from pipeline.machine.messages import (
    be_verbose,
    indented,
    json_line,
    log_as_json,
    printable,
    tell_warnings,
)
from pipeline.machine.tensorflow_setup import quiet_logs

_DESCRIPTION = "Stylizes photos after paintings: one, or a collection as a nightly job."
_RIGHTS = "Apache-2.0; VGG19's weights by K. Simonyan and A. Zisserman (VGG, Oxford), CC BY 4.0"
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
    # No markup: what is shown holds names from manifests, brackets and all.
    console = Console(
        stderr=True,
        quiet=options.quiet,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )

    as_json = getattr(options, "log_format", "text") == "json"
    if as_json:
        log_as_json()
    tell_warnings()

    def fail(code: int, *messages: object, show: Callable[[object], str] = printable) -> int:
        """Says why; returns the exit code."""
        if as_json:
            text = "\n".join(map(str, messages))
            print(json_line("error", {"message": text, "exit_code": code}), file=sys.stderr)
            return code
        for message in messages:
            print(f"nst {options.command}: {show(message)}", file=sys.stderr)
        return code

    interrupted = "interrupted"
    if options.command in ("run", "train"):
        interrupted += "; run the same command again to go on"
    try:
        return _COMMANDS[options.command](options, rest, console)
    except ConfigError as error:
        return fail(BAD_INPUT, *error.args)
    except (ManifestError, InputError, LockedError) as error:
        return fail(BAD_INPUT, error)
    except KeyboardInterrupt:
        return fail(INTERRUPTED, interrupted)
    except Exception as error:
        if options.verbose:
            return fail(RUN_FAILED, traceback.format_exc().rstrip(), show=indented)
        if _is_interrupt(error):
            return fail(INTERRUPTED, interrupted)
        if isinstance(error, OSError):
            where = error.filename or "input or output"
            return fail(RUN_FAILED, f"{where}: {error.strerror or error}")
        failed = f"failed: {type(error).__name__}: {error}"
        return fail(RUN_FAILED, failed, "--verbose shows where", show=indented)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what it came from, as a runner may pass it on."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser("nst", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter)
    parser.add_argument("--version", action="version", version=f"nst {__version__}\n{_RIGHTS}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, *, config: bool) -> argparse.ArgumentParser:
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

    def add_limits(sub: argparse.ArgumentParser) -> None:
        when = sub.add_mutually_exclusive_group()
        when.add_argument("--deadline", metavar="HH:MM", help="stop at this local time, in order")
        when.add_argument("--max_hours", metavar="N", type=_hours, help="stop after so many hours")

    def add_masks(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--masks",
            metavar="MASK",
            nargs="+",
            help="for each painting a grey image, white where in the photo its strokes go; - for "
            "none",
        )
        sub.add_argument(
            "--painting_masks",
            metavar="MASK",
            nargs="+",
            help="likewise, white where in the painting they come from",
        )
        sub.add_argument(
            "--keep", metavar="MASK", help="a grey image, white where the photo stays as it is"
        )

    sub = add("run", "stylize all rows of a manifest; other options go to Beam", config=True)
    sub.add_argument("--manifest", required=True, metavar="FILE", help=".csv, .jsonl or .parquet")
    sub.add_argument(
        "--output", required=True, metavar="DIR", help="the run's folder; run again to go on"
    )

    add_limits(sub)
    sub.add_argument(
        "--max_failure_ratio",
        metavar="R",
        action=_AsOverride,
        help="as --set max_failure_ratio=R: stop when a larger share of rows has failed",
    )
    sub.add_argument(
        "--retry_failed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="try again what failed in earlier runs with the same files and settings",
    )
    sub.add_argument(
        "--check",
        choices=("changed", "full"),
        default="changed",
        help="which files are read to see what is done: those that have changed since they were "
        "read last (default), or all",
    )
    sub.add_argument(
        "--shard",
        metavar="N/COUNT",
        default="1/1",
        help="only rows on every COUNT-th line, for schedulers that start processes; see nst merge",
    )
    sub.add_argument(
        "--log_format", choices=("text", "json"), default="text", help="of what is printed"
    )

    sub = add("stylize", "stylize one photo after one or more paintings", config=True)
    sub.add_argument("content", metavar="CONTENT", help="the photo")
    sub.add_argument(
        "styles",
        metavar="STYLE",
        nargs="+",
        help="a painting, or several to blend; PATH=WEIGHT weighs",
    )
    add_masks(sub)
    sub.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".png, .jpg, .webp or .tif"
    )

    sub = add("sweep", "stylize one pair under many settings, on one sheet", config=True)
    sub.add_argument("content", metavar="CONTENT", help="the photo")
    sub.add_argument("styles", metavar="STYLE", nargs="+", help="as for nst stylize")
    add_masks(sub)
    sub.add_argument(
        "--vary",
        metavar="KEY=VALUE,...",
        action="append",
        default=[],
        help="values of a setting, such as content_weight=1e3,1e4; if repeated, all combinations",
    )
    sub.add_argument("--columns", type=int, metavar="N", help="pictures beside each other")
    sub.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="sheet.png, sheet.html, the pictures"
    )

    sub = add("train", "train a network that paints in one pass", config=True)
    sub.add_argument(
        "--content",
        required=True,
        metavar="GLOB",
        nargs="+",
        help="photos, quoted: 'photos/**/*.jpg'",
    )
    sub.add_argument("--style", required=True, metavar="GLOB", nargs="+", help="paintings, quoted")
    sub.add_argument(
        "--add_to", metavar="NETWORK", help="a trained network (or embedded) to add the styles to"
    )
    sub.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="the network, .keras; run again to go on",
    )
    add_limits(sub)

    sub = add("export", "write a network for phones, other runtimes or browsers", config=False)
    sub.add_argument("network", metavar="NETWORK", help="a .keras file of nst train, or embedded")
    sub.add_argument(
        "--to",
        required=True,
        choices=export.FORMATS,
        help="tflite: phones; onnx: any size, any system; web: a page that paints",
    )
    sub.add_argument(
        "--precision", choices=export.PRECISIONS, help="of tflite, one alone (default: both)"
    )
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="the files' folder")

    sub = add("web", "serve a page that paints on this machine", config=False)
    sub.add_argument(
        "network",
        nargs="?",
        default="embedded",
        metavar="NETWORK",
        help="a .keras file, embedded (default), or a page's folder",
    )
    sub.add_argument("--host", default="127.0.0.1", help="to listen at (default: %(default)s)")
    sub.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")

    sub = add("manifest", "make a manifest from files", config=False)
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

    sub = add(
        "validate",
        "read a config, a manifest and the images' headers; report problems",
        config=True,
    )
    sub.add_argument("--manifest", required=True, metavar="FILE")
    sub.add_argument("--show", type=int, default=5, metavar="N", help="problems of a kind in full")
    sub.add_argument(
        "--speed",
        type=_speed,
        default="probe",
        metavar="X",
        help="for the estimate: million pixels x steps a second of one process; probe (default) "
        "measures for some seconds, none leaves the estimate out",
    )

    sub = add("report", "make the HTML report of a run again", config=False)
    sub.add_argument("folder", metavar="DIR", help="the --output of nst run")
    sub.add_argument("--run", metavar="ID", help="which one (default: the last)")

    sub = add("runs", "list the runs of a folder", config=False)
    sub.add_argument("folder", metavar="DIR", help="the --output of nst run")

    sub = add("merge", "make one run of the last runs of all shards", config=False)
    sub.add_argument("folder", metavar="DIR", help="the --output of nst run --shard")

    sub = add("settings", "print all settings: default, unit, range, effect", config=False)
    form = sub.add_mutually_exclusive_group()
    form.add_argument(
        "name", nargs="?", metavar="NAME", help="one of them in full, and where it can be set"
    )
    form.add_argument("--markdown", action="store_true", help="as the README's tables")

    sub = add("completion", "print a script by which a shell completes nst's words", config=False)
    sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="of the script")

    add("doctor", "print versions, devices, threads, memory and the weights' hash", config=False)
    return parser


class _Parser(argparse.ArgumentParser):
    """Its subparsers are of this class too."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2; the message holds what was given."""
        super().error(printable(message))


class _AsOverride(argparse.Action):
    """An option of its own for a setting."""

    def __call__(self, parser, namespace, value, option_string=None):
        namespace.overrides = [*namespace.overrides, f"{self.dest}={value}"]


def _completion(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst completion`: what this very parser knows."""
    from pipeline.cli.completion import completion_script

    print(completion_script(_parser(), options.shell))
    return OK


def _hours(text: str) -> float:
    hours = float(text)
    if not 0.0 <= hours < math.inf:
        raise ValueError(text)
    return hours


def _speed(text: str) -> str:
    if text not in ("probe", "none") and not float(text) > 0:
        raise ValueError(text)
    return text


def _quiet_logs(verbose: bool) -> None:
    """Before TensorFlow or Beam is imported."""
    if verbose:
        be_verbose()
        logging.basicConfig(level=logging.INFO)
        return
    quiet_logs()


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str], Console], int]] = {
    "run": commands.run,
    "stylize": commands.stylize,
    "sweep": commands.sweep,
    "train": train.train,
    "export": export.export,
    "web": export.web,
    "manifest": commands.manifest,
    "validate": commands.validate,
    "report": commands.report,
    "runs": commands.runs,
    "merge": commands.merge,
    "settings": commands.settings,
    "completion": _completion,
    "doctor": commands.doctor,
}

if __name__ == "__main__":
    sys.exit(main())
