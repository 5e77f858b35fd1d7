"""A run on a cluster: its command, how far it is, and whether all is there in the end."""

import hashlib
import sys
import time

import pyarrow.parquet

from nst_ops.images.codec import decode

from .cluster import kill, process

# A picture takes about a second; each is a batch, so that workers share them out.
SETTINGS = ("size=96", "steps=6", "precision=float32", "batch_size=1")
SECONDS = 240  # after which something hangs


def command(manifest, out, machines):
    """What the run's operator types."""
    words = [sys.executable, "-m", "pipeline.cli.main", "run", "--verbose", *machines.options]
    words += ["--manifest", str(manifest), "--output", str(out)]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


def lose_the_launcher(machines, manifest, out, logs):
    """Kills `nst` in the middle of a run, and runs it again on the machines, which go on."""
    with process(command(manifest, out, machines), logs / "nst.log") as nst:
        before = pictures_of_workers(2, nst, out)
        kill(nst)
    with process(command(manifest, out, machines), logs / "nst-again.log") as nst:
        assert nst.wait(SECONDS) == 0
    machines.wait(SECONDS)  # for the first job, which nobody waits for
    check(out, before)
    orphan, _ = sorted((out / "metadata").iterdir())
    assert lines(orphan) == list(range(2, 22))


def pictures_of_workers(count, nst, out):
    """What is there when so many workers, dead ones too, have written rows, and some pictures."""
    for _ in range(SECONDS):
        done = digests(out)
        if len(list((out / "work").glob("*.rows"))) >= count and len(done) >= 5:
            assert len(done) < 20, "too late to kill a machine in the middle of the run"
            return done
        assert nst.poll() is None, "nst ended before a machine died"
        time.sleep(1)
    raise AssertionError(f"{count} workers did not make five pictures")


def digests(out):
    """Time and digest of the pictures' files, by name."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in (out / "images").glob("*.png")
    }


def check(out, before, status="cached"):
    """Every picture is there and whole, what was done has not been touched, and the last run's
    metadata has every line of the manifest once.

    Args:
      status: of the rows of what was done.
    """
    pictures = digests(out)
    assert len(pictures) == 20
    assert before.items() <= pictures.items(), "a picture that was done was written again"
    for name in pictures:
        data = (out / "images" / name).read_bytes()
        assert max(decode(data, path=name).pixels.shape) == 96
    last = max((out / "metadata").iterdir())
    assert lines(last) == list(range(2, 22))
    rows = pyarrow.parquet.read_table(last).to_pylist()
    assert {row["status"] for row in rows} <= {"ok", "cached"}
    assert {row["output"] for row in rows if row["status"] == status} >= before.keys()
    assert all(row["loss_last"] is not None for row in rows if row["status"] == "ok")


def lines(metadata):
    """Of the manifest, as one run's metadata has them."""
    return sorted(pyarrow.parquet.read_table(metadata)["manifest_line"].to_pylist())
