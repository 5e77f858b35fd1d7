"""What a run reads is there afterwards, and what earlier nights left does no harm."""

import json
import os
import shutil
import socket
import threading
import time

import pytest

from nst_ops.errors import InputError
from pipeline.cli import main
from pipeline.config import loading
from pipeline.config.run_config import RunConfig
from pipeline.errors import LockedError
from pipeline.manifest import reader, rows
from pipeline.manifest.originals import Originals
from pipeline.runs import beam_options, launcher
from pipeline.store import files, locks, records
from pipeline.store.locks import lock

from ..conftest import IMAGES
from .conftest import count_rows, settings, write_manifest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, with photos in a place that a run writes to."""
    (tmp_path / "images").mkdir()
    for name in ("rocket", "cat"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path / "images")
    shutil.copy(IMAGES / "pere_tanguy.jpg", tmp_path / "painting.jpg")
    rows = ["content,style,output", "images/rocket.jpg,painting.jpg,rocket.jpg"]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checksums(folder):
    return {p: p.read_bytes() for p in folder.rglob("*.jpg")}


def refused(capsys, *arguments):
    code = main.main([*map(str, arguments), "--set", "size=48", "--set", "steps=1"])
    message = capsys.readouterr().err
    assert code == 2, message
    return message


def test_a_run_does_not_replace_a_picture_that_a_row_starts_from(folder, capsys):
    (folder / "m.csv").write_text(
        "content,style,output,init\n"
        "images/cat.jpg,painting.jpg,new.jpg,content\n"
        "images/cat.jpg,painting.jpg,rocket.jpg,images/rocket.jpg\n"
    )
    before = checksums(folder)
    arguments = "run", "--manifest", "m.csv", "--output", ".", "--set", "format=jpeg"
    message = refused(capsys, *arguments)
    assert "images/rocket.jpg" in message and checksums(folder) == before


@pytest.mark.parametrize("link", ["none", "symbolic", "hard", "folder"])
def test_a_run_does_not_replace_its_photos(folder, capsys, link):
    before = checksums(folder)
    output = folder
    if link in ("symbolic", "hard"):
        output = folder / "out"
        (output / "images").mkdir(parents=True)
        make = os.symlink if link == "symbolic" else os.link
        make(folder / "images/rocket.jpg", output / "images/rocket.jpg")
    elif link == "folder":
        output = folder / "out"
        output.mkdir()
        os.symlink(folder / "images", output / "images")
    message = refused(
        capsys, "run", "--manifest", "m.csv", "--output", output, "--set", "format=jpeg"
    )
    assert f"{output}/images/rocket.jpg: would replace {folder}/images/rocket.jpg" in message
    assert checksums(folder).items() >= before.items()
    assert not (output / "runs").exists()


@pytest.mark.parametrize("victim", ["images/rocket.jpg", "painting.jpg"])
def test_stylize_does_not_replace_what_it_reads(folder, capsys, victim):
    before = checksums(folder)
    message = refused(capsys, "stylize", "images/rocket.jpg", "painting.jpg", "-o", victim)
    assert f"would replace {victim}" in message and checksums(folder) == before


def test_another_rows_painting_is_an_original_too(folder):
    originals = Originals(str(folder / "images"))
    text = "content,style,output\nimages/cat.jpg,painting.jpg,rocket.jpg\n"
    text += "images/cat.jpg,images/rocket.jpg,other.jpg\n"
    (folder / "m.csv").write_text(text)
    count_rows(str(folder / "m.csv"), settings(format="jpeg"), originals)
    with pytest.raises(InputError, match="images/rocket.jpg: would replace"):
        originals.check()
    alone = Originals(str(folder / "out"))
    count_rows(str(folder / "m.csv"), settings(format="jpeg"), alone)
    alone.check()


@pytest.mark.parametrize(
    ("output", "message"), [("", "give a folder"), ("out[1]", r"takes \[ \] for wildcards")]
)
def test_outputs_that_end_in_tears(folder, capsys, output, message):
    import re

    found = refused(capsys, "run", "--manifest", "m.csv", "--output", output)
    assert re.search(message, found)


@pytest.mark.parametrize("url", ["notaurl", "file:///etc/passwd", "data:,x", "http://"])
def test_only_web_addresses_are_notified(url):
    with pytest.raises(loading.ConfigError, match="notify_url: .* must be a web address"):
        loading.validate({"notify_url": url}, "test")


def test_a_listener_that_drips_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(launcher, "_NOTIFY_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip():
            connection, _ = server.accept()
            with connection:
                while not ended.wait(0.2):
                    connection.sendall(b"H")

        threading.Thread(target=drip, daemon=True).start()
        said, started = [], time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        launcher._notify(url, {"run_id": "x"}, said.append)
        assert time.monotonic() - started < 5.0 and "could not be posted" in said[0]
        ended.set()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["summary.json", "run.json"])
def test_damaged_records_of_old_runs_are_set_aside(run_manifest, tmp_path, damage, name):
    one = write_manifest(tmp_path / "one.csv", ["rocket"])
    first = run_manifest(one)
    record = tmp_path / "out/runs" / first["run_id"]
    (record / name).write_bytes(damage)
    if name == "run.json":
        (record / "summary.json").unlink()  # as of a run that was killed
    with pytest.warns(UserWarning, match=f"{name}: is damaged.*kept as"):
        second = run_manifest(one)
        known = [summary["run_id"] for summary in records.summaries(str(tmp_path / "out"))]
    assert second["cached"] == 1 and known == [second["run_id"]]
    assert (record / f"{name}.damaged").read_bytes() == damage


def test_damaged_metadata_and_journals_do_not_stop_the_next_run(run_manifest, tmp_path):
    bad = write_manifest(tmp_path / "bad.csv", ["rocket", tmp_path / "gone.jpg"])
    first = run_manifest(bad)
    for part in (tmp_path / f"out/metadata/run_id={first['run_id']}").glob("*.parquet"):
        part.write_bytes(part.read_bytes()[:200])
    (tmp_path / "out/work/20200101T000000Z-1-x.rows").write_text('{"run_id": "x"}\n[1]\n{"a"\n')
    with pytest.warns(UserWarning, match="parquet: is damaged"):
        second = run_manifest(bad, retry_failed=False)
    assert (second["cached"], second["failed"]) == (1, 1)
    assert json.loads((tmp_path / "out/runs" / second["run_id"] / "summary.json").read_text())


def test_no_success_without_a_picture(run_manifest, tmp_path):
    gone = write_manifest(tmp_path / "gone.csv", [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    summary = run_manifest(gone)
    assert summary["failed"] == 2
    assert not (tmp_path / "out/runs" / summary["run_id"] / "_SUCCESS").exists()


def test_a_folder_that_cannot_be_written_is_found_at_once(run_manifest, tmp_path):
    one = write_manifest(tmp_path / "one.csv", ["rocket"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").write_text("a file")
    with pytest.raises(loading.ConfigError, match="images.*; give another --output"):
        run_manifest(one)


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks.json, "dump", full)
    with pytest.raises(OSError, match="cannot be locked.*No space left.*work/lock"):
        with lock(str(tmp_path), "one"):
            pass
    assert not (tmp_path / "work/lock").exists()


@pytest.mark.parametrize("living", [True, False])
def test_a_namesake_is_asked_for_a_sign_of_life(tmp_path, monkeypatch, living):
    """Two containers of one name do not see each other's processes."""
    monkeypatch.setattr(locks, "_SILENT", 1.0)
    monkeypatch.setattr(locks, "_HEARTBEAT", 0.2)
    path = tmp_path / "work/lock"
    path.parent.mkdir()
    other = {"host": socket.gethostname(), "space": "pid:[1]", "pid": os.getpid(), "born": "1"}
    path.write_text(json.dumps(other | {"run_id": "theirs"}))
    over = threading.Event()

    def beat():
        while living and not over.wait(0.1):
            os.utime(path)

    threading.Thread(target=beat, daemon=True).start()
    try:
        if living:
            with pytest.raises(LockedError, match="theirs"), lock(str(tmp_path), "mine"):
                pass
        else:
            with lock(str(tmp_path), "mine"):
                assert json.loads(path.read_text())["run_id"] == "mine"
    finally:
        over.set()


def test_the_same_pair_has_one_name_wherever_its_manifest_is(tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    names = set()
    for place, prefix in ((".", ""), ("deep", "../"), ("deep/er", "../../")):
        path = tmp_path / place / "m.csv"
        path.write_text(f"content,style\n{prefix}a.jpg,{prefix}b.jpg\n")
        (job,) = reader.read_manifest(str(path), settings())
        names.add(job.output)
    assert len(names) == 1


@pytest.mark.parametrize("name", ["a\nb.jpg", "tab\there.jpg", "\x1b[31m.jpg", "C:photo.jpg"])
def test_names_of_our_own_are_safe(tmp_path, name):
    row = {"content": name, "style": "s.jpg"}
    job = rows.parse_row(row, 2, str(tmp_path), RunConfig())
    assert job.output.isprintable() and ":" not in job.output and job.content.endswith(name)


def test_what_processes_tell_each_other_takes_no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    beam_options.beam_options([], settings(), 1)
    assert os.environ["no_grpc_proxy"] == "example.org,localhost,127.0.0.1,::1"
    monkeypatch.delenv("no_grpc_proxy")


def test_pictures_that_vanish_in_mid_run_are_not_ok(run_manifest, tmp_path, monkeypatch):
    two = write_manifest(tmp_path / "two.csv", ["rocket", "cat"])
    real, written = files.write, []

    def write(path, data):
        real(path, data)
        if "/images/" in path and not path.endswith("trial"):
            written.append(path)
            if len(written) == 1:
                shutil.rmtree(tmp_path / "out/images")

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(RuntimeError, match="1 pictures that were there are gone"):
        run_manifest(two, settings(batch_size=1))
    (summary,) = records.summaries(str(tmp_path / "out"))
    assert "are gone" in summary["stopped"]
    again = run_manifest(two, settings(batch_size=1))
    assert (again["ok"], again["cached"]) == (1, 1)


def test_a_disk_that_is_too_small_is_told_at_the_start(run_manifest, tmp_path, monkeypatch):
    one = write_manifest(tmp_path / "one.csv", ["rocket"])
    little = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    said = []
    run_manifest(one, warnings=said)
    assert any("1 pictures of up to 64 px may take" in text for text in said)
