"""What all clusters are given: a manifest, and a folder for their logs."""

import csv
import itertools
import signal

import pytest

from ..conftest import IMAGES

PHOTOS = ("rocket", "cat", "coffee", "astronaut")
PAINTINGS = ("cafe_terrace_at_night", "church_at_auvers", "pere_tanguy", "langlois_bridge", "cat")


@pytest.fixture(scope="session", autouse=True)
def ended_in_order():
    """SIGTERM ends the session as Ctrl-C does, and with it the clusters' processes."""
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", 143))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def logs(tmp_path):
    """A folder for logs, whose ends are printed: pytest shows them if the test fails."""
    folder = tmp_path / "logs"
    folder.mkdir()
    yield folder
    print_ends(folder)


@pytest.fixture
def manifest(tmp_path):
    """Twenty pairs, on lines 2 to 21."""
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["content", "style", "output"])
        for photo, painting in itertools.product(PHOTOS, PAINTINGS):
            rows.writerow([IMAGES / f"{photo}.jpg", IMAGES / f"{painting}.jpg", photo + painting])
    return path


def print_ends(folder):
    """Of the logs in a folder."""
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-20:], sep="\n")
