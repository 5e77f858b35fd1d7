import os

import pytest

from nst_ops.engines import memory
from nst_ops.engines.memory import default_limit, plan_memory, predict_bytes
from nst_ops.errors import InputError
from nst_ops.settings import HISTORY, Settings

SETTINGS = Settings()


def test_tiles_only_when_needed_and_no_smaller():
    whole = plan_memory((512, 512), SETTINGS, limit=20 * 10**9)
    assert whole.tile is None and whole.history == HISTORY
    tight = plan_memory((2048, 2048), SETTINGS, limit=3 * 10**9)
    loose = plan_memory((2048, 2048), SETTINGS, limit=9 * 10**9)
    assert tight.tile and loose.tile and tight.tile < loose.tile


@pytest.mark.parametrize("limit", [2, 4, 6, 10, 40])
@pytest.mark.parametrize("size", [(64, 64), (1000, 1500), (4096, 4096)])
def test_plans_keep_the_limit(size, limit):
    try:
        plan = plan_memory(size, SETTINGS, limit=limit * 10**9)
    except InputError:
        adam = SETTINGS.model_copy(update={"optimizer": "adam"})
        assert predict_bytes(size, adam, tile=256) > limit * 10**9
        return
    assert plan.bytes <= limit * 10**9
    chosen = SETTINGS.model_copy(update={"optimizer": plan.optimizer})
    assert plan.bytes == predict_bytes(size, chosen, tile=plan.tile, history=plan.history)


def test_a_print_fits_into_six_gigabytes():
    plan = plan_memory((4096, 4096), SETTINGS, limit=6 * 10**9)
    assert plan.tile is not None and "in tiles of" in str(plan)
    assert plan.optimizer == "lbfgs" and 3 <= plan.history < HISTORY


def test_adam_where_no_history_fits():
    plan = plan_memory((8192, 8192), SETTINGS, limit=10**10)
    assert plan.optimizer == "adam" and plan.tile and "Adam" in str(plan)


@pytest.mark.parametrize("tiling", ["auto", 512])
def test_a_picture_no_larger_than_a_tile_is_whole(tiling):
    assert plan_memory((512, 300), SETTINGS, limit=10**10, tiling=tiling).tile is None


def test_given_tiling_is_kept():
    assert plan_memory((512, 512), SETTINGS, limit=10**10, tiling=256).tile == 256
    assert plan_memory((2048, 2048), SETTINGS, limit=3 * 10**10, tiling="off").tile is None


def test_what_does_not_fit_says_what_would_help():
    with pytest.raises(InputError, match="memory_limit.*tiling: auto"):
        plan_memory((4096, 4096), SETTINGS, limit=10**9, tiling="off")


@pytest.fixture
def asked_anew(monkeypatch):
    monkeypatch.setattr(memory, "cuda_is_installed", lambda: True)
    default_limit.cache_clear()
    yield
    default_limit.cache_clear()


def test_default_limit_is_below_what_is_there(asked_anew, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert 10**8 < default_limit() < 10**15


def test_files_that_were_read_leave_a_container_its_memory(asked_anew, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 200000\nactive_file 400000\ninactive_file 300000\n")
    assert default_limit() == int(0.7 * 800_000)


def test_a_driver_alone_is_no_gpu(asked_anew, monkeypatch):
    monkeypatch.setattr(memory, "cuda_is_installed", lambda: False)
    monkeypatch.setattr(memory.subprocess, "run", lambda *a, **k: pytest.fail("asked the driver"))
    assert 10**8 < default_limit() < 10**15


def test_default_limit_is_the_gpus_where_there_is_one(asked_anew, monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=3*) echo 40000;; *) echo 10;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert default_limit() == int(0.7 * 40000 * 2**20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_limit() == int(0.7 * 40000 * 2**20)  # what was once found stays
