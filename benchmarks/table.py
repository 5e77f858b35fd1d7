"""A benchmark's outcome: rows of figures and what they were measured on, as markdown."""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from nst_ops.vgg.precision import device_name

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("nst-ops", "tensorflow", "keras", "numpy")


class Table(NamedTuple):
    """Rows share their keys, which are the columns; `notes` say what the columns do not."""

    title: str
    rows: Sequence[Mapping[str, object]]
    notes: Sequence[str] = ()


def markdown(table: Table) -> str:
    """The table with title, notes, machine and versions."""
    columns = list(table.rows[0])
    cells = [columns, ["---"] * len(columns)]
    cells += [[_cell(row[column]) for column in columns] for row in table.rows]
    lines = [f"# {table.title}", "", *("| " + " | ".join(row) + " |" for row in cells), ""]
    return "\n".join([*lines, *(f"* {note}" for note in (*table.notes, _machine()))]) + "\n"


def means(rows: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The mean over rows of every column of fractional numbers."""
    names = [name for name, value in rows[0].items() if isinstance(value, float)]
    columns = {
        name: [value for row in rows if isinstance(value := row[name], float)] for name in names
    }
    return {name: sum(values) / len(values) for name, values in columns.items()}


def write(name: str, text: str) -> Path:
    """Keeps a table as `results/NAME.md`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text)
    return path


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return f"{device_name()}, {cores} cores; {', '.join(versions)}."
