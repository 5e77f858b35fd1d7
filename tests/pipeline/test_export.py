"""`nst export` and `nst web`, as they are typed."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import resources

import pytest

from nst_ops.errors import InputError
from nst_ops.export import formats, verification
from nst_ops.network.facts import EMBEDDED, LearnedStyle, NetworkFacts
from nst_ops.network.model import make_network, save_network
from nst_ops.network.thumbnails import read_thumbnails, thumbnail
from pipeline.cli.main import main


@pytest.fixture
def mine(tmp_path, photo):
    """A network of one style, whose painting is known, and of another's, which is not."""
    path = tmp_path / "mine.keras"
    facts = NetworkFacts((LearnedStyle("starry", "0"), LearnedStyle("plain", "1")), 4, 1)
    save_network(str(path), make_network(2, 4, 1), facts, thumbnails={"starry": thumbnail(photo)})
    return path


def test_onnx(mine, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["export", str(mine), "--to", "onnx", "-o", str(folder)]) == 0
    told = json.loads((folder / "mine.json").read_text())
    assert [style["name"] for style in told["styles"]] == ["starry", "plain"]
    assert told["geometry"]["border"] == 16 and told["geometry"]["channels"] == 72
    shown = capsys.readouterr().err
    for name in ("mine.onnx", "mine.tiles.onnx"):
        data = (folder / name).read_bytes()
        assert told["files"][name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert told["files"][name]["largest_error"] < 1e-3
        assert name in shown
    assert sorted(path.name for path in folder.iterdir()) == [
        "mine.json",
        "mine.onnx",
        "mine.tiles.onnx",
    ]


def test_tflite_of_one_precision(mine, tmp_path):
    folder = tmp_path / "out"
    options = ["--to", "tflite", "--precision", "int8", "-o", str(folder)]
    assert main(["export", str(mine), *options]) == 0
    assert {path.name for path in folder.iterdir()} == {"mine.int8.tflite", "mine.json"}


def test_what_is_inexact_leaves_no_file(mine, tmp_path, capsys, monkeypatch):
    never = verification.Tolerance(error=-1.0)
    monkeypatch.setattr(formats, "FLOAT", never)
    assert main(["export", str(mine), "--to", "onnx", "-o", str(tmp_path / "out")]) == 2
    assert re.search(r"mine.*onnx differs from the network at \d+x\d+ px", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_page_has_all_its_files(mine, tmp_path):
    folder = tmp_path / "page"
    for _ in range(2):  # a page is written again over its former self
        assert main(["export", str(mine), "--to", "web", "-o", str(folder)]) == 0
    told = json.loads((folder / "network.json").read_text())
    assert [style["label"] for style in told["styles"]] == ["Starry", "Plain"]
    assert (folder / told["styles"][0]["thumbnail"]).read_bytes() == read_thumbnails(str(mine))[
        "starry"
    ]
    # The painting of the other style is not known: a photo painted in it stands in for it.
    assert (folder / told["styles"][1]["thumbnail"]).read_bytes()[:2] == b"\xff\xd8"
    listed = json.loads((folder / "files.js").read_text().split(" = ")[1].rstrip(";\n"))
    assert all((folder / name).exists() for name in listed["files"])
    for name in re.findall(r'(?:from|src=|href=)\s*"([^"]+)"', _texts(folder)):
        assert (folder / name).is_file(), name


def _texts(folder) -> str:
    return "\n".join(path.read_text() for path in [folder / "index.html", *folder.glob("*.js")])


def test_the_runtime_is_what_its_readme_says():
    from pipeline.web.site import RUNTIME, _package_files

    folder = resources.files("pipeline.web").joinpath("runtime")
    readme = folder.joinpath("README.md").read_text()
    assert readme.startswith(f"# {RUNTIME}\n")
    unpacked = _package_files("runtime")
    assert len(unpacked) == 3
    for name, data in unpacked.items():
        row = f"| {name} | {len(data):,} | {hashlib.sha256(data).hexdigest()} |"
        assert row in readme


@pytest.mark.parametrize("format", ["onnx", "tflite", "web"])
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), "damaged"),
    ],
)
def test_a_network_that_cannot_be_read(mine, tmp_path, capsys, format, spoil, message):
    spoil(mine)
    assert main(["export", str(mine), "--to", format, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and "mine.keras" in error
    assert not (tmp_path / "out").exists()


def test_a_page_that_was_not_written_whole_is_written_again(mine, tmp_path, capsys):
    folder = tmp_path / "page"
    words = ["export", str(mine), "--to", "web", "-o", str(folder)]
    assert main(words) == 0
    (folder / "index.html").unlink()  # what is written last
    (folder / ".nst-0123456789abcdef").write_bytes(b"what a kill leaves")
    (folder / "styles" / "2.jpg").write_bytes(b"of a network of three styles")
    assert main(["web", str(folder)]) == 2
    assert "is no page" in capsys.readouterr().err
    assert main(words) == 0
    assert (folder / "index.html").exists() and not list(folder.glob(".nst-*"))
    assert not (folder / "styles" / "2.jpg").exists()


def test_a_page_is_none_while_it_is_overwritten(mine, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    words = ["export", str(mine), "--to", "web", "-o", str(folder)]
    assert main(words) == 0

    def full(path, **_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pipeline.cli.export.replacing", full)
    assert main(words) == 1
    assert main(["web", str(folder)]) == 2


def test_others_files_are_not_touched(mine, tmp_path, capsys):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("mine")
    assert main(["export", str(mine), "--to", "web", "-o", str(folder)]) == 2
    assert "holds other files than a page of nst" in capsys.readouterr().err
    assert (folder / "index.html").read_text() == "mine"
    assert main(["export", str(mine), "--to", "onnx", "-o", str(folder / "index.html")]) == 2
    assert "is no folder that can be written to" in capsys.readouterr().err
    (folder / "network.json").write_text('{"nodes": []}')  # not ours either
    assert main(["export", str(mine), "--to", "web", "-o", str(folder)]) == 2
    assert main(["web", str(folder)]) == 2
    (folder / "mine.json").write_text("{}")
    assert main(["export", str(mine), "--to", "onnx", "-o", str(folder)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (folder / "mine.json").read_text() == "{}"
    assert main(["export", str(mine), "--to", "onnx", "-o", ""]) == 2
    assert main(["web", str(tmp_path)]) == 2
    assert "is no page that nst export has written" in capsys.readouterr().err


def test_a_precision_is_of_tflite(capsys):
    arguments = ["export", EMBEDDED, "--to", "web", "--precision", "int8", "-o", "x"]
    assert main(arguments) == 2
    assert "--precision is for --to tflite" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_web_serves_a_page_until_it_is_ended(mine, tmp_path, end):
    folder = tmp_path / "page"
    main(["export", str(mine), "--to", "web", "-o", str(folder)])
    command = [sys.executable, "-m", "pipeline", "web", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        address = process.stdout.readline().decode().strip()
        with urllib.request.urlopen(address) as answer:
            assert b"<h1>Paint a photo</h1>" in answer.read()
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            assert (
                "script-src 'self' 'wasm-unsafe-eval'" in answer.headers["content-security-policy"]
            )
        with urllib.request.urlopen(f"{address}runtime/ort-wasm-simd-threaded.wasm") as answer:
            assert answer.headers["content-type"] == "application/wasm"
        for path in ("runtime/", "../mine.keras", "%2e%2e/mine.keras"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)
        port = address.rstrip("/").rpartition(":")[2]
        taken = [*command[:-1], port]
        second = subprocess.run(taken, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and "give another --host or --port" in second.stderr
        process.send_signal(end)
        assert process.wait(timeout=30) == 0


def test_a_page_is_not_overwritten_by_files(mine, tmp_path, capsys):
    folder = tmp_path / "page"
    assert main(["export", str(mine), "--to", "web", "-o", str(folder)]) == 0
    assert main(["export", str(mine), "--to", "onnx", "-o", str(folder)]) == 2
    assert "holds a page" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["nosuch.invalid", "127.0.0.1"])
def test_what_cannot_be_listened_at_is_known_at_once(mine, capsys, host):
    assert main(["web", str(mine), "--host", host, "--port", "99999"]) == 2
    assert "give another --host or --port" in capsys.readouterr().err


def test_exports_need_their_extra(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(formats.NEEDED, "web", ("no_such_package",))
    assert main(["export", str(mine), "--to", "web", "-o", str(tmp_path / "out")]) == 2
    assert "install 'nst[export]'" in capsys.readouterr().err
    with pytest.raises(InputError):
        formats.check_installed("web")
