"""What a network is worth after so many minutes of training with `configs/train.yaml`, on the
example pairs: `python -m benchmarks training PHOTO ...`, photos that are not among them.

The training lies in `benchmarks/cache/training.training`, and is gone on with where it stands.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.network import CACHE, FIGURES, JUDGED, judged
from benchmarks.pairs import IMAGES, NAMES
from benchmarks.table import Table, means
from nst_ops.network.facts import network_facts
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter

MINUTES = (15, 30, 60, 120)
_CONFIG = Path(__file__).parents[1] / "configs" / "train.yaml"


def main(*photos: str) -> Table:
    if not photos:
        sys.exit("python -m benchmarks training wants photos, or globs of them")
    return table(_trained(photos, minutes) for minutes in MINUTES)


def table(networks: Iterable[Path]) -> Table:
    """The figures of networks as they were at some moments of one training."""
    rows = []
    for path in networks:
        model, facts = load_network(str(path))
        steps, seconds = facts.training["steps"], facts.training["seconds"]
        row = {"minutes": round(seconds / 60), "steps": steps}
        row["steps an hour"] = round(3600 * steps / seconds, -2)
        for size in JUDGED:
            found = means(judged(Painter(model), facts, size))
            row |= {f"{name}, {size} px": found[name] for name in FIGURES}
        rows.append(row)
        print(row, flush=True)
    return Table("Networks by their time of training", rows, ("Mean of the example pairs.",))


def _trained(photos: tuple[str, ...], minutes: float) -> Path:
    """The network after so many minutes."""
    words = ["--config", str(_CONFIG), "--set", "steps=100000", "--content", *photos, "--style"]
    words += [str(IMAGES / f"{painting}.jpg") for _, painting in NAMES]
    return trained_for(minutes, CACHE / "training.keras", words)


def trained_for(minutes: float, output: Path, words: list[str]) -> Path:
    """The network as it is after so many minutes of a training, which is gone on with as need be.

    Args:
      minutes: from its beginning.
      output: of the training, which is not meant to reach its end.
      words: of `nst train`, but for the output.
    """
    now = output.with_suffix(".training") / "network.keras"
    done = network_facts(str(now)).training["seconds"] / 60 if now.exists() else 0.0
    if done < minutes:
        command = [sys.executable, "-m", "pipeline", "train", *words, "-o", str(output)]
        left = str((minutes - done) / 60)
        # It ends with the code of a training that was stopped.
        subprocess.run([*command, "--max_hours", left], check=False)
    return now
