import importlib.util
from pathlib import Path

import pytest

import nst_ops

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make_api():
    """docs/make_api.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs/make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_is_described_on_the_page(make_api):
    topics = [name for names in make_api.TOPICS.values() for name in names]
    assert sorted(topics) == sorted(set(nst_ops.__all__) - {"__version__"})
    for name in topics:  # aliases too, which have no __doc__ of their own
        assert make_api.definition(nst_ops._HOMES[name], name)[2], name


def test_the_page_is_what_the_docstrings_say(make_api):
    assert make_api.PAGE.read_text() == make_api.page(), "run `python docs/make_api.py`"
