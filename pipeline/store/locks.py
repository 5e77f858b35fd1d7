"""Locks a folder for one run at a time, or for the shards of one manifest side by side.

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

_HEARTBEAT = 5.0  # seconds between two touches of a lock by its owner
_SILENT = 30.0  # seconds without one until a lock of a container with our host name is taken over
_STALE = 120.0  # the same for a lock of another machine


@contextlib.contextmanager
def lock(folder: str, run_id: str, shard: Shard = Shard()) -> Iterator[None]:  # noqa: B008
    """Locks the folder for a run, or for its shard; a lock whose owner is gone is taken over.

    Raises:
      LockedError: another run has it; the message names its owner and its last sign of life.
    """
    path = _path(folder, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "space": _pid_namespace(), "pid": pid, "born": born(pid)}
    owner["run_id"] = run_id
    while True:
        try:
            _take(path, owner)
            break
        except FileExistsError:
            _await_heartbeat(path)
            _refuse_unless_gone(path, folder)
    released = threading.Event()
    heartbeat = threading.Thread(target=_keep_touching, args=(path, owner, released), daemon=True)
    heartbeat.start()
    try:
        # Looked at only now that the own lock is held: of two runs that begin together, at most one
        # goes on.
        for other in _locks(folder):
            if other != path and _shard(other).count != shard.count:
                _refuse_unless_gone(other, folder)
        yield
    finally:
        released.set()
        heartbeat.join()
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def _take(path: Path, owner: dict[str, Any]) -> None:
    """Writes the lock file, or removes it again if it cannot be written, as on a full disk."""
    with path.open("x") as file:
        try:
            json.dump(owner, file)
            file.flush()
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(error.errno, f"cannot be locked ({error.strerror})", str(path)) from error


def _pid_namespace() -> str:
    """Returns this container's process namespace, which tells containers of one host name apart."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _await_heartbeat(path: Path) -> None:
    """Waits until a lock of a container with our host name is touched, or has been silent too long.

    That container may be the one that was restarted as this one.
    """
    before = _last_heartbeat(path)
    while _is_namesake(_owner(path)) and _last_heartbeat(path) == before and _age(path) <= _SILENT:
        time.sleep(_HEARTBEAT / 5.0)


def _is_namesake(owner: dict[str, Any]) -> bool:
    """Says whether the owner has our host name, but a process namespace that we cannot see into."""
    space = _pid_namespace()
    return owner.get("host") == socket.gethostname() and owner.get("space", space) != space


def _keep_touching(path: Path, owner: dict[str, Any], released: threading.Event) -> None:
    """Keeps touching the lock until it is released, or is not its owner's any more."""
    while not released.wait(_HEARTBEAT):
        try:
            if json.loads(path.read_text()) != owner:
                return
            os.utime(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError):  # a slow file server does not mean another owner
            continue


def running(folder: str) -> set[str]:
    """Returns the ids of the runs that hold a lock and are alive."""
    owners = [_owner(path) for path in _locks(folder) if not _is_gone(path)]
    return {owner["run_id"] for owner in owners if "run_id" in owner}


def _refuse_unless_gone(path: Path, folder: str) -> None:
    owner, age = _owner(path), _age(path)
    if _is_gone(path):
        # Renamed before it is removed: another run that found it abandoned too may have put its
        # own lock there by now.
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
    if _is_namesake(owner) or not owner:  # or it is only half written
        return _age(path) > _SILENT
    if owner.get("host") == socket.gethostname() and born(os.getpid()):
        # A restarted container has its old host name, and its processes have their old numbers.
        return born(owner["pid"]) != owner.get("born")
    return _age(path) > _STALE


def born(pid: int) -> str:
    """Returns when a process of this machine began, in clock ticks since the machine's start.

    Returns "" if there is no such process, or no way to tell.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _owner(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # released, or not written yet, or its owner died before
        return {}


def _age(path: Path) -> float:
    """Returns the seconds since the lock was touched last; infinity if it was released."""
    return time.time() - _last_heartbeat(path)


def _last_heartbeat(path: Path) -> float:
    """Returns when the lock was touched last, as `time.time()`; minus infinity without a lock."""
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
