"""Training of painting networks: samples, losses, exact resumption."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from nst_ops.errors import InputError, NonFiniteError
from nst_ops.images.codec import decode
from nst_ops.network.facts import LearnedStyle, NetworkFacts
from nst_ops.network.model import add_styles, make_network
from nst_ops.training.discriminator import Discriminator
from nst_ops.training.objective import TERMS, TrainingObjective
from nst_ops.training.photos import Photos
from nst_ops.training.settings import TrainingSettings
from nst_ops.training.trainer import Trainer

from ..conftest import IMAGES

SMALL = {"crop": 64, "batch": 2, "width": 4, "blocks": 1, "style_size": 96, "octaves": [1.0]}
PHOTOS = [str(IMAGES / f"{name}.jpg") for name in ("cat", "coffee", "rocket")]


def settings(**changes):
    return TrainingSettings.model_validate({**SMALL, "steps": 4, **changes})


@pytest.fixture(scope="module")
def paintings():
    names = ("church_at_auvers", "pere_tanguy")
    return [decode((IMAGES / f"{name}.jpg").read_bytes(), long_side=96).pixels for name in names]


def trainer(paintings, *, learned=0, model=None, strategy=None, paths=PHOTOS, **changes):
    chosen = settings(**changes)
    count = len(paintings)
    model = model or make_network(count, chosen.width, chosen.blocks, chosen.seed)
    photos = Photos(paths, chosen.crop, range(learned, learned + count), chosen.seed)
    return Trainer(chosen, model, paintings, photos, learned=learned, strategy=strategy)


def weights(trained):
    return [w.copy() for w in trained.averaged().get_weights()]


def samples(photos, first, last):
    return [(p.numpy(), s.numpy()) for p, s in photos.dataset(first, last, 2)]


def test_samples_follow_from_their_number():
    photos = Photos(PHOTOS, 64, [0, 1, 2], 7)
    whole = samples(photos, 0, 5)
    for mine, theirs in zip(
        samples(Photos(PHOTOS, 64, [0, 1, 2], 7), 3, 5), whole[3:], strict=True
    ):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])
    assert [style for _, styles in whole[:3] for style in styles] == [0, 1, 2, 0, 1, 2]
    assert not np.array_equal(whole[0][0], samples(Photos(PHOTOS, 64, [0], 8), 0, 1)[0][0])
    for crops, _ in whole:
        assert crops.shape == (2, 64, 64, 3) and crops.dtype == np.float32
        assert crops.min() >= 0.0 and crops.max() <= 1.0 and crops.std() > 0.01


def test_files_that_are_no_photos_are_skipped_and_noted(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    narrow = tmp_path / "narrow.png"
    Image.new("RGB", (5, 900)).save(narrow)
    small = tmp_path / "small.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)).save(small)
    photos = Photos([str(bad), str(narrow), str(small), str(tmp_path / "gone.jpg")], 64, [0], 0)
    assert len(samples(photos, 0, 4)) == 4
    assert photos.unusable.keys() == {str(bad), str(narrow), str(tmp_path / "gone.jpg")}
    assert "narrow" in photos.unusable[str(narrow)]


def test_no_photo_at_all_is_an_error(paintings, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    trained = trainer(paintings, paths=[str(tmp_path / "bad.jpg")])
    with pytest.raises(InputError, match="not one of the photos can be read"):
        list(trained.run())


def test_losses_are_nothing_for_the_painting_itself_and_for_the_photo_itself(paintings):
    objective = TrainingObjective(settings(precision="float32"), paintings)
    painting = tf.constant(paintings[1][None])
    photo = tf.constant(decode((IMAGES / "cat.jpg").read_bytes(), long_side=96).pixels[None])
    same = objective.losses(painting, tf.constant([1]), painting)
    assert set(same) == set(TERMS)
    assert float(same["style"][0]) < 1e-6 and float(same["content"][0]) < 1e-6
    assert float(same["attention"][0]) < 1e-6
    unpainted = objective.losses(photo, tf.constant([1]), photo)
    assert float(unpainted["content"][0]) < 1e-6
    assert float(unpainted["style"][0]) > 0.1 and float(unpainted["attention"][0]) > 0.1
    other = objective.losses(painting, tf.constant([0]), painting)
    assert float(other["style"][0]) > 0.05


def test_a_short_training_lowers_the_loss(paintings):
    trained = trainer(paintings, steps=30, learning_rate=5e-3)
    losses = [point.losses["total"] for point in trained.run()]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert trained.step == 30 and [point.step for point in trained.curve] == list(range(1, 31))


def test_a_training_that_was_interrupted_ends_with_the_same_weights(paintings):
    changes = {"steps": 6, "adversarial_weight": 0.5}
    whole = trainer(paintings, **changes)
    list(whole.run())
    begun, file = trainer(paintings, **changes), io.BytesIO()
    for point in begun.run():
        if point.step == 3:
            break
    begun.save(file, {"of": "this test"})
    resumed = trainer(paintings, **changes)
    checked = []
    assert resumed.load(file, checked.append) == {"of": "this test"} == checked[0]
    assert [point.step for point in resumed.run()] == [4, 5, 6]
    for mine, theirs in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert resumed.curve == whole.curve


def test_a_checkpoint_of_another_network_is_refused(paintings):
    file = io.BytesIO()
    trainer(paintings).save(file, {})
    with pytest.raises(InputError, match="of another network"):
        trainer(paintings, width=8).load(file, lambda facts: None)
    damaged = bytearray(file.getvalue())
    damaged[1000] ^= 1
    with pytest.raises(InputError, match="damaged"):
        trainer(paintings).load(io.BytesIO(damaged), lambda facts: None)


def test_added_styles_change_only_what_is_theirs(paintings):
    facts = NetworkFacts((LearnedStyle("a", ""), LearnedStyle("b", "")), 4, 1)
    before = make_network(2, 4, 1)
    model = add_styles(before, facts, 1)
    trained = trainer(paintings[:1], learned=2, model=model, learning_rate=0.01)
    list(trained.run())
    after = trained.averaged()
    moved = 0.0
    for mine, theirs in zip(after.variables, before.variables, strict=True):
        value = mine.numpy()
        if "_norm/" in mine.path:
            moved += float(np.abs(value[2] - theirs.numpy().mean(axis=0)).sum())
            value = value[:2]
        np.testing.assert_array_equal(value, theirs.numpy())
    assert moved > 0.0


def test_a_loss_that_is_not_finite_ends_the_training_and_changes_nothing(paintings):
    trained = trainer(paintings, steps=3)
    kernel = trained.model.get_layer("look").kernel
    kernel.assign(tf.fill(kernel.shape, float("nan")))
    before = [w.copy() for w in trained.model.get_weights()]
    with pytest.raises(NonFiniteError, match="not finite at step 1; go on with a smaller"):
        list(trained.run())
    for mine, theirs in zip(trained.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_rival_learns_to_tell_paintings_from_pictures(paintings):
    trained = trainer(paintings, steps=25, adversarial_weight=0.1, learning_rate=2e-3)
    found = [point.losses["adversarial"] for point in trained.run()]
    assert np.mean(found[-5:]) < np.mean(found[:5])


def test_the_rival_judges_by_style():
    rival = Discriminator(2, 0)
    images = tf.random.stateless_uniform([2, 64, 64, 3], [1, 2])
    alike = rival.judge(images, tf.constant([0, 0]), learns=False)
    rival._of_style.kernel.assign([[0.0] * 128, [1.0] * 128])
    told_apart = rival.judge(images, tf.constant([0, 1]), learns=False)
    assert [each.shape[1] for each in alike] == [8, 4]
    np.testing.assert_allclose(told_apart[0][0], alike[0][0], atol=1e-6)
    assert float(tf.reduce_max(tf.abs(told_apart[0][1] - alike[0][1]))) > 1e-3


ON_TWO_DEVICES = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from nst_ops.images.codec import decode
from nst_ops.network.model import make_network
from nst_ops.training.photos import Photos
from nst_ops.training.settings import TrainingSettings
from nst_ops.training.trainer import Trainer
values, paths, painting = json.loads(sys.argv[1])
settings = TrainingSettings(**values)
found = []
for strategy in (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), tf.distribute.get_strategy()):
    with strategy.scope():
        model = make_network(1, settings.width, settings.blocks)
    paintings = [decode(open(painting, "rb").read(), long_side=96).pixels]
    photos = Photos(paths, settings.crop, [0], 0)
    trainer = Trainer(settings, model, paintings, photos, strategy=strategy)
    found.append([point.losses["total"] for point in trainer.run()])
    trainer.averaged()
print(json.dumps(found))
"""


def test_several_devices_share_a_batch():
    values = settings(precision="float32", steps=3, adversarial_weight=0.5).determining
    given = json.dumps([values, PHOTOS, str(IMAGES / "pere_tanguy.jpg")])
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, given], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shared, alone = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(shared, alone, rtol=2e-3)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="no layer 'block9_conv1' in VGG19"):
        settings(style_layers=["block9_conv1"])
    with pytest.raises(ValueError, match="all weights are 0"):
        settings(octaves=[0.0])
    with pytest.raises(ValueError, match="multiple of 16"):
        settings(crop=100)
    with pytest.raises(ValueError, match="crop: 64 px is too small for 3 octaves, which need 128"):
        settings(octaves=[1.0, 1.0, 1.0])
