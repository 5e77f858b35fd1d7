"""Going on from a checkpoint is as if the optimization had never stopped."""

import io
import itertools
import weakref

import numpy as np
import pytest

from nst_ops.coarse_to_fine import checkpoints, loop
from nst_ops.errors import InputError
from nst_ops.settings import Settings

SETTINGS = Settings(
    precision="float32",
    octaves=[1.0],
    scales=[{"size": 64, "steps": 5}, {"size": 96, "steps": 4}],
    content_layers=["block2_conv1"],
    style_layers=["block1_conv1", "block2_conv1"],
)


def stopped_after(steps, *arguments, **options):
    """What a checkpoint on disk holds after so many steps of all scales."""
    file = io.BytesIO()
    for number, iterate in enumerate(loop.stylize(*arguments, **options), start=1):
        if number == steps:
            iterate.checkpoint().save(file, tile=None)
            break
    file.seek(0)
    return checkpoints.load_checkpoint(file)


def timeless(report):
    return [scale._replace(seconds=0.0) for scale in report.scales], report.curve, report.losses


@pytest.mark.parametrize("steps", [2, 5, 7])  # within a scale, at its end, within the next
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"optimizer": "adam"}, {}),
        ({}, {"tile": 64, "history": 3}),
        ({"optimizer": "adam"}, {"tile": 64}),
        ({"color": "content", "init": "noise"}, {"seeds": [3]}),
    ],
)
def test_same_bytes_and_report(load, steps, changes, options):
    arguments = load("rocket", 96), [load("cafe_terrace_at_night", 96)]
    settings = SETTINGS.model_copy(update=changes)
    whole = loop.run(*arguments, settings, **options)
    checkpoint, facts = stopped_after(steps, *arguments, settings, **options)
    assert facts == {"tile": None}
    rest = loop.run(*arguments, settings, resume=lambda: checkpoint, **options)
    np.testing.assert_array_equal(rest.images, whole.images)
    assert timeless(rest.reports[0]) == timeless(whole.reports[0])
    assert len(rest.reports[0].curve) == 9


def test_only_what_is_left_is_computed(load):
    arguments = load("cat", 96), [load("church_at_auvers", 96)]
    checkpoint, _ = stopped_after(5, *arguments, SETTINGS)
    rest = list(loop.stylize(*arguments, SETTINGS, resume=lambda: checkpoint))
    assert [(iterate.scale, iterate.step) for iterate in rest] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert rest[-1].last and not rest[-2].last


def test_a_checkpoint_is_not_held_once_it_is_left(load):
    """At 8192 px it takes gigabytes."""
    arguments = load("cat", 96), [load("church_at_auvers", 96)]
    held = [stopped_after(2, *arguments, SETTINGS)[0]]
    trial = weakref.ref(held[0].state.trial)
    rest = loop.stylize(*arguments, SETTINGS, resume=held.pop)
    assert trial() is not None
    next(rest)
    assert trial() is None


def test_some_images_of_a_batch_go_on_alone(load):
    photos = np.stack([load("rocket", 96), load("coffee", 96)[:64], load("rocket", 96)[:, ::-1]])
    paintings = [load("cafe_terrace_at_night", 96)] * 3
    whole = loop.run(photos, paintings, SETTINGS)
    checkpoint, _ = stopped_after(3, photos, paintings, SETTINGS)
    some = checkpoint.take([1, 2])
    rest = loop.run(photos[1:], paintings[1:], SETTINGS, resume=lambda: some)
    np.testing.assert_allclose(rest.images, whole.images[1:], atol=1e-2)
    assert len(rest.reports) == 2 and len(rest.reports[0].curve) == 9


def test_going_on_from_the_end_is_the_result(load):
    arguments = load("cat", 96), [load("church_at_auvers", 96)]
    whole = loop.run(*arguments, SETTINGS)
    checkpoint, _ = stopped_after(9, *arguments, SETTINGS)
    rest = loop.run(*arguments, SETTINGS, resume=lambda: checkpoint)
    np.testing.assert_array_equal(rest.images, whole.images)
    assert timeless(rest.reports[0]) == timeless(whole.reports[0])


@pytest.mark.parametrize(
    "other",
    [
        {"scales": [{"size": 48, "steps": 5}, {"size": 96, "steps": 4}]},
        {"optimizer": "adam"},
    ],
)
def test_checkpoint_of_another_optimisation_is_refused(load, other):
    arguments = load("cat", 96), [load("church_at_auvers", 96)]
    checkpoint, _ = stopped_after(2, *arguments, SETTINGS)
    changed = Settings.model_validate(SETTINGS.model_dump() | other)
    with pytest.raises(InputError, match="other images or settings"):
        loop.run(*arguments, changed, resume=lambda: checkpoint)
    with pytest.raises(InputError, match="other images or settings"):
        loop.run(*arguments, SETTINGS, resume=lambda: checkpoint, history=4)


def test_with_fewer_steps_than_were_done_it_ends(load):
    arguments = load("cat", 96), [load("church_at_auvers", 96)]
    checkpoint, _ = stopped_after(4, *arguments, SETTINGS)
    scales = [{"size": 64, "steps": 2}, {"size": 96, "steps": 1}]
    fewer = Settings.model_validate(SETTINGS.model_dump() | {"scales": scales})
    rest = loop.stylize(*arguments, fewer, resume=lambda: checkpoint)
    ends = [(i.scale, i.step, i.stopped[0]) for i in itertools.islice(rest, 20)]
    assert ends == [(0, 5, "steps"), (1, 1, "steps")]


def test_every_damaged_byte_is_noticed(load):
    """Wherever it is: in the arrays, in the directory of the archive, or in its checksum."""
    file = io.BytesIO()
    photo = load("cat", 64)[:32, :32]
    next(loop.stylize(photo, [photo], SETTINGS, history=3)).checkpoint().save(file)
    whole = file.getvalue()
    places = [*range(0, len(whole), len(whole) // 150), *range(len(whole) - 100, len(whole))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(InputError, match="damaged"):
            checkpoints.load_checkpoint(io.BytesIO(bytes(damaged)))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged_checkpoints_are_noticed(load, damage):
    file = io.BytesIO()
    first = next(loop.stylize(load("cat", 64), [load("church_at_auvers", 64)], SETTINGS))
    first.checkpoint().save(file)
    whole = file.getvalue()
    middle = len(whole) // 2
    damaged = {
        "truncated": whole[:-100],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "empty": b"",
        "text": b"no checkpoint",
    }
    with pytest.raises(InputError, match="damaged"):
        checkpoints.load_checkpoint(io.BytesIO(damaged[damage]))
