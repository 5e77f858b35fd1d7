"""The power fails at every write, one after the other: nothing half is ever under a final name, and
the next run ends as one in peace.
"""

import os
import warnings

import pytest

from nst_ops.images.codec import decode
from pipeline.store import metadata
from pipeline.store.journal import recover_dead_runs
from pipeline.store.progress import Progress

from .conftest import plans, settings, stylizer, write_manifest


class PowerLoss(BaseException):
    """From here on nothing reaches the disk."""


@pytest.fixture
def disk(monkeypatch):
    """Fails at its `disk.fails_at`-th write; counts them."""

    class Disk:
        fails_at, writes = None, 0

    def watched(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            if name != "unlink":  # which only tidies up
                Disk.writes += 1
            if Disk.fails_at is not None and Disk.writes >= Disk.fails_at:
                raise PowerLoss
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "unlink"):
        watched(name)
    return Disk


def stylize(folder, batch):
    progress = Progress(str(folder), "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a checkpoint that is damaged
        return list(stylizer(folder, batch, progress=progress).stylize_batches([batch]))


def test_power_loss_at_any_write(tmp_path, disk):
    manifest = write_manifest(tmp_path / "manifest.csv", ["rocket"])
    batch = plans(manifest, settings(batch_size=1, checkpoint_seconds=0))
    stylize(tmp_path / "peace", batch)
    (peace,) = (tmp_path / "peace/images").glob("*")
    total, expected = disk.writes, peace.read_bytes()
    assert total > 8
    for fails_at in range(1, total + 1):
        folder = tmp_path / str(fails_at)
        disk.writes, disk.fails_at = 0, fails_at
        with pytest.raises(PowerLoss):
            stylize(folder, batch)
        disk.fails_at = None
        for path in folder.glob("images/[!.]*"):
            decode(path.read_bytes())
        for path in folder.glob("work/checkpoints/*.npz"):
            # It was not synced: of what was written, a part may be there.
            os.truncate(path, fails_at * path.stat().st_size // total)
        (row,) = stylize(folder, batch)
        assert row["status"] in ("ok", "cached")
        (picture,) = folder.glob("images/[!.]*")
        assert picture.read_bytes() == expected
        recover_dead_runs(str(folder), list)
        assert len(metadata.read_metadata(str(folder), "run")) == 1
