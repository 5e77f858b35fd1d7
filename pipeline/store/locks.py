"""One run at a time on a folder, or the shards of one manifest side by side.

A lock is a small file in the run's `work` folder that its owner keeps touching.
"""

import contextlib
import json
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import LockedError
from pipeline.jobs.shard import Shard
from pipeline.store.layout import work_folder

_HEARTBEAT = 5.0  # seconds between two signs of life
_SILENT = 30.0  # the same for a container that has our name, and that we wait for
_STALE = 120.0  # seconds without one after which another machine's lock is taken over


@contextlib.contextmanager
def lock(folder: str, run_id: str, shard: Shard = Shard()) -> Iterator[None]:  # noqa: B008
    """Holds the folder for a run, or for its shard; a lock whose owner is gone is taken over.

    Raises:
      LockedError: another run has it, naming its owner and time.
    """
    path = _path(folder, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "space": _space(), "pid": pid, "born": born(pid)}
    owner["run_id"] = run_id
    while True:
        try:
            _take(path, owner)
            break
        except FileExistsError:
            _await_a_sign_of_life(path)
            _refuse_unless_gone(path, folder)
    released = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, owner, released), daemon=True)
    heart.start()
    try:
        # After taking its own, so that of two that begin together at most one goes on.
        for other in _locks(folder):
            if other != path and _shard(other).count != shard.count:
                _refuse_unless_gone(other, folder)
        yield
    finally:
        released.set()
        heart.join()
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def _take(path: Path, owner: dict[str, Any]) -> None:
    """Writes the lock; on a full disk, it is no lock."""
    with path.open("x") as file:
        try:
            json.dump(owner, file)
            file.flush()
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, f"cannot be locked ({error.strerror})", str(path)) from error


def _space() -> str:
    """What tells containers of one host name apart: each counts its processes by itself."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _await_a_sign_of_life(path: Path) -> None:
    """Of a container that has our name: it may be the one that we are the restart of."""
    first = _last_beat(path)
    while _is_namesake(_owner(path)) and _last_beat(path) == first and _age(path) <= _SILENT:
        time.sleep(_HEARTBEAT / 5.0)


def _is_namesake(owner: dict[str, Any]) -> bool:
    """Whether it has our host's name, but processes that we cannot see."""
    space = _space()
    return owner.get("host") == socket.gethostname() and owner.get("space", space) != space


def _beat(path: Path, owner: dict[str, Any], released: threading.Event) -> None:
    """Signs of life, as long as the lock is still its owner's."""
    while not released.wait(_HEARTBEAT):
        try:
            if json.loads(path.read_text()) != owner:
                return
            os.utime(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError):  # a file server that is slow to answer is no other owner
            continue


def running(folder: str) -> set[str]:
    """Ids of the runs that hold a lock and live."""
    owners = [_owner(path) for path in _locks(folder) if not _is_gone(path)]
    return {owner["run_id"] for owner in owners if "run_id" in owner}


def _refuse_unless_gone(path: Path, folder: str) -> None:
    owner, age = _owner(path), _age(path)
    if _is_gone(path):
        # Renamed first: of two that find it abandoned, one may have a lock there by now.
        aside = path.with_name(f"abandoned-{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if _owner(aside) != owner:
                aside.rename(path)
            aside.unlink(missing_ok=True)
        return
    raise LockedError(
        f"{folder}: run {owner.get('run_id')} (process {owner.get('pid')} on {owner.get('host')}, "
        f"last sign of life {age:.0f} s ago) is at work on this folder; wait for it, or remove "
        f"{path} if you are sure that it is gone"
    )


def _is_gone(path: Path) -> bool:
    owner = _owner(path)
    if _is_namesake(owner) or not owner:  # or it was not written to its end
        return _age(path) > _SILENT
    if owner.get("host") == socket.gethostname() and born(os.getpid()):
        # A container that was restarted has the name and the process number that it had before.
        return born(owner["pid"]) != owner.get("born")
    return _age(path) > _STALE


def born(pid: int) -> str:
    """When a process of this machine began, in the system's own count; "" if there is none, or no
    way to tell.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _owner(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # released, or its owner died or is about to write it
        return {}


def _age(path: Path) -> float:
    """Seconds since the last sign of life; of a lock that was released: none is to come."""
    return time.time() - _last_beat(path)


def _last_beat(path: Path) -> float:
    """As `time.time()`."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return -math.inf


def _path(folder: str, shard: Shard) -> Path:
    name = "lock" if shard.count == 1 else f"lock-{shard.number}-of-{shard.count}"
    return work_folder(folder) / name


def _locks(folder: str) -> list[Path]:
    return sorted(work_folder(folder).glob("lock*"))


def _shard(path: Path) -> Shard:
    match = re.fullmatch(r"lock-(\d+)-of-(\d+)", path.name)
    return Shard(int(match[1]), int(match[2])) if match else Shard()
