"""The folder that a training keeps beside its network: its checkpoint, samples and losses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from nst_ops.atomic import replacing
from nst_ops.errors import InputError
from nst_ops.network.facts import NetworkFacts
from nst_ops.network.painter import Painter
from pipeline.report.contact_sheet import Cell, contact_sheet

if TYPE_CHECKING:
    from nst_ops.training.trainer import Point, Trainer

_CHECKPOINT, _SHEET, _PAGE = "checkpoint.npz", "samples.png", "index.html"
_MOST_SHOWN = 8  # styles
_WIDTH, _HEIGHT = 600, 160  # of a drawing, in its own unit
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline.training"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)


class TrainingRecord:
    """Writes what a training leaves while it goes on.

    Args:
      folder: its folder.
      identity: what a checkpoint must agree with.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._folder, self._identity = folder, identity

    def save(self, trainer: "Trainer", told: dict[str, Any]) -> None:
        """Writes a checkpoint, whole or not at all.

        Args:
          trainer: whose state it is.
          told: plain values that `resume` returns.
        """
        with replacing(self._folder / _CHECKPOINT) as file:
            trainer.save(file, {"identity": self._identity, "told": told})

    def resume(self, trainer: "Trainer") -> dict[str, Any]:
        """Takes up the checkpoint, if there is one; returns what was told with it, or nothing.

        Raises:
          InputError: it is damaged, or of a training with other settings or files.
        """
        path = self._folder / _CHECKPOINT
        try:
            with path.open("rb") as file:
                return trainer.load(file, self._check)["told"]
        except FileNotFoundError:
            return {}
        except InputError as error:
            raise InputError(
                f"{error}; remove {self._folder} to begin anew, or give another -o", path=str(path)
            ) from error

    def _check(self, facts: dict[str, Any]) -> None:
        before = facts["identity"]
        other = [name for name, value in self._identity.items() if before.get(name) != value]
        if other:
            changed = _changes(before["settings"], self._identity["settings"])
            what = ", ".join([*changed, *(name for name in other if name != "settings")])
            raise InputError(f"was begun with other {what}")

    def show(
        self,
        painter: Painter,
        facts: NetworkFacts,
        photos: Sequence[np.ndarray],
        curve: Sequence["Point"],
        words: dict[str, str],
    ) -> None:
        """Writes a sheet of samples, and a page with it and the curves of the losses.

        Args:
          painter: paints the samples.
          facts: of its network; the last of its styles are shown.
          photos: to paint, [H, W, 3] each.
          curve: the losses so far.
          words: what the page says beside, {name: text}.
        """
        names = facts.names[-_MOST_SHOWN:]
        cells = []
        for photo in photos:
            cells.append(Cell(photo, ["photo"]))
            for name in names:
                weights = [facts.weights_of([(name, 1.0)])]
                cells.append(Cell(painter.paint(photo[None], weights)[0], [name]))
        if cells:
            sheet = contact_sheet(cells, 1 + len(names))
            with replacing(self._folder / _SHEET, sync=False) as file:
                sheet.save(file, "PNG")
        page = _TEMPLATES.get_template("training.html").render(
            title=f"Training of {self._folder.stem}",
            words=words,
            sheet=_SHEET,
            drawings=[_drawing(name, curve) for name in curve[-1].losses] if curve else [],
            width=_WIDTH,
            height=_HEIGHT,
        )
        with replacing(self._folder / _PAGE, sync=False) as file:
            file.write(page.encode())


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{key} ({before.get(key)})" for key, value in now.items() if before.get(key) != value]


def _drawing(name: str, curve: Sequence["Point"]) -> dict[str, str] | None:
    """Returns the curve of one loss as the points of a polyline, on a logarithmic scale."""
    values = [(point.step, point.losses[name]) for point in curve if point.losses[name] > 0.0]
    if not values:
        return None
    logs = [math.log10(value) for _, value in values]
    low, high, last = min(logs), max(logs), values[-1][0]
    points = [
        f"{_WIDTH * step / last:.1f},{_HEIGHT * (high - log) / max(high - low, 1e-9):.1f}"
        for (step, _), log in zip(values, logs, strict=True)
    ]
    return {
        "name": name,
        "points": " ".join(points),
        "first": f"{values[0][1]:.3g}",
        "last": f"{values[-1][1]:.3g}",
    }
