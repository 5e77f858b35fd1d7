"""`engine: hybrid`: the optimizer goes on from the network's picture, at the result's size."""

import numpy as np
import pytest

from nst_ops.engines.base import Batch, Resources
from nst_ops.engines.hybrid import HybridEngine, HybridSettings
from nst_ops.engines.network import NetworkEngine, NetworkSettings
from nst_ops.errors import InputError
from nst_ops.images.codec import decode
from nst_ops.images.inputs import Style
from nst_ops.network.facts import EMBEDDED, network_facts

from ..conftest import IMAGES
from .test_network_engine import manifest_of, metadata, nst

PAINTING = "church_at_auvers"


def batch(*names):
    photos = [decode((IMAGES / f"{name}.jpg").read_bytes(), long_side=64).pixels for name in names]
    painting = decode((IMAGES / f"{PAINTING}.jpg").read_bytes(), long_side=128).pixels
    learned = network_facts(EMBEDDED).find(PAINTING)
    assert learned is not None
    count = len(names)
    hashes = [[learned.sha256]] * count
    return Batch(photos, [[Style(painting)]] * count, [0] * count, style_sha256=hashes)


def painted(engine, given):
    """The pictures of a session, and the steps that it took."""
    session = engine.open(Resources(10**8, None, {}))
    steps = list(session.stylize(given, engine.plan(given.size, limit=1e12)))
    return [picture.pixels for picture in steps[-1].pictures], steps


def test_the_optimizer_goes_on_from_the_networks_picture():
    given = batch("coffee", "rocket")._replace()
    given = given._replace(contents=[given.contents[0]] * 2)
    network = NetworkEngine(NetworkSettings())
    (begun, _), _ = painted(network, given)
    hybrid = HybridEngine(HybridSettings(size=64, steps=2, tolerance=0.0))
    (finished, other), steps = painted(hybrid, given)
    assert len(steps) == 3 and all("scale 1/1" in step.text for step in steps[:2])
    np.testing.assert_allclose(finished, other, atol=1e-3)
    photo = given.contents[0]
    assert 0.0 < np.abs(finished - begun).mean() < np.abs(finished - photo).mean()


def test_a_checkpoint_is_gone_on_with():
    given = batch("coffee")
    hybrid = HybridEngine(HybridSettings(size=64, steps=4, tolerance=0.0))
    (whole,), steps = painted(hybrid, given)
    session, plan = hybrid.open(Resources(10**8, None, {})), hybrid.plan(given.size, limit=1e12)
    checkpoint = steps[1].checkpoint
    begun = session.stylize(given, plan)
    next(begun)
    checkpoint = next(begun).checkpoint
    assert checkpoint is not None
    state = checkpoint()
    *_, last = hybrid.open(Resources(10**8, None, {})).stylize(given, plan, resume=lambda: state)
    np.testing.assert_array_equal(last.pictures[0].pixels, whole)


def test_recoloured_paintings_begin_with_recoloured_pictures():
    given = batch("coffee")
    engine = HybridEngine(HybridSettings(size=64, steps=1, color="match", tolerance=0.0))
    (matched,), _ = painted(engine, given)
    (plain,), _ = painted(HybridEngine(HybridSettings(size=64, steps=1, tolerance=0.0)), given)
    means = [pixels.mean((0, 1)) for pixels in (given.contents[0], matched, plain)]
    photo, *others = means
    near, far = (np.abs(mean - photo).sum() for mean in others)
    assert near < 0.1 < far


def test_its_pictures_are_its_own():
    hybrid, optimizer = HybridEngine(HybridSettings()), HybridEngine(HybridSettings()).optimizer
    size = (341, 512)
    assert hybrid.recipes(size)[""]["engine"] == "hybrid"
    assert hybrid.recipes(size)[""] != optimizer.recipes(size)[""]
    assert set(hybrid.assets()) == {"weights", "network"}
    assert hybrid.recipes(size)[""]["scales"] == [[341, 512, 10, 1.0]]
    assert hybrid.output_size((1000, 2000)) == (256, 512)
    with pytest.raises(InputError, match="no painting that the network has learned"):
        hybrid.learned_style("0" * 64)
    with pytest.raises(ValueError, match="'content'"):
        HybridSettings.model_validate({"init": "noise"})


def test_a_run(tmp_path):
    rows = [
        f"{IMAGES}/cat.jpg,{IMAGES}/{PAINTING}.jpg,,a",
        f"{IMAGES}/cat.jpg,{IMAGES}/coffee.jpg,,b",
        f"{IMAGES}/cat.jpg,{PAINTING},,c",
    ]
    manifest = manifest_of(tmp_path, rows)
    manifest.write_text(manifest.read_text().replace(",strength,", ",steps,"))
    words = ("run", "--manifest", manifest, "--output", tmp_path / "out",
             "--set", "engine=hybrid", "--set", "size=64", "--set", "steps=3")  # fmt: skip
    said = nst(*words, code=3)
    assert "1 ok" in said
    assert "coffee.jpg: is no painting that the network has learned" in said
    assert "the engine 'hybrid' has learned cafe_terrace_at_night" in said
    first, *failed = metadata(tmp_path / "out")
    assert first["engine"] == "hybrid" and len(first["scales"]) == 1
    assert first["network_sha256"] and first["weights_sha256"] and first["loss_last"] > 0
    assert [row["status"] for row in failed] == ["failed", "failed"]
    assert "1 cached" in nst(*words, code=3)
    said = nst("validate", "--manifest", manifest, *words[5:], code=2)
    assert "coffee.jpg: is no painting that the network has learned" in said
