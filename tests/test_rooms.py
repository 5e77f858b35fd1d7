"""The tree says what the program does: rooms of few files, imported in one direction."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room imports those before it, and its own modules; modules on their own are rooms of one.
ORDER = (
    *("nst_ops.errors", "nst_ops.atomic", "nst_ops.archives", "nst_ops.compiled"),
    *("nst_ops.settings", "nst_ops.images", "nst_ops.vgg", "nst_ops.losses", "nst_ops.quality"),
    *("nst_ops.optimizers", "nst_ops.coarse_to_fine"),
    *("nst_ops.network", "nst_ops.training", "nst_ops.export", "nst_ops.engines"),
    *("pipeline.errors", "pipeline.jobs", "pipeline.store", "pipeline.config", "pipeline.machine"),
    *("pipeline.manifest", "pipeline.planning", "pipeline.workers", "pipeline.report"),
    *("pipeline.runs", "pipeline.training", "pipeline.web", "pipeline.cli"),
)
MOST_FILES = 9
FRONT_DOORS = ("nst_ops", "pipeline", "pipeline.__main__")  # which offer what is behind them


def modules() -> dict[str, Path]:
    paths = (path for package in ("nst_ops", "pipeline") for path in (ROOT / package).rglob("*.py"))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it; for types alone, too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_every_module_is_in_a_room_that_has_its_place():
    rooms = {room(name) for name in MODULES if name not in FRONT_DOORS}
    assert rooms == set(ORDER)


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(FRONT_DOORS)))
def test_imports_run_one_way(name):
    later = ORDER[ORDER.index(room(name)) + 1 :]
    upwards = [found for found in imports(name) if room(found) in later]
    assert not upwards, f"{name} imports {upwards}, which come after it"


def test_no_module_needs_itself():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for found in imports(name):
                if found not in FRONT_DOORS:
                    visit(found, (*path, name))
            done.add(name)

    for name in sorted(set(MODULES) - set(FRONT_DOORS)):
        visit(name, ())


@pytest.mark.parametrize("name", sorted(name for name in ORDER if MODULES[name].stem == "__init__"))
def test_rooms_are_small_and_say_what_they_are_for(name):
    files = [path for path in MODULES[name].parent.glob("*.py") if path.stem != "__init__"]
    assert len(files) <= MOST_FILES
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))
