"""`nst run` on a cluster that loses machines in the middle of a run."""

import pyarrow.parquet
import pytest

from .checks import SECONDS, check, command, lose_the_launcher, pictures_of_workers
from .cluster import cluster, kill, process

pytestmark = [
    pytest.mark.distributed,
    # So Beam's runner takes note that a worker's stream broke.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def test_a_machine_dies(manifest, tmp_path, logs):
    out = tmp_path / "out"
    with cluster(logs, machines=2) as machines:
        with process(command(manifest, out, machines), logs / "nst.log") as nst:
            before = pictures_of_workers(2, nst, out)
            kill(machines.pools[0])
            assert nst.wait(SECONDS) == 0
        assert len(machines.failures) == 1, "the job was not begun again"
    # Of the same run, whose journal has their rows: with their figures.
    check(out, before, status="ok")


def test_the_cluster_dies(manifest, tmp_path, logs):
    out = tmp_path / "out"
    with cluster(logs, machines=1) as machines:
        with process(command(manifest, out, machines), logs / "nst.log") as nst:
            before = pictures_of_workers(1, nst, out)
            kill(machines.pools[0])
            assert nst.wait(SECONDS) == 1
    with cluster(logs, machines=1) as machines:
        with process(command(manifest, out, machines), logs / "nst-again.log") as nst:
            assert nst.wait(SECONDS) == 0
    check(out, before)
    dead, _ = sorted((out / "metadata").iterdir())
    kept = pyarrow.parquet.read_table(dead).to_pylist()
    assert {row["output"] for row in kept} >= before.keys()
    assert {row["status"] for row in kept} == {"ok"}


def test_the_launcher_dies(manifest, tmp_path, logs):
    with cluster(logs, machines=2) as machines:
        lose_the_launcher(machines, manifest, tmp_path / "out", logs)
