import pytest
from pydantic import ValidationError

from nst_ops.coarse_to_fine.schedule import largest_style_side, output_size, schedule
from nst_ops.errors import InputError
from nst_ops.images.size import fit
from nst_ops.losses.octaves import least_side, octave_sizes, octaves_in_use
from nst_ops.settings import Scale, Settings


@pytest.mark.parametrize(
    ("size", "long_side", "enlarge", "expected"),
    [
        ((300, 400), 200, False, (150, 200)),
        ((400, 300), 200, False, (200, 150)),
        ((300, 400), 800, False, (300, 400)),
        ((300, 400), 800, True, (600, 800)),
        ((300, 400), 400, True, (300, 400)),
        ((1, 1000), 100, False, (1, 100)),  # never zero
    ],
)
def test_fit(size, long_side, enlarge, expected):
    assert fit(size, long_side, enlarge=enlarge) == expected


def test_automatic_schedule_halves_down_to_the_coarsest():
    plans = schedule((1024, 768), Settings(steps=10))
    assert [p.size for p in plans] == [(128, 96), (256, 192), (512, 384), (1024, 768)]
    assert [p.steps for p in plans] == [34, 22, 15, 10]
    assert {p.weight for p in plans} == {1.0}


def test_small_pictures_have_one_scale():
    assert [(p.size, p.steps) for p in schedule((96, 64), Settings(steps=7))] == [((96, 64), 7)]


def test_listed_scales_keep_steps_and_weights():
    scales = [
        Scale(size=64, steps=9, weight=2.0),
        Scale(size=128, steps=5),
        Scale(size=256, steps=3, weight=0.5),
    ]
    plans = schedule((256, 256), Settings(scales=scales))
    assert [(p.size, p.steps, p.weight) for p in plans] == [
        ((64, 64), 9, 2.0),
        ((128, 128), 5, 1.0),
        ((256, 256), 3, 0.5),
    ]
    smaller = schedule((100, 100), Settings(scales=scales))
    assert [(p.size, p.steps, p.weight) for p in smaller] == [
        ((64, 64), 9, 2.0),
        ((100, 100), 3, 0.5),
    ]


def test_scales_too_narrow_for_the_network_are_left_out():
    settings = Settings(scales=[Scale(size=64, steps=1), Scale(size=256, steps=1)])
    assert [p.size for p in schedule((60, 256), settings)] == [(60, 256)]  # 15 px at the coarse one
    shallow = settings.model_copy(
        update={
            "content_layers": {"block2_conv1": 1.0},
            "style_layers": {"block1_conv1": 1.0},
            "attention_weight": 0.0,
        }
    )
    assert [p.size for p in schedule((60, 256), shallow)] == [(15, 64), (60, 256)]


def test_octaves_end_where_the_network_cannot_follow():
    assert octave_sizes((101, 64), 3, 16) == [(101, 64), (51, 32), (26, 16)]
    assert octave_sizes((101, 64), 3, 32) == [(101, 64), (51, 32)]
    assert octave_sizes((20, 20), 3, 32) == [(20, 20)]


@pytest.mark.parametrize(("layer", "expected"), [("block1_conv1", 2), ("block4_conv2", 16)])
def test_least_side_is_of_the_deepest_layer(layer, expected):
    settings = Settings(content_layers=[layer], style_layers=["block1_conv1"], attention_weight=0)
    assert least_side(settings) == expected


def test_output_size_names_the_layer_and_the_remedy():
    assert output_size((1000, 500), Settings(size=200)) == (200, 100)
    with pytest.raises(InputError, match="10x400 px.*5x200 px.*block5_conv1.*32 px.*enlarge"):
        output_size((10, 400), Settings(size=200))
    with pytest.raises(InputError, match="at least 32 px"):
        output_size((31, 31), Settings(size=512))
    assert output_size((32, 32), Settings(size=512)) == (32, 32)


def test_scales_without_an_octave_that_counts_are_left_out():
    settings = Settings(octaves=[0.0, 0.0, 1.0])
    assert [p.size for p in schedule((170, 256), settings)] == [(170, 256)]
    assert octaves_in_use((170, 256), settings.octaves, 32) == (2,)
    assert octaves_in_use((85, 128), settings.octaves, 32) == ()
    with pytest.raises(InputError, match="100x150 px.*at least 125 px.*or those octaves"):
        output_size((100, 150), settings)


def test_how_large_a_painting_is_seen_at_most():
    settings = Settings(style_scales=[{"ratio": 0.5}, {"size": 300}])
    assert largest_style_side((2000, 3000), (341, 512), settings) == 300
    assert largest_style_side((200, 280), (341, 512), settings) == 280
    assert largest_style_side((3000, 200), (341, 512), Settings()) == 512
    # At the coarsest scale it is seen larger than asked for: 128 px would be 9 px wide.
    assert largest_style_side((3000, 200), (85, 128), Settings()) == 480
    with pytest.raises(InputError, match="20x400 px.*at least 32 px"):
        largest_style_side((20, 400), (341, 512), Settings())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scales": [{"size": 128, "steps": 1}, {"size": 64, "steps": 1}]}, "must grow"),
        ({"scales": []}, "list is empty"),
        ({"octaves": [0.0, 0.0]}, "all weights are 0"),
        ({"content_weight": 0, "style_weight": 0}, "nothing to optimize"),
        ({"style_scales": [{}]}, "either ratio or size"),
        ({"content_weight": float("inf")}, "finite"),
        ({"sise": 512}, "sise"),
    ],
)
def test_settings_that_contradict_themselves(fields, message):
    with pytest.raises(ValidationError, match=message):
        Settings(**fields)
