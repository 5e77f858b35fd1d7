"""A run that is killed again and again ends as if it had run in peace."""

import itertools
import random
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from .conftest import write_manifest

PICTURES, KILLS = 40, 20
SETTINGS = ("size=64", "steps=12", "precision=float32", "batch_size=1", "checkpoint_seconds=0")
TIMES = ("run_id", "worker", "seconds_total", "seconds_optimize", "peak_memory_bytes")


def nst(manifest, folder):
    command = [sys.executable, "-m", "pipeline.cli.main", "run", "--quiet"]
    command += ["--manifest", str(manifest), "--output", str(folder)]
    return command + [word for setting in SETTINGS for word in ("--set", setting)]


def pictures(folder):
    return {p.name: p.read_bytes() for p in (folder / "images").glob("*")}


def made(folder):
    """The rows of pictures that were made, by output: each as often as it was."""
    rows = {}
    for row in pyarrow.parquet.read_table(folder / "metadata").to_pylist():
        if row["status"] == "ok":
            rows.setdefault(row["output"], []).append(row)
    return rows


def timeless(row):
    kept = {k: v for k, v in row.items() if k not in TIMES and not k.endswith("_at")}
    return kept | {"scales": [scale | {"seconds": 0.0} for scale in row["scales"]]}


@pytest.mark.slow
def test_twenty_random_kills(tmp_path):
    names = itertools.islice(itertools.cycle(["rocket", "cat", "coffee", "astronaut"]), PICTURES)
    ids = [f"picture-{index}" for index in range(PICTURES)]
    seeds = [str(index) for index in range(PICTURES)]
    manifest = write_manifest(tmp_path / "manifest.csv", list(names), id=ids, seed=seeds)
    peace, war = tmp_path / "peace", tmp_path / "war"
    started = time.monotonic()
    subprocess.run(nst(manifest, peace), check=True)
    seconds = time.monotonic() - started

    chance = random.Random(0)
    first_seen = {}
    kills = 0
    while kills < KILLS:
        with subprocess.Popen(nst(manifest, war), stderr=subprocess.DEVNULL) as process:
            # From its first second on, and late enough for some pictures.
            time.sleep(chance.uniform(0.0, 0.4 * seconds))
            if process.poll() is not None:
                break
            process.kill()
        kills += 1
        for path in (war / "images").glob("*.png"):
            first_seen.setdefault(path.name, path.stat().st_mtime_ns)
    subprocess.run(nst(manifest, war), check=True)
    print(f"{kills} kills")  # fewer if it ended before
    assert kills >= KILLS // 2

    assert pictures(war) == pictures(peace) and len(pictures(war)) == PICTURES
    written_again = [
        name
        for name, when in first_seen.items()
        if (war / "images" / name).stat().st_mtime_ns > when
    ]
    assert not written_again
    (rows, expected) = made(war), made(peace)
    # Of a picture that was written, but whose row was not yet kept, there is a `cached` one.
    assert rows.keys() <= expected.keys() and len(rows) >= PICTURES - kills
    for output, found in rows.items():
        assert [timeless(row) for row in found] == [timeless(expected[output][0])]
    assert not list((war / "work").rglob("*.npz"))
