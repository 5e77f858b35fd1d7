"""`nst run` on a real Flink cluster."""

import pytest

from .checks import SECONDS, check, command, pictures_of_workers
from .cluster import process
from .conftest import print_ends
from .flink import flink, missing

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A cluster of two machines, which all tests use one after the other: it starts slowly."""
    with flink(tmp_path_factory.mktemp("flink"), machines=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(started, logs):
    """With nothing at work on it."""
    started.wait_for_slots()
    yield started
    print_ends(started.folder)


def test_a_night_in_peace(cluster, manifest, tmp_path, logs):
    out = tmp_path / "out"
    words = [*command(manifest, out, cluster), "--flink_submit_uber_jar"]
    with process(words, logs / "nst.log") as nst:
        # Nobody may do the other's work.
        pictures_of_workers(2, nst, out)
        assert nst.wait(SECONDS) == 0
    assert not cluster.failures()
    check(out, {})
