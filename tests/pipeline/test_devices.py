"""What a machine has: memory, containers' limits, GPUs."""

import sys
import types

import pytest

from pipeline.machine import devices


class NVMLError(Exception):
    pass


@pytest.fixture
def asked_anew(monkeypatch):
    monkeypatch.setattr(devices, "cuda_is_installed", lambda: True)
    asked = (devices.default_memory_limit, devices.visible_gpus, devices._gpus_of_machine)
    for each in asked:
        each.cache_clear()
    yield
    for each in asked:
        each.cache_clear()


@pytest.fixture
def driver(monkeypatch):
    """One that knows five GPUs, of which number 3 has 40,000 MiB free."""

    def device(number):
        if number > 4:
            raise NVMLError("Not Found")
        return number

    module = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 5,
        nvmlDeviceGetHandleByIndex=device,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-a": 3}[uuid],
        nvmlDeviceGetMemoryInfo=lambda number: types.SimpleNamespace(
            free=(40000 if number == 3 else 10) * 2**20
        ),
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_default_limit_is_below_what_is_there(asked_anew, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    total = devices.os.sysconf("SC_PAGE_SIZE") * devices.os.sysconf("SC_PHYS_PAGES")
    assert 10**8 < devices.default_memory_limit() <= 0.7 * total


def test_files_that_were_read_leave_a_container_its_memory(asked_anew, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(devices, "_CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 200000\nactive_file 400000\ninactive_file 300000\n")
    assert devices.default_memory_limit() == int(0.7 * 800_000)


def test_a_container_has_its_share_of_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_CONTAINER", tmp_path)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert devices.cores() == 1


def test_a_driver_alone_is_no_gpu(asked_anew, driver, monkeypatch):
    monkeypatch.setattr(devices, "cuda_is_installed", lambda: False)
    monkeypatch.setattr(driver, "nvmlInit", lambda: pytest.fail("asked the driver"))
    assert devices.gpus() == 0 and devices.default_memory_limit() > 10**8


@pytest.mark.parametrize("visible", ["3,4", "GPU-a"])
def test_default_limit_is_the_gpus_where_there_is_one(asked_anew, driver, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.default_memory_limit() == int(0.7 * 40000 * 2**20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.default_memory_limit() == int(0.7 * 40000 * 2**20)  # what was once found stays


def test_a_gpu_that_is_not_there_leaves_the_machines_memory(asked_anew, driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert devices._free_gpu_bytes() is None and devices.default_memory_limit() > 10**8


def test_gpus_are_those_that_the_driver_counts(asked_anew, driver, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(("visible", "count"), [("2,3", 2), ("-1", 0), ("", 0), ("GPU-a,1", 2)])
def test_gpus_are_those_that_may_be_seen(asked_anew, driver, monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus() == count


def test_without_the_drivers_package_there_are_no_gpus(asked_anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.gpus() == 0
