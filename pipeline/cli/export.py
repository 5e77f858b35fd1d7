"""`nst export` and `nst web`: a network for phones, other runtimes and browsers."""

import argparse
import contextlib
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nst_ops.atomic import replacing
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
# Of a page the first is written first and the second last: a folder that has the first is ours, and
# one that has both is whole.
_FIRST, _LAST = "network.json", "index.html"


def export(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst export`: files that paint what the network paints, or none."""
    if options.precision and options.to != "tflite":
        raise InputError(f"--precision is for --to tflite; --to {options.to} loses nothing")
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file; give a folder to -o", path=str(folder))
    ours = not folder.is_dir() or not any(folder.iterdir()) or (folder / _FIRST).is_file()
    if options.to == "web" and not ours:
        raise InputError(
            "holds other files than a page of nst; give an empty folder to -o", path=str(folder)
        )
    _write(folder, _export(options.network, options.to, console, options.precision))
    return OK


def web(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """`nst web`: a page on this machine, until Ctrl-C."""
    from pipeline.web.server import serve

    with contextlib.ExitStack() as at_end:
        folder = Path(options.network)
        if not all((folder / name).is_file() for name in (_FIRST, _LAST)):
            if folder.is_dir():
                raise InputError("is no page that nst export has written", path=options.network)
            folder = Path(at_end.enter_context(tempfile.TemporaryDirectory()))
            _write(folder, _export(options.network, "web", console))
        try:
            server = at_end.enter_context(serve(folder, options.host, options.port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{options.host}:{options.port} cannot be listened at ({error}); give another "
                "--port, or 0 for any that is free"
            ) from error
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{server.server_port}/", flush=True)
        console.print("Ctrl-C ends it")
        with stopping(lambda signal: threading.Thread(target=server.shutdown).start()):
            server.serve_forever()
    return OK


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
    stem = _STEM if network == EMBEDDED else Path(network).stem
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
    for name in sorted(files, key=lambda name: (name != _FIRST, name == _LAST, name)):
        with replacing(folder / name, sync=False) as file:
            file.write(files[name])
