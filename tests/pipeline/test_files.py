"""Local files: whole or not at all, whatever the disk does. (Stores: `test_object_store`.)"""

import errno
import os
import re
import resource
import subprocess
import sys

import pytest

from nst_ops.errors import InputError
from pipeline.store import files

# Run as a process of its own: the limit is the kernel's, and for good.
_WRITE_UNDER_A_LIMIT = """
import resource, signal, sys
from pipeline.store import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
files.write(sys.argv[1], b"new" * 100_000)
"""


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_write_replaces_whole_and_makes_folders(tmp_path):
    path = tmp_path / "a/b/c.bin"
    files.write(str(path), b"old")
    files.write(str(path), b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a", "a/b", "a/b/c.bin"]


def test_new_files_have_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(str(tmp_path / "a"), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_at_the_name_is_replaced_not_followed(tmp_path):
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    files.write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_bytes() == b"new"


def test_the_kernels_limit_leaves_the_old_file(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", _WRITE_UNDER_A_LIMIT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    expected = f"OSError: [Errno {errno.EFBIG}] cannot be written (File too large): '{path}'"
    assert expected in done.stderr
    assert path.read_bytes() == b"old" and names(tmp_path) == ["picture.png"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "a temporary name")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write(str(tmp_path / "a"), b"new")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        files.write(str(disk / "a"), b"old")
        with pytest.raises(OSError, match=re.escape(str(disk / "a"))) as caught:
            files.write(str(disk / "a"), b"new" * 100_000)
        assert caught.value.errno == errno.ENOSPC
        assert (disk / "a").read_bytes() == b"old" and names(disk) == ["a"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # whom permissions do not stop: /proc takes no files from anybody
        with pytest.raises(OSError, match="/proc/x") as caught:
            files.write("/proc/x", b"")
    else:
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="cannot be written"):
            files.write(str(tmp_path / "x"), b"")
        return
    assert caught.value.filename == "/proc/x"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "a/b", tmp_path / "a/b/c", tmp_path / "folder"):
        with pytest.raises(OSError, match="cannot be written") as caught:
            files.write(str(path), b"new")
        assert caught.value.filename == str(path)
    assert names(tmp_path) == ["a", "folder"]


def test_interrupted_writes_leave_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.replacing(str(tmp_path / "a")) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_names_are_synced_too(tmp_path, monkeypatch):
    """A power cut must not take back a name: every folder that got one is synced."""
    synced = []

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write(str(tmp_path / "a/b/c"), b"x")
    folders = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")]
    assert [path for path in synced if not os.path.basename(path).startswith(".nst-")] == folders
    assert len(synced) == 4  # and the file, before it got its name
    assert ".nst-" in synced[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a folder, pipe or device"),
        (lambda path: os.mkfifo(path), "is a folder, pipe or device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a folder, pipe or device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to(path.parent / "gone"), "No such file"),
    ],
)
def test_what_cannot_be_read(tmp_path, make, message):
    path = tmp_path / "photo.jpg"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        files.read(str(path), 1000)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800", "", "nothing://a/b", "s3:///"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(InputError, match="cannot be read"):
        files.read(name)


def test_large_files_are_refused_unread(tmp_path):
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="huge.tif: is larger than max_file_bytes = 500000000"):
        files.read(str(path), 500_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_the_limit_is_exact(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read(str(tmp_path / "a"), 5) == files.read(str(tmp_path / "a")) == b"12345"
    with pytest.raises(InputError, match="max_file_bytes = 4"):
        files.read(str(tmp_path / "a"), 4)


def test_listing(tmp_path):
    folder = tmp_path / "[2024] *"  # no pattern, though it looks like one
    for name in ("runs/b/summary.json", "runs/a/summary.json", "runs/a/_SUCCESS", "runs/c"):
        files.write(str(folder / name), b"x")
    assert files.listing(str(folder), "runs/*/summary.json") == [
        "runs/a/summary.json",
        "runs/b/summary.json",
    ]
    assert files.listing(str(folder), "runs/*") == ["runs/c"]  # files only
    assert files.listing(str(tmp_path / "gone"), "*") == []


@pytest.mark.parametrize(
    ("path", "folder", "resolved"),
    [
        ("a.jpg", "/m", "/m/a.jpg"),
        ("/a.jpg", "/m", "/a.jpg"),
        ("s3://b/a.jpg", "/m", "s3://b/a.jpg"),
        ("a.jpg", "s3://b", "s3://b/a.jpg"),
        ("../photos/./a.jpg", "s3://b/lists", "s3://b/photos/a.jpg"),
        ("a.jpg", "gs://b/lists/", "gs://b/lists/a.jpg"),
    ],
)
def test_resolve(path, folder, resolved):
    assert files.resolve(path, folder) == resolved
