"""`engine: network` in runs, `nst stylize` and `nst validate`: styles by name and by painting."""

import subprocess
import sys

import numpy as np
import pyarrow.dataset
import pytest
from PIL import Image

from nst_ops.engines.network import NetworkEngine, NetworkSettings
from nst_ops.errors import InputError
from nst_ops.images.codec import decode, probe
from nst_ops.network.facts import LearnedStyle, NetworkFacts
from nst_ops.network.model import make_network, save_network

from ..conftest import IMAGES

PHOTOS = ("rocket", "cat", "coffee", "astronaut")
SETTINGS = ("--set", "engine=network", "--set", "size=64")


def nst(*words, code=0):
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def manifest_of(tmp_path, rows):
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["content,style,strength,id", *rows, ""]))
    return path


def metadata(folder):
    runs = sorted((folder / "metadata").iterdir())
    return pyarrow.dataset.dataset(runs[-1]).to_table().sort_by("manifest_line").to_pylist()


def pixels(path):
    return decode(path.read_bytes()).pixels


def test_a_run_by_name_by_painting_and_by_strength(tmp_path):
    painting = IMAGES / "pere_tanguy.jpg"
    rows = [
        f"{IMAGES}/cat.jpg,pere_tanguy,,named",
        f"{IMAGES}/cat.jpg,{painting},,painting",
        f"{IMAGES}/cat.jpg,pere,0,photo",
        f'{IMAGES}/cat.jpg,"[{{""path"": ""pere"", ""weight"": 3}}, ""church_at_auvers""]",,blend',
        f"{IMAGES}/cat.jpg,starry,,unknown",
        f"{IMAGES}/cat.jpg,{IMAGES}/coffee.jpg,,unlearned",
    ]
    folder = tmp_path / "out"
    words = ("run", "--manifest", manifest_of(tmp_path, rows), "--output", folder, *SETTINGS)
    said = nst(*words, code=3)
    assert "4 ok" in said and "2 failed" in said
    assert "starry: cannot be read" in said
    assert said.count("the engine 'network' has learned cafe_terrace_at_night") == 2
    named, painted, photo, blend, *failed = metadata(folder)
    assert named["style_sha256"] == painted["style_sha256"]
    assert named["spec_hash"] == painted["spec_hash"] != photo["spec_hash"]
    assert len(named["network_sha256"]) == 64 and named["seconds_paint"] > 0
    assert {row["status"] for row in failed} == {"failed"}
    images = {row: pixels(folder / f"images/{row}.png") for row in ("named", "photo", "blend")}
    assert (folder / "images/painting.png").read_bytes() != b""
    np.testing.assert_array_equal(pixels(folder / "images/painting.png"), images["named"])
    own = decode((IMAGES / "cat.jpg").read_bytes(), long_side=64).pixels
    np.testing.assert_allclose(images["photo"], own, atol=1 / 255)
    assert np.abs(images["named"] - own).mean() > 0.05
    assert 0.01 < np.abs(images["blend"] - images["named"]).mean()
    provenance = probe((folder / "images/named.png").read_bytes()).provenance
    assert provenance["spec_hash"] == named["spec_hash"]
    assert "4 cached" in nst(*words, code=3)


def test_stylize_and_validate(tmp_path):
    said = nst("stylize", IMAGES / "cat.jpg", "church", "-o", tmp_path / "x.jpg", *SETTINGS)
    assert "in one pass" in said
    assert probe((tmp_path / "x.jpg").read_bytes()).size == (43, 64)
    rows = [f"{IMAGES}/{photo}.jpg,church,,{photo}" for photo in PHOTOS]
    said = nst("validate", "--manifest", manifest_of(tmp_path, rows), *SETTINGS)
    assert "4 rows, 0 problems" in said and "time of one process" in said
    rows = [f"{IMAGES}/cat.jpg,{IMAGES}/coffee.jpg,,x", f"{IMAGES}/cat.jpg,nothing,,y"]
    said = nst("validate", "--manifest", manifest_of(tmp_path, rows), *SETTINGS, code=2)
    assert "no painting that the network has learned" in said and "nothing: cannot be read" in said


def test_pictures_of_one_shape_are_painted_together(tmp_path):
    rows = []
    for number in range(5):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 64, 3), np.uint8)).save(
            tmp_path / f"{number}.png"
        )
        rows.append(f"{tmp_path}/{number}.png,church,,{number}")
    folder = tmp_path / "out"
    nst("run", "--manifest", manifest_of(tmp_path, rows), "--output", folder, *SETTINGS,
        "--set", "batch_size=5", "--set", "parallelism=1")  # fmt: skip
    assert [row["batch_size"] for row in metadata(folder)] == [5] * 5
    alone = tmp_path / "alone.png"
    nst("stylize", tmp_path / "3.png", "church", "-o", alone, *SETTINGS)
    np.testing.assert_allclose(pixels(alone), pixels(folder / "images/3.png"), atol=1 / 255)


def test_a_network_of_ones_own(tmp_path):
    path = tmp_path / "mine.keras"
    save_network(str(path), make_network(1, 4, 1), NetworkFacts((LearnedStyle("mine", "0"),), 4, 1))
    own = (*SETTINGS, "--set", f"network={path}")
    nst("stylize", IMAGES / "cat.jpg", "mine", "-o", tmp_path / "x.png", *own)
    said = nst("stylize", IMAGES / "cat.jpg", "church", "-o", tmp_path / "y.png", *own, code=2)
    assert "the engine 'network' has learned mine" in said
    path.write_bytes(path.read_bytes()[:-100])
    said = nst("stylize", IMAGES / "cat.jpg", "mine", "-o", tmp_path / "y.png", *own, code=2)
    assert "mine.keras: damaged" in said
    said = nst("stylize", IMAGES / "cat.jpg", "mine", "-o", tmp_path / "y.png", *SETTINGS,
               "--set", f"network={tmp_path}/gone.keras", code=2)  # fmt: skip
    assert "gone.keras: the network cannot be read" in said


def test_masks_are_refused(tmp_path):
    said = nst("stylize", IMAGES / "cat.jpg", "church", "-o", tmp_path / "x.png", *SETTINGS,
               "--keep", IMAGES / "cat.jpg", code=2)  # fmt: skip
    assert "takes no masks" in said


def test_memory_is_planned_by_size():
    engine = NetworkEngine(NetworkSettings())
    small, large = (engine.plan((side, side), limit=1e12).bytes for side in (512, 8192))
    assert small < 1.2e9 and large < 5e9
    with pytest.raises(InputError, match="more than the 1.0 GB of memory_limit") as caught:
        engine.plan((8192, 8192), limit=1e9)
    assert caught.value.code == "memory"


def test_memory_counts_channels_and_the_mirror_image(tmp_path):
    def planned(width, size, batch):
        path = str(tmp_path / f"{width}.keras")
        facts = NetworkFacts((LearnedStyle("a", "0"),), width, 1)
        save_network(path, make_network(1, width, 1), facts)
        engine = NetworkEngine(NetworkSettings(network=path))
        return (
            engine.plan(size, limit=1e12, batch=batch).bytes - engine.plan((1, 1), limit=1e12).bytes
        )

    assert planned(32, (512, 512), 1) > 1.9 * planned(16, (512, 512), 1)
    assert planned(16, (64, 64), 100) > 1.8 * planned(16, (640, 640), 1)


def test_what_does_not_show_is_not_in_the_recipe():
    plain = NetworkEngine(NetworkSettings()).recipes((64, 64))
    assert NetworkEngine(NetworkSettings(size=1024)).recipes((64, 64)) == plain
    assert NetworkEngine(NetworkSettings(strength=0.5)).recipes((64, 64)) != plain
