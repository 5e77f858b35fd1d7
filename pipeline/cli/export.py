"""`nst export` and `nst web`: a network for phones, other runtimes and browsers."""

import argparse
import contextlib
import fnmatch
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nst_ops.atomic import TEMPORARY, replacing
from nst_ops.errors import InputError
from nst_ops.network.facts import EMBEDDED
from pipeline.cli.commands import OK
from pipeline.machine.devices import cores
from pipeline.machine.messages import printable
from pipeline.machine.signals import stopping
from pipeline.machine.tensorflow_setup import native_chatter_hidden, start_tensorflow

if TYPE_CHECKING:
    from nst_ops.export.formats import ExportedFile
    from nst_ops.export.verification import Comparison

FORMATS, PRECISIONS = ("tflite", "onnx", "web"), ("float16", "int8")
_STEM = "paintings"  # of the embedded network's files
_FACTS, _INDEX = "network.json", "index.html"  # of a page


def export(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst export`: files that paint what the network paints, or none."""
    if options.precision and options.to != "tflite":
        raise InputError(f"--precision is for --to tflite; --to {options.to} loses nothing")
    folder = _folder(options.output)
    _check_free(folder, options.to, _stem(options.network))
    files = _export(options.network, options.to, console, options.precision)
    _write(folder, files)
    if options.to == "web":
        console.print(f"to see it: nst web {printable(folder)}")
    return OK


def web(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst web`: a page on this machine, until Ctrl-C."""
    from pipeline.web.server import serve

    folder = Path(options.network)
    is_folder = options.network != EMBEDDED and folder.is_dir()
    if is_folder and not (_is_page(folder) and (folder / _INDEX).is_file()):
        raise InputError("is no page that nst export has written", path=options.network)
    with stopping(_interrupt), contextlib.ExitStack() as at_end:
        if not is_folder:
            folder = Path(at_end.enter_context(tempfile.TemporaryDirectory(prefix="nst-web-")))
        try:
            server = at_end.enter_context(serve(folder, options.host, options.port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{options.host}:{options.port} cannot be listened at ({error}); give another "
                "--host or --port; port 0 is any that is free"
            ) from error
        if not is_folder:
            _write(folder, _export(options.network, "web", console))
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{server.server_port}/", flush=True)
        console.print("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return OK


def _interrupt(signal: str) -> None:
    raise KeyboardInterrupt


def _stem(network: str) -> str:
    return _STEM if network == EMBEDDED else Path(network).stem


def _folder(path: str) -> Path:
    """Returns the folder of `-o`; if it cannot be there, it is known before anything is done."""
    if not path:
        raise InputError("-o: is empty; give a folder")
    folder = Path(path)
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError("is no folder that can be written to; give another -o", path=str(there))
    return folder


def _check_free(folder: Path, format: str, stem: str) -> None:
    """Checks that nothing is overwritten but what an earlier export has written."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    names = {name for name in names if not fnmatch.fnmatch(name, TEMPORARY)}
    if format == "web":
        if names and not _is_page(folder):
            raise InputError(
                "holds other files than a page of nst; give an empty folder to -o", path=str(folder)
            )
    elif _is_page(folder):
        raise InputError("holds a page; give another folder to -o", path=str(folder))
    elif f"{stem}.json" in names and not _has(folder / f"{stem}.json", "geometry", "files"):
        raise InputError(
            "is no file of an export, and would be overwritten; give another folder to -o",
            path=str(folder / f"{stem}.json"),
        )


def _is_page(folder: Path) -> bool:
    return _has(folder / _FACTS, "geometry", "model", "styles")


def _has(path: Path, *keys: str) -> bool:
    """Whether a file is a JSON object with these keys."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() >= set(keys)


def _export(
    network: str, format: str, console: Console, precision: str | None = None
) -> Mapping[str, bytes]:
    """Returns the files of a format, {name: content}, which paint what the network paints; prints
    how near they come.
    """
    from nst_ops.network.facts import network_facts

    facts = network_facts(network)  # fails at once
    start_tensorflow()
    from nst_ops.export import formats
    from nst_ops.export.verification import sample_photos
    from nst_ops.network.model import load_network
    from nst_ops.network.painter import Painter
    from nst_ops.network.thumbnails import read_thumbnails

    formats.check_installed(format)
    model, facts = load_network(network)
    painter = Painter(model)
    stem = _stem(network)
    console.print("converting, then painting photos with both")
    with native_chatter_hidden():
        files = formats.exported(
            format, stem, model, facts, [precision] if precision else list(formats.PRECISIONS)
        )
        photos, threads = sample_photos(), cores()
        found = [
            formats.verified(file, painter, len(facts.styles), photos, threads) for file in files
        ]
    _tell(zip(files, found, strict=True), threads, console)
    if format != "web":
        told = formats.description(model, facts, list(zip(files, found, strict=True)))
        return {**{file.name: file.data for file in files}, f"{stem}.json": told.encode()}
    from pipeline.web.site import make_site

    (file,) = files
    return make_site(file.data, facts, painter, read_thumbnails(network))


def _tell(
    found: Iterable[tuple["ExportedFile", Sequence["Comparison"]]], threads: int, console: Console
) -> None:
    console.print(
        f"{'file':28} {'kB':>6} {'px':>10} {'error':>8} {'PSNR dB':>8} {'ms':>7} {'Keras ms':>9}"
        f"   ({threads} threads)"
    )
    for file, comparisons in found:
        for each in comparisons:
            size = f"{each.size[0]}x{each.size[1]}"
            console.print(
                f"{printable(file.name):28} {len(file.data) / 1e3:6.0f} {size:>10} "
                f"{each.error:8.1e} {each.psnr:8.1f} {each.milliseconds:7.1f} "
                f"{each.keras_milliseconds:9.1f}"
            )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files in the place of those of an earlier export. A page has its index last, and so is
    a page when it is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(TEMPORARY):  # by an export that was killed
        left.unlink()
    if _INDEX in files:
        (folder / _INDEX).unlink(missing_ok=True)
        for old in folder.glob("styles/*.jpg"):
            if f"styles/{old.name}" not in files:
                old.unlink()
    for name in sorted(files, key=lambda name: (name != _FACTS, name == _INDEX, name)):
        with replacing(folder / name, sync=False) as file:
            file.write(files[name])
