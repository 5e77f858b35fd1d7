"""What the README tells people to type works, as they type it; with photos of 64 px, so that
defaults take seconds, and without installing anything, which `.ci/run` does.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nst_ops.network.facts import EMBEDDED, LearnedStyle, NetworkFacts, network_facts
from nst_ops.network.model import load_network, make_network, save_network
from nst_ops.network.painter import Painter
from pipeline.cli.main import _COMMANDS

from ..conftest import IMAGES
from ..shell_commands import ROOT, check_command, commands_in
from .conftest import settings, write_manifest

TEXT = (ROOT / "README.md").read_text()
MOBILE = (ROOT / "docs/mobile.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def block(language, part):
    """The one block of a language that contains a text."""
    (found,) = [text for kind, text in BLOCKS if kind == language and part in text]
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the commands expect in their folder, all pictures of 64 px."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("examples/images", "photos/deep", "paintings"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "examples/manifest.csv", folder / "examples")
    for path in IMAGES.iterdir():
        with Image.open(path) as image:
            image.thumbnail((64, 64))
            image.save(folder / "examples/images" / path.name)
    for name, copies in {
        "rocket": ("photo", "photos/rocket", "photos/deep/again"),
        "cafe_terrace_at_night": ("painting", "a", "paintings/cafe"),
        "church_at_auvers": ("b", "paintings/church"),
    }.items():
        for copy in copies:
            shutil.copy(folder / f"examples/images/{name}.jpg", folder / f"{copy}.jpg")
    for name, box in {"sky": (0, 0, 64, 20), "face": (20, 24, 40, 40)}.items():
        mask = Image.new("L", Image.open(folder / "photo.jpg").size)
        mask.paste(255, box)
        mask.save(folder / f"{name}.png")
    return folder


def shell(script, folder):
    """Runs a script as in a terminal whose environment is active; returns what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def summary(folder):
    (path,) = (folder / "runs").glob("*/summary.json")
    return json.loads(path.read_text())


def test_every_block_is_tested_here():
    """By its kind and its first words; a new one wants a test below."""
    assert [(kind, " ".join(text.split()[:3])) for kind, text in BLOCKS] == [
        ("sh", "python3 -m venv"),
        ("sh", "python3 -m venv"),
        ("sh", "source .venv/bin/activate"),
        ("sh", "nst stylize photo.jpg"),
        ("sh", "nst stylize photo.jpg"),
        ("sh", "nst web --port"),
        ("sh", "source <(nst completion"),
        ("python", "import nst_ops def"),
        ("python", "import pyarrow.dataset as"),
        ("sh", "nst run --config"),
    ]


def test_installation():
    """Not done here: that it is what `.ci/run` does, of extras that there are."""
    for text, extra in (("nst run", "."), ("pytest", "'.[dev]'")):
        begin = f"python3 -m venv .venv && .venv/bin/pip install -q {'-e ' * (extra != '.')}{extra}"
        assert block("sh", f".venv/bin/{text}" if extra == "." else text).startswith(begin)
    assert block("sh", "pytest").endswith("&& .venv/bin/python -m pytest -q\n")
    assert "pip install --quiet --disable-pip-version-check -e '.[dev]'" in (
        (ROOT / ".ci/run").read_text()
    )
    packaging = (ROOT / "setup.py").read_text()
    extras = re.findall(r"'\.\[(\w+)\]'", TEXT)
    assert {"dev", "gpu", "aws", "gcp", "export"} <= set(extras)
    assert all(f'"{extra}": ' in packaging for extra in extras)


def test_first_command(clone):
    """Behind the installation; the environment's own nst stands for the new one's."""
    _, _, command = block("sh", ".venv/bin/nst run").rpartition(" && .venv/bin/")
    shell(command, clone)
    found = summary(clone / "out/demo")
    assert (found["ok"], found["failed"]) == (4, 0)
    assert len(list((clone / "out/demo/images").iterdir())) == 4


def test_activation(clone):
    """A folder's .venv, made by venv, has what is sourced there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    script = block("sh", "activate") + "command -v python"
    assert shell(script, clone).strip() == str(clone / ".venv/bin/python")


def test_own_photos(clone):
    shell(block("sh", "nst sweep photo.jpg"), clone)
    with Image.open(clone / "result.png") as one, Image.open(clone / "result.jpg") as other:
        assert one.size == other.size == (64, 43)
    assert len((clone / "manifest.csv").read_text().splitlines()) == 3
    found = summary(clone / "out")
    assert (found["ok"], found["failed"]) == (2, 0)
    assert (clone / "out/images/deep").is_dir()  # it keeps its folders
    assert (clone / "out/runs" / found["run_id"] / "report.html").exists()


def test_in_one_pass(clone):
    """With a network as small as the photos, trained for two steps."""
    small = {"steps": 2, "crop": 64, "batch": 2, "width": 4, "blocks": 1, "octaves": [1]}
    (clone / "configs/train.yaml").write_text(yaml.safe_dump({**small, "style_size": 64}))
    shutil.copy(clone / "examples/images/pere_tanguy.jpg", clone / "new.jpg")
    script = block("sh", "engine=network").replace("steps=1000", "steps=2")
    shell(script, clone)
    with Image.open(clone / "result.png") as image:
        assert image.size == (64, 43)
    assert network_facts(str(clone / "more.keras")).names == ["cafe", "church", "new"]


def test_on_phones_and_in_browsers(clone):
    """Behind what it trains; the page is not served for ever."""
    facts = NetworkFacts((LearnedStyle("cafe", "0"),), 4, 1)
    save_network(str(clone / "mine.keras"), make_network(1, 4, 1), facts)
    script = block("sh", "nst web").replace("nst web --port 8000", "timeout 1 nst web page || true")
    shell(script, clone)
    assert (clone / "page/index.html").exists()
    assert (clone / "phone/paintings.int8.tflite").exists()
    assert (clone / "onnx/mine.onnx").exists()


def test_a_program_paints_with_an_exported_file(clone, monkeypatch):
    """The snippet of docs/mobile.md, behind the export above."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", MOBILE, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(clone)
    Path("result.png").unlink(missing_ok=True)
    exec(compile(snippet, "mobile.md", "exec"), {})
    with Image.open("result.png") as image:
        made = np.asarray(image, np.float32) / 255
    model, facts = load_network(EMBEDDED)
    photo = np.asarray(Image.open("photo.jpg").convert("RGB"), np.float32) / 255
    wanted = Painter(model).paint(photo[None], [facts.weights_of([("cafe", 1.0)])])[0]
    assert np.abs(made - wanted).max() < 0.01


def test_completion(clone):
    """Zsh's line in bash, which counts lists from 0, with zsh's list of folders."""
    (clone / "functions").mkdir()
    (clone / ".config/fish/completions").mkdir(parents=True)
    script = "fpath=('' functions)\n" + block("sh", "nst completion") + "complete -p nst"
    assert "_nst nst" in shell(script, clone)
    assert (clone / "functions/_nst").read_text().startswith("#compdef nst")
    assert "nst" in (clone / ".config/fish/completions/nst.fish").read_text()


def test_python_saves_a_picture(clone, monkeypatch):
    monkeypatch.chdir(clone)
    Path("result.png").unlink(missing_ok=True)
    exec(compile(block("python", "nst_ops.stylize"), "README.md", "exec"), {})
    with Image.open("result.png") as image:
        assert image.size == (64, 43)


def test_python_reads_the_metadata(tmp_path, monkeypatch, capsys, run_manifest):
    manifest = write_manifest(tmp_path / "manifest.csv", ["rocket", tmp_path / "gone.jpg"])
    run_manifest(manifest, settings())
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(compile(block("python", "pyarrow"), "README.md", "exec"), {})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("3 InputError ") and "gone.jpg" in line


def test_cluster_command_is_valid():
    """Its arguments: it needs a cluster."""
    (words,) = commands_in(block("sh", "FlinkRunner"))
    check_command(words)


def test_commands_in_sentences_are_there():
    named = re.findall(r"`nst ([a-z]\w*)", TEXT)
    assert set(named) <= _COMMANDS.keys()
    assert {"doctor", "settings"} <= set(named)
