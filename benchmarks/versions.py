"""Pictures by this version of the program, or by an earlier one, each in a process of its own.

An earlier version is taken from the repository's history, with its own defaults and losses, and
unpacked once into `benchmarks/cache`. Run as a script, this module is that process: it imports
whichever `nst_ops` is on its path.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BEFORE_ATTENTION = "13ab427"  # the last commit without the attention term
_ROOT = Path(__file__).parents[1]


class Case(NamedTuple):
    """A picture to be made: a photo and a painting, sRGB in [0, 1], and changes of the defaults."""

    photo: np.ndarray  # [H, W, 3]
    painting: np.ndarray  # [h, w, 3]
    settings: dict[str, Any]


class Made(NamedTuple):
    """A picture [H, W, 3], and the processor time it took, without tracing."""

    picture: np.ndarray
    cpu: float


def make(cases: Sequence[Case], commit: str | None = None) -> list[Made]:
    """Makes pictures by the version of a commit; None: by the present one."""
    source = _ROOT if commit is None else _unpacked(commit)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number, case in enumerate(cases):
            np.savez(place / f"{number}.npz", photo=case.photo, painting=case.painting)
        (place / "settings.json").write_text(json.dumps([case.settings for case in cases]))
        subprocess.run(
            [sys.executable, "-P", __file__, folder],
            check=True,
            env=os.environ | {"PYTHONPATH": str(source), "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        seconds = json.loads((place / "seconds.json").read_text())
        return [Made(np.load(place / f"{number}.npy"), cpu) for number, cpu in enumerate(seconds)]


def _unpacked(commit: str) -> Path:
    place = _ROOT / "benchmarks" / "cache" / f"version-{commit}"
    if not place.exists():
        packed = subprocess.run(
            ["git", "-C", str(_ROOT), "archive", commit, "nst_ops"], check=True, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
            files.extractall(place, filter="data")
    return place


def _make_here(place: Path) -> None:
    import nst_ops

    seconds = []
    for number, changes in enumerate(json.loads((place / "settings.json").read_text())):
        with np.load(place / f"{number}.npz") as images:
            photo, painting = images["photo"], images["painting"]
        # A picture is charged neither for the tracing, nor for what is kept of its painting.
        cache = nst_ops.TargetCache()
        nst_ops.run(photo, [painting], nst_ops.Settings(**changes | {"steps": 1}), cache=cache)
        started = time.process_time()
        result = nst_ops.run(photo, [painting], nst_ops.Settings(**changes), cache=cache)
        seconds.append(time.process_time() - started)
        np.save(place / f"{number}.npy", np.asarray(result.images[0]))
    (place / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    _make_here(Path(sys.argv[1]))
