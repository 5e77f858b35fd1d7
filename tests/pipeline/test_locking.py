import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from pipeline.errors import LockedError
from pipeline.jobs.shard import Shard
from pipeline.store import locks
from pipeline.store.layout import work_folder
from pipeline.store.locks import lock, running


def test_lock_is_held_once_and_released(tmp_path):
    with lock(str(tmp_path), "one"):
        with (
            pytest.raises(LockedError, match="run one .*is at work"),
            lock(str(tmp_path), "two"),
        ):
            pass
    with lock(str(tmp_path), "three"):
        pass


@pytest.mark.parametrize("owner", ["dead process", "its successor", "silent machine", "damaged"])
def test_abandoned_locks_are_taken_over(tmp_path, owner):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    here = owner in ("dead process", "its successor")
    # A process may get the number that another had, and a container the name.
    pid = os.getpid() if owner == "its successor" else int(gone.stdout)
    lock_of = {"host": os.uname().nodename if here else "elsewhere", "pid": pid, "born": "1"}
    (tmp_path / "work").mkdir()
    path = tmp_path / "work/lock"
    path.write_text("{" if owner == "damaged" else json.dumps(lock_of | {"run_id": "old"}))
    if not here:
        with pytest.raises(LockedError), lock(str(tmp_path), "new"):
            pass
        os.utime(path, (0, 0))
    with lock(str(tmp_path), "new"):
        assert json.loads(path.read_text())["run_id"] == "new"
    assert not path.exists()


def test_heart_beats_through_a_file_server_that_stumbles(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_HEARTBEAT", 0.01)
    path, real, stumbled = tmp_path / "work/lock", locks.Path.read_text, threading.Event()

    def read_text(self, *arguments):
        if self == path and threading.current_thread() is not threading.main_thread():
            if not stumbled.is_set():
                stumbled.set()
                raise OSError(errno.ESTALE, "stale file handle")
        return real(self, *arguments)

    monkeypatch.setattr(locks.Path, "read_text", read_text)
    with lock(str(tmp_path), "one"):
        assert stumbled.wait(10.0)
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10.0
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_shards_of_one_manifest_run_side_by_side(tmp_path):
    folder = str(tmp_path)
    with lock(folder, "one", Shard(1, 3)), lock(folder, "two", Shard(2, 3)):
        assert running(folder) == {"one", "two"}
        for other in (Shard(1, 3), Shard(1, 2), Shard()):
            with pytest.raises(LockedError), lock(folder, "other", other):
                pass
        assert running(folder) == {"one", "two"}
    assert running(folder) == set()


def test_remote_folders_are_locked_on_this_machine():
    folder = f"gs://bucket/{os.getpid()}"
    with lock(folder, "one"), pytest.raises(LockedError), lock(folder, "two"):
        pass
    work_folder(folder).rmdir()
