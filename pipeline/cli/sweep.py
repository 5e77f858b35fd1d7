"""`nst sweep`: one pair under many settings, on one sheet.

The pictures are rows of a manifest that is written beside them, and an ordinary run makes them: so
a sweep that was stopped goes on, and one that is widened makes only what is new.
"""

import itertools
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nst_ops.errors import InputError
from nst_ops.images.codec import decode
from pipeline.config.plain_yaml import parse_yaml, yaml_problem
from pipeline.config.run_config import RunConfig, row_settings
from pipeline.errors import ConfigError
from pipeline.jobs.job import StyleSource
from pipeline.machine.tensorflow_setup import start_tensorflow
from pipeline.report.contact_sheet import Cell, contact_sheet, write_page
from pipeline.store import files

_MOST_PICTURES = 1000
_FIGURES = "figures.json"  # what was measured of pictures, by spec hash
_JUDGES = ("swd", "cin", "patch3", "patch4")


class Variant(NamedTuple):
    """One of the sweep's pictures."""

    name: str  # of its file, without an extension
    settings: dict[str, Any]


def variants(vary: Sequence[str], config: RunConfig) -> list[Variant]:
    """Returns all combinations of what is to vary, the last of them fastest.

    Args:
      vary: KEY=VALUE,VALUE,... each, values being YAML.
      config: what does not vary; says which keys there are.

    Raises:
      ConfigError: a key is unknown, stands twice or cannot vary, or there is no value.
    """
    axes: dict[str, list[Any]] = {}
    for text in vary:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise ConfigError(f"--vary {text}: expected KEY=VALUE,VALUE, such as tv_weight=10,100")
        if key not in row_settings(config):
            raise ConfigError(
                f"--vary {text}: {key!r} cannot vary; what can is {', '.join(row_settings(config))}"
            )
        if key in axes:
            raise ConfigError(f"--vary {text}: {key} stands twice; give all its values at once")
        try:
            axes[key] = parse_yaml(f"[{values}]")
        except yaml.YAMLError as error:
            raise ConfigError(f"--vary {text}: {yaml_problem(error)}") from error
    products = itertools.product(*axes.values())
    combinations = [dict(zip(axes, values, strict=True)) for values in products]
    if len(combinations) > _MOST_PICTURES:
        raise ConfigError(f"--vary: {len(combinations)} pictures; at most {_MOST_PICTURES}")
    return [Variant(_file_name(each), each) for each in combinations]


def row_length(found: Sequence[Variant]) -> int:
    """Returns how many values the setting has that varies fastest: they make a row of the sheet."""
    last = [list(each.settings.values())[-1:] for each in found]
    return min(8, len({json.dumps(value) for value in last}))


def _file_name(settings: Mapping[str, Any]) -> str:
    """Returns a name that says the settings, and stays when others are added to the sweep."""
    words = [f"{key}={_value(value)}" for key, value in settings.items()] or ["defaults"]
    return urllib.parse.quote(" ".join(words), safe=" =.,[]{}:").replace(":", "")[:200]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def manifest_rows(
    content: str, styles: Sequence[StyleSource], keep: str | None, found: Sequence[Variant]
) -> list[dict[str, Any]]:
    """Returns the rows of the sweep's manifest, which may lie in any folder."""
    blend = [
        {
            "path": files.absolute(style.name) if style.is_file else style.name,
            "weight": style.weight,
        }
        for style in styles
    ]
    row: dict[str, Any] = {"content": files.absolute(content), "style": blend}
    masks = [(style.photo_mask, style.painting_mask) for style in styles]
    if any(map(any, masks)):
        row["masks"] = [
            {"photo": photo and files.absolute(photo), "painting": part and files.absolute(part)}
            for photo, part in masks
        ]
    if keep:
        row["keep"] = files.absolute(keep)
    return [{**row, "output": each.name, **each.settings} for each in found]


def write_sheets(
    folder: Path,
    content: str,
    style: str | None,
    found: Sequence[Variant],
    rows: Mapping[str, Mapping[str, Any]],
    columns: int,
) -> tuple[Path, Path]:
    """Writes the contact sheet as an image and as a page, and returns their paths.

    Args:
      content: the photo's path.
      style: the painting's, by which pictures are judged; None: they are not.
      rows: the run's, by the lines of the manifest as they stand in `found`: {name: row}.
      columns: pictures beside each other.

    Raises:
      InputError: there is not one picture.
    """
    known = _read_figures(folder)
    cells, entries = [], []
    photo, painting = (_pixels(path) if path else None for path in (content, style))
    for each in found:
        row = rows.get(each.name)
        if row is None or row["status"] not in ("ok", "cached"):
            continue
        picture = _pixels(str(folder / "images" / row["output"]))
        if painting is not None and row["spec_hash"] not in known:
            known[row["spec_hash"]] = _measure(picture, photo, painting)
        figures = known.get(row["spec_hash"], {})
        words = {key: _value(value) for key, value in each.settings.items()} or {
            "settings": "defaults"
        }
        judged = {name: f"{figures[name]:.3f}" for name in _JUDGES if name in figures}
        caption = [f"{name} {text}" for name, text in words.items()]
        caption += ["  ".join(f"{name}\N{NO-BREAK SPACE}{text}" for name, text in judged.items())]
        cells.append(Cell(picture, caption))
        source = "images/" + urllib.parse.quote(row["output"])
        entries.append({"source": source, "settings": words, "figures": judged})
    if not cells:
        raise InputError("no picture was made, so there is no sheet", path=str(folder))
    files.write(str(folder / _FIGURES), json.dumps(known, indent=1).encode())
    image, page = folder / "sheet.png", folder / "sheet.html"
    contact_sheet(cells, columns).save(image)
    write_page(
        page, f"{os.path.basename(content)} x {os.path.basename(style or '')}", entries, columns
    )
    return image, page


def _read_figures(folder: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads((folder / _FIGURES).read_text())
    except (OSError, ValueError):  # none yet, or damaged: they are measured again
        return {}
    return found if isinstance(found, dict) else {}


def _pixels(path: str) -> Any:
    return decode(files.read(path), path=path).on_white()


def _measure(picture: Any, photo: Any, painting: Any) -> dict[str, float]:
    """Returns the figures of a picture; none if it is too small for the judges."""
    start_tensorflow()
    from nst_ops.quality import LEAST_SIDE, measure

    smallest = min(*picture.shape[:2], *painting.shape[:2])
    return measure(picture, photo, painting) if smallest >= LEAST_SIDE else {}
