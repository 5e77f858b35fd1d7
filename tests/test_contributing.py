"""CONTRIBUTING.md names files, names in them and commands; it is no use once they have gone."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from nst_ops.engines.base import _GROUP

from .test_rooms import MOST_FILES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FOLDERS = "nst_ops pipeline tests benchmarks docs configs deploy examples .ci".split()
PATHS = sorted(
    set(re.findall(rf"(?<![\w/.])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./]*", TEXT))
)
# What it says is defined in a file.
NAMED = {
    "nst_ops/__init__.py": "__all__",
    "nst_ops/settings.py": "Settings",
    "nst_ops/coarse_to_fine/iterates.py": "Knobs",
    "nst_ops/coarse_to_fine/loop.py": "_optimize",
    "nst_ops/coarse_to_fine/reports.py": "LOSSES",
    "nst_ops/engines/base.py": "BUILT_IN Engine Session Step",
    "nst_ops/engines/optimizer_session.py": "_figures",
    "nst_ops/engines/recipe.py": "METHOD _UNNAMED _without_effect",
    "nst_ops/losses/objective.py": "evaluate",
    "nst_ops/losses/terms.py": "LossWeights Targets weighted_total",
    "nst_ops/losses/tiled.py": "evaluate_tiled",
    "pipeline/config/run_config.py": "RunConfig",
    "benchmarks/__main__.py": "NAMES",
    "benchmarks/table.py": "Table",
    "docs/make_api.py": "TOPICS",
    "tests/test_rooms.py": "ORDER",
}


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path):
    assert (ROOT / path.rstrip(".")).exists()


@pytest.mark.parametrize("path", NAMED)
def test_names_are_defined_where_it_says(path):
    text = (ROOT / path).read_text()
    for name in NAMED[path].split():
        assert f"`{name}`" in TEXT
        assert re.search(rf"^(class |def )?{name}\b", text, re.MULTILINE), name


def test_figures_are_those_of_the_code():
    assert f'entry-points."{_GROUP}"' in TEXT
    assert MOST_FILES == 9 and "at most nine modules" in TEXT


def test_benchmarks_have_their_names():
    named = re.findall(r"python -m benchmarks (\w+)", TEXT)
    assert named and set(named) <= set(NAMES)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target
