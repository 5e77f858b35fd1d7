import hashlib
import json

import pytest

from nst_ops.errors import InputError
from pipeline.jobs.job import Job, StyleSource
from pipeline.jobs.shard import Shard
from pipeline.manifest.parts import JobParts
from pipeline.runs.merge import merge_shards

from .conftest import settings, write_manifest


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "m.csv", ["rocket", "cat"], id=["r", "c"])


def test_shards_of_other_settings_are_not_mixed(run_manifest, manifest, tmp_path):
    run_manifest(manifest, shard=Shard(1, 2))
    run_manifest(manifest, settings(tv_weight=3.0), shard=Shard(2, 2))
    with pytest.raises(InputError, match=r"1/2 and 2/2 had different settings: tv_weight was"):
        merge_shards(str(tmp_path / "out"))
    # How the work is done is each machine's own business.
    run_manifest(manifest, settings(checkpoint_seconds=5, memory_limit="4GB"), shard=Shard(2, 2))
    assert merge_shards(str(tmp_path / "out"))["ok"] == 2


def test_shards_of_a_manifest_that_was_rewritten_are_not_mixed(run_manifest, manifest, tmp_path):
    run_manifest(manifest, shard=Shard(1, 2))
    write_manifest(manifest, ["coffee", "cat"], id=["r", "c"])
    run_manifest(manifest, shard=Shard(2, 2))
    with pytest.raises(InputError, match="of one that was changed in between"):
        merge_shards(str(tmp_path / "out"))


def test_shards_of_before_styles_could_be_names_are_of_the_same_manifest():
    job = Job(2, "a", "/a.jpg", (StyleSource("/s.jpg", 2.0),), "a.png")
    recorded = {k: v for k, v in vars(job).items() if k != "keep"} | {"styles": [["/s.jpg", 2.0]]}
    digest = hashlib.sha256(json.dumps([True, recorded]).encode()).hexdigest()
    assert JobParts([job]).sha256 == digest
    named = Job(2, "a", "/a.jpg", (StyleSource("/s.jpg", 2.0, is_file=False),), "a.png")
    assert JobParts([named]).sha256 != digest
