import os
import subprocess
import sys

import pytest

from pipeline.machine import devices, parallelism, tensorflow_setup

from .conftest import settings


@pytest.mark.parametrize(
    ("size", "cores", "rows", "expected"),
    [
        (256, 8, 1000, 8),  # small pictures: a process a core
        (1024, 8, 1000, 4),
        (4096, 8, 1000, 1),  # one picture keeps all cores busy
        (256, 8, 9, 2),  # too few rows to be worth more starts
        (256, 8, 1, 1),
        (256, 1, 1000, 1),
    ],
)
def test_processes_by_picture_size_and_rows(monkeypatch, size, cores, rows, expected):
    monkeypatch.setattr(parallelism, "cores", lambda: cores)
    monkeypatch.setattr(parallelism, "default_memory_limit", lambda: 10**12)
    config = settings(size=size, scales="auto", parallelism="auto")
    assert parallelism.processes(config, rows) == expected


def test_processes_by_memory_gpus_and_order(monkeypatch):
    monkeypatch.setattr(parallelism, "cores", lambda: 64)
    monkeypatch.setattr(parallelism, "default_memory_limit", lambda: 5 * 10**9)
    config = settings(size=256, scales="auto", parallelism="auto")
    assert 1 < parallelism.processes(config, 1000) < 6
    monkeypatch.setattr(parallelism, "gpus", lambda: 2)
    assert parallelism.processes(config, 1000) == 2
    assert parallelism.processes(settings(parallelism=7), 1) == 7


@pytest.mark.parametrize(
    ("processes", "seen"), [(2, ["3", "5"]), (4, ["3", "3", "5", "5"]), (3, ["3", "3", "5"])]
)
def test_processes_spread_over_gpus(request, monkeypatch, tmp_path, processes, seen):
    monkeypatch.setattr(devices, "cuda_is_installed", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    devices.visible_gpus.cache_clear()
    request.addfinalizer(devices.visible_gpus.cache_clear)
    monkeypatch.setattr(tensorflow_setup.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tensorflow_setup, "_claims", [])
    sharers, found = parallelism.on_one_gpu(processes), []
    for _ in range(processes):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        tensorflow_setup._see_one_gpu(sharers)
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    for file in tensorflow_setup._claims:
        file.close()
    assert sorted(found) == seen
    config = settings()
    monkeypatch.setattr(parallelism, "default_memory_limit", lambda: 12 * 10**9)
    assert parallelism.memory_limit(config, processes) == 12 * 10**9 // sharers


def test_each_process_takes_another_turn(tmp_path):
    """As with GPUs: a turn is free again when its process is gone, however it went."""
    program = (
        "import sys; from pipeline.machine.tensorflow_setup import claim_one;"
        "print(claim_one('012', 'nst-test'), flush=True); sys.stdin.read()"
    )
    environment = {"TMPDIR": str(tmp_path), "PATH": ""}

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdin=-1, stdout=-1, text=True
        )

    def turn(process):
        return int(process.stdout.readline())

    started = [start() for _ in range(3)]
    turns = list(map(turn, started))
    assert sorted(turns) == [0, 1, 2]
    late = start()
    assert turn(late) == 2  # shared, rather than none
    gone = turns.index(1)  # whose turn nobody shares
    started[gone].kill()
    started[gone].wait()
    again = start()
    assert turn(again) == 1
    for process in (*started, late, again):
        process.kill()
        process.communicate()


def test_processes_divide_the_cores():
    program = (
        "from pipeline.machine import tensorflow_setup; tensorflow_setup.cores = lambda: 8;"
        "tensorflow_setup.start_tensorflow(4);"
        "import tensorflow as tf; print(tf.config.threading.get_intra_op_parallelism_threads())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr
