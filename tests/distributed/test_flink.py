"""`nst run` on a real Flink cluster that loses machines, worker pools and launchers."""

import pytest

from .checks import SECONDS, check, command, lose_the_launcher, pictures_of_workers
from .cluster import kill, process
from .conftest import print_ends
from .flink import flink, missing

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A cluster of two machines, which all tests use one after the other: it starts slowly."""
    # Five restarts without success take half a minute, ten take four.
    settings = {"restart-strategy.exponential-delay.attempts-before-reset-backoff": 5}
    with flink(tmp_path_factory.mktemp("flink"), machines=2, settings=settings) as cluster:
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


def test_a_worker_pool_dies_and_then_a_machine(cluster, manifest, tmp_path, logs):
    out = tmp_path / "out"
    pool, machine = cluster.machines
    with process(command(manifest, out, cluster), logs / "nst.log") as nst:
        pictures_of_workers(2, nst, out)
        kill(pool.pool)
        cluster.start_pool(pool)
        before = pictures_of_workers(4, nst, out)
        lost = len(cluster.failures())
        assert lost, "the job was not begun again"
        cluster.lose(machine)
        cluster.replace(machine)
        assert nst.wait(SECONDS) == 0
    assert len(cluster.failures()) > lost, "the job was not begun again"
    # Of the same run, whose journal has their rows: with their figures.
    check(out, before, status="ok")


def test_a_machine_dies_and_then_a_worker_pool(cluster, manifest, tmp_path, logs):
    # Of an attempt that a lost machine ended, Beam's runner keeps the workers on other machines,
    # and does without new ones when these are dead: all restarts fail, and it takes a new job.
    out = tmp_path / "out"
    machine, pool = cluster.machines
    with process(command(manifest, out, cluster), logs / "nst.log") as nst:
        pictures_of_workers(2, nst, out)
        cluster.lose(machine)
        cluster.replace(machine)
        before = pictures_of_workers(4, nst, out)
        kill(pool.pool)
        cluster.start_pool(pool)
        assert nst.wait(SECONDS) == 0
    check(out, before, status="ok")
    cluster.wait_for_workers_to_end(60.0)  # those, too, that Beam's runner forgot


def test_the_launcher_dies(cluster, manifest, tmp_path, logs):
    lose_the_launcher(cluster, manifest, tmp_path / "out", logs)
