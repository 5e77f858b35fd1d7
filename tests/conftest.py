"""Options and pictures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGES = Path(__file__).parent.parent / "examples" / "images"


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the proofs of minutes too")
    parser.addoption("--screenshot", help="where the page's picture for the README is written")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--run-slow"):
        for item in items:
            if item.get_closest_marker("slow") or item.get_closest_marker("distributed"):
                item.add_marker(pytest.mark.skip(reason="needs --run-slow"))


@pytest.fixture(scope="session")
def load():
    """An example image by name and long side, [H, W, 3]."""
    from nst_ops.images.codec import decode, shrink

    def load(name: str, size: int) -> np.ndarray:
        return shrink(decode((IMAGES / f"{name}.jpg").read_bytes()), size).pixels

    return load


@pytest.fixture(scope="session")
def photo(load):
    return load("rocket", 96)


@pytest.fixture(scope="session")
def painting(load):
    return load("cafe_terrace_at_night", 128)
