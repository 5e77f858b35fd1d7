"""What cures what: the pictures of `docs/symptoms.md`, made by the page's own commands, and their
figures.
"""

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.table import Table
from nst_ops.images.codec import decode
from nst_ops.quality import measure
from pipeline.cli.main import main as nst

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "symptoms.md"
_MARGIN = 6  # px, between the two
_QUALITY = 85
_SECTION = re.compile(
    r"^## (?P<title>.+?)\n.*?\]\((?P<picture>symptoms/\w+\.jpg)\).*?^```sh\n(?P<shell>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Symptom(NamedTuple):
    """A section of the page: the words after `nst` that make its picture's two halves."""

    title: str
    picture: Path
    before: list[str]
    after: list[str]


def symptoms() -> Iterator[Symptom]:
    """Those of the page, in its order."""
    for section in _SECTION.finditer(PAGE.read_text()):
        lines = section["shell"].replace("\\\n", " ").splitlines()
        before, after = (shlex.split(line)[1:] for line in lines)
        yield Symptom(section["title"], PAGE.parent / section["picture"], before, after)


def main() -> Table:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for symptom in symptoms():
            halves = []
            for which, words in (("before", symptom.before), ("after", symptom.after)):
                picture, seconds = _stylize(words, Path(folder))
                halves.append(picture)
                photo, painting = (_pixels(ROOT / name) for name in words[1:3])
                figures = measure(picture, photo, painting)
                rows.append({"symptom": symptom.title, "": which, "seconds": seconds, **figures})
                print(*rows[-1].values(), flush=True)
            symptom.picture.parent.mkdir(exist_ok=True)
            side_by_side(*halves).save(symptom.picture, quality=_QUALITY)
    return Table(
        "The symptoms, before and after",
        rows,
        ("By the commands of docs/symptoms.md; `seconds` are theirs, with what starts only once.",),
    )


def side_by_side(before: np.ndarray, after: np.ndarray) -> Image.Image:
    """Two pictures [H, W, 3] in [0, 1], with a white gap."""
    gap = np.ones((before.shape[0], _MARGIN, 3), np.float32)
    levels = np.round(np.concatenate([before, gap, after], axis=1) * 255.0)
    return Image.fromarray(levels.astype(np.uint8))


def _stylize(words: list[str], folder: Path) -> tuple[np.ndarray, float]:
    """A command's picture and its seconds; from the repository's root, whatever the user's is."""
    words = list(words)
    output = words.index("-o") + 1
    words[output] = str(folder / words[output])
    here = os.getcwd()
    os.chdir(ROOT)
    started = time.perf_counter()
    try:
        code = nst(words)
    finally:
        os.chdir(here)
    if code:
        raise RuntimeError(f"nst {shlex.join(words)} ended with exit code {code}")
    return _pixels(Path(words[output])), time.perf_counter() - started


def _pixels(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).pixels
