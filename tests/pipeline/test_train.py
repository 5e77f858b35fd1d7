"""`nst train` as a user runs it: a network, its samples, going on after an end of any kind."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from nst_ops.network.facts import network_facts
from nst_ops.network.model import load_network
from nst_ops.network.thumbnails import read_thumbnails

from ..conftest import IMAGES

SMALL = {
    "crop": 64,
    "batch": 2,
    "width": 4,
    "blocks": 1,
    "style_size": 96,
    "octaves": "[1]",
    "checkpoint_seconds": 0,
}


def command(output, *words, styles=("pere_tanguy",), steps=6, **changes):
    found = [sys.executable, "-m", "pipeline", "train", "--content", str(IMAGES / "c*.jpg")]
    found += ["--style", *(str(IMAGES / f"{style}.jpg") for style in styles), "-o", str(output)]
    for key, value in {**SMALL, "steps": steps, **changes}.items():
        found += ["--set", f"{key}={value}"]
    return [*found, *map(str, words)]


def nst(words, code=0):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that was trained at one go."""
    path = tmp_path_factory.mktemp("trained") / "mine.keras"
    assert "mine.keras: 6 steps" in nst(command(path, styles=("pere_tanguy", "church_at_auvers")))
    return path


def test_a_network_and_its_samples(trained, tmp_path):
    facts = network_facts(str(trained))
    assert facts.names == ["church_at_auvers", "pere_tanguy"]
    assert facts.training["steps"] == 6 and facts.training["photos"] == 4
    assert facts.training["settings"]["crop"] == 64
    assert str(IMAGES) not in facts.to_json()
    for thumbnail in read_thumbnails(str(trained)).values():
        assert max(Image.open(io.BytesIO(thumbnail)).size) == SMALL["style_size"]
    folder = trained.with_suffix(".training")
    with Image.open(folder / "samples.png") as sheet:
        assert min(sheet.size) > 256
    page = (folder / "index.html").read_text()
    assert "samples.png" in page and "<polyline" in page and "6 of 6" in page
    settings = ("--set", "engine=network", "--set", f"network={trained}", "--set", "size=64")
    words = [sys.executable, "-m", "pipeline", "stylize", IMAGES / "cat.jpg", "pere"]
    nst([*words, "-o", tmp_path / "x.png", *settings])


def test_the_same_again_changes_nothing(trained):
    before = trained.read_bytes()
    nst(command(trained, styles=("pere_tanguy", "church_at_auvers")))
    assert trained.read_bytes() == before
    changed = command(trained, styles=("pere_tanguy", "church_at_auvers"), seed=9)
    assert "was begun with other seed (0); remove" in nst(changed, code=2)


def test_a_network_can_be_trained_longer(trained, tmp_path):
    path = tmp_path / "mine.keras"
    shutil.copytree(trained.with_suffix(".training"), path.with_suffix(".training"))
    both = ("pere_tanguy", "church_at_auvers")
    assert "7 steps" in nst(command(path, styles=both, steps=7, learning_rate=1e-3))
    assert network_facts(str(path)).training["settings"]["learning_rate"] == 1e-3


def test_killed_and_gone_on_with_it_ends_with_the_same_weights(trained, tmp_path):
    path = tmp_path / "mine.keras"
    words = command(path, styles=("pere_tanguy", "church_at_auvers"))
    checkpoint = path.with_suffix(".training") / "checkpoint.npz"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not path.exists()
    nst(words)
    mine, whole = (load_network(str(each))[0].get_weights() for each in (path, trained))
    assert [w.tolist() for w in mine] == [w.tolist() for w in whole]


def test_stopped_in_order(tmp_path):
    path = tmp_path / "mine.keras"
    words = command(path, steps=100_000)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not list(path.with_suffix(".training").glob("check*")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 4 and "run the same command again to go on" in said
    assert not path.exists() and (path.with_suffix(".training") / "samples.png").exists()
    said = nst(command(path, "--max_hours", "0", steps=100_000), code=4)
    assert "stopped at step" in said and "stopped at step 1 " not in said


def test_more_styles_are_added(trained, tmp_path):
    path = tmp_path / "more.keras"
    nst(command(path, "--add_to", trained, styles=("langlois_bridge",), steps=3))
    facts, before = network_facts(str(path)), network_facts(str(trained))
    assert facts.names == ["church_at_auvers", "pere_tanguy", "langlois_bridge"]
    assert facts.training["base"] == {"sha256": before.sha256, **before.training}
    assert read_thumbnails(str(path)).items() >= read_thumbnails(str(trained)).items()
    assert list(read_thumbnails(str(path))) == facts.names
    said = nst(command(path, "--add_to", trained, styles=("pere_tanguy",), steps=3), code=2)
    assert "has a style 'pere_tanguy' already" in said


def test_bad_photos_are_counted(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.open(IMAGES / "cat.jpg").save(tmp_path / "good.jpg")
    words = command(tmp_path / "mine.keras", steps=2)
    words[words.index("--content") + 1] = str(tmp_path / "*.jpg")
    said = nst(words)
    assert "of no use" in said and "bad.jpg" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 100}, "crop: 100 is not usable"),
        ({"stepps": 3}, "unknown key 'stepps'; did you mean 'steps'?"),
        ({"style_size": 64}, "pere_tanguy.jpg: a painting of"),
        ({"octaves": "[0]"}, "all weights are 0"),
        ({"octaves": "[1, 1, 1]"}, "crop: 64 px is too small for 3 octaves"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    change = {"octaves": "[1, 1]", **change} if "style_size" in change else change
    assert message in nst(command(tmp_path / "mine.keras", **change), code=2)


def test_bad_files(tmp_path, trained):
    assert "ends in .keras" in nst(command(tmp_path / "mine.h5"), code=2)
    words = command(tmp_path / "mine.keras")
    words[words.index("--content") + 1] = str(tmp_path / "none*.jpg")
    assert "--content" in (said := nst(words, code=2)) and "matches no file" in said
    os.link(IMAGES / "rocket.jpg", tmp_path / "other.keras")
    assert "is there already" in nst(command(tmp_path / "other.keras"), code=2)
    said = nst(command(trained, "--add_to", trained, styles=("langlois_bridge",)), code=2)
    assert "is the network to learn more" in said
    shutil.copy(IMAGES / "pere_tanguy.jpg", tmp_path / "again.jpg")
    words = command(tmp_path / "mine.keras")
    words.insert(words.index("--style") + 1, str(tmp_path / "again.jpg"))
    assert "is the painting of the style" in nst(words, code=2)


def test_its_own_files_are_no_photos(tmp_path):
    shutil.copy(IMAGES / "cat.jpg", tmp_path)
    words = command(tmp_path / "mine.keras", steps=2)
    words[words.index("--content") + 1] = str(tmp_path / "**")
    nst(words)
    assert "photos: 1;" in nst(words)
