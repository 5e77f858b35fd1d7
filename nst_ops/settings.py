"""Every setting that changes the picture, with its range and default: the one place they are
defined.

No TensorFlow here: launchers and validators read settings without starting it.
"""

import os
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

HISTORY = 10  # steps that L-BFGS remembers where there is room
INITS = ("content", "noise", "style")  # other values of `init` are files

HomePath = Annotated[str, AfterValidator(os.path.expanduser)]  # may begin with `~`
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MOST_WEIGHT = 1e12  # of a term of the loss; float32 ends at 3e38, and gradients are squared
TermWeight = Annotated[float, Field(ge=0, le=MOST_WEIGHT, allow_inf_nan=False)]
# Units of numbers, as they appear in the schema of the settings.
PX: dict[str, JsonValue] = {"unit": "px"}
STEPS: dict[str, JsonValue] = {"unit": "steps"}
LEAST_SHARE, MOST_SHARE = 1e-6, 1e6  # outside, float32 loses one weight beside others, or overflows
Share = Annotated[float, Field(ge=LEAST_SHARE, le=MOST_SHARE, allow_inf_nan=False)]  # of a mean


def _zero_or_share(weight: float) -> float:
    if weight and not LEAST_SHARE <= weight <= MOST_SHARE:
        raise ValueError(f"must be 0, or from {LEAST_SHARE:g} to {MOST_SHARE:g}")
    return weight


ZeroOrShare = Annotated[
    NonNegative,
    AfterValidator(_zero_or_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": 0},
                {"type": "number", "minimum": LEAST_SHARE, "maximum": MOST_SHARE},
            ]
        }
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(_Strict):
    """Sets the size and the steps of one scale of the coarse-to-fine loop."""

    size: int = Field(ge=32, le=65536, description="long side", json_schema_extra=PX)
    steps: int = Field(
        ge=1, le=100_000, description="at most this many of the optimizer", json_schema_extra=STEPS
    )
    weight: Share = Field(1.0, description="multiplies `style_weight` at this scale")


class StyleScale(_Strict):
    """Sets one resolution at which the painting is seen: relative to the picture, or in px, which
    count when the picture has its final size.
    """

    ratio: Positive | None = Field(
        None, description="the painting's size by the picture's, at every scale"
    )
    size: int | None = Field(
        None,
        ge=32,
        le=65536,
        description="instead of `ratio`: the painting's size when the picture has its final size",
        json_schema_extra=PX,
    )
    weight: Share = Field(1.0, description="its share in the style, beside other resolutions")

    @model_validator(mode="after")
    def _one_of_both(self) -> "StyleScale":
        if (self.ratio is None) == (self.size is None):
            raise ValueError("give either ratio or size")
        return self


def _layers(value: object) -> object:
    """Turns a list of layer names into a dict in which each layer has weight 1."""
    names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if names and len(set(value)) < len(value):
        raise ValueError("a layer stands twice; weigh it as {layer: 2.0}")
    return dict.fromkeys(value, 1.0) if names else value


LayerWeights = Annotated[
    dict[str, Share],
    BeforeValidator(_layers),
    Field(min_length=1),
]


class Settings(_Strict):
    """Holds all that `stylize` needs to know beside the images."""

    size: int = Field(
        512,
        ge=32,
        le=65536,
        description="long side of the result; smaller photos are not enlarged unless "
        "`enlarge: true`",
        json_schema_extra=PX,
    )
    enlarge: bool = Field(False, description="enlarges photos that are smaller than `size`")
    steps: int = Field(
        20,
        ge=1,
        le=100_000,
        description="of the optimizer at the result's size, half as many again at each coarser "
        "scale; 8 is a draft, 50 is fine",
        json_schema_extra=STEPS,
    )
    scales: Literal["auto"] | list[Scale] = Field(
        "auto",
        description="sizes of the picture from coarse to fine; `auto`: halvings of `size` down to "
        "128 px, see `steps`",
    )
    content_weight: TermWeight = Field(
        6e3, description="of the photo's structure; 1000: free; 10000: close to the photo"
    )
    style_weight: TermWeight = Field(
        3e-2, description="of the painting's textures; 0.01: timid; 0.1: abstract"
    )
    attention_weight: TermWeight = Field(
        1.25,
        description="times `style_weight`: strokes follow what the photo shows; 0: they do not; "
        "0.5: calm areas stay calm; 2.5: things of the painting appear",
    )
    tv_weight: TermWeight = Field(
        10.0, description="of smoothness (total variation); 10: hardly seen; 100: smooth areas"
    )
    octaves: list[ZeroOrShare] = Field(
        [1.0, 1.0, 1.0],
        min_length=1,
        max_length=6,
        description="weights of the style on the picture, its half and its quarter size, and so "
        "on: fine and broad strokes; 0 leaves one out",
    )
    style_scales: list[StyleScale] = Field(
        [StyleScale(ratio=1.0)],
        min_length=1,
        max_length=8,
        description="resolutions of the painting, as `ratio` to the picture or in px as `size`; "
        "smaller ratio, finer strokes",
    )
    color: Literal["style", "content", "match"] = Field(
        "style",
        description="`style`: the painting's colours; `content`: the photo's; `match`: the "
        "painting is recoloured first",
    )
    init: str = Field(
        "content",
        min_length=1,
        description="start from the photo (`content`), `noise`, `style` (noise in the painting's "
        "colours) or a picture file",
    )
    optimizer: Literal["lbfgs", "adam"] = Field(
        "lbfgs", description="L-BFGS in Fourier space, or Adam with `learning_rate`"
    )
    learning_rate: Share = Field(
        0.02, description="size of a step of Adam's; a pixel's range is 0 to 1"
    )
    tolerance: NonNegative = Field(
        1e-3, description="a scale ends when `patience` steps gain less than this fraction"
    )
    patience: int = Field(5, ge=1, description="see `tolerance`", json_schema_extra=STEPS)
    content_layers: LayerWeights = Field(
        {"block4_conv2": 1.0},
        description="layers of VGG19 that see the photo's structure, a list or `{layer: weight}`",
    )
    style_layers: LayerWeights = Field(
        {f"block{block}_conv1": 1.0 for block in range(1, 6)},
        description="layers of VGG19 that see the painting's textures, a list or `{layer: weight}`",
    )
    attention_layers: LayerWeights = Field(
        {"block3_conv1": 1.0, "block4_conv1": 1.0},
        description="layers of VGG19 at which parts of the picture are matched with parts of the "
        "painting, a list or `{layer: weight}`",
    )
    attention_temperature: ZeroOrShare = Field(
        0.0,
        description="0: each part takes after the most similar part of the painting; above, such "
        "as 0.02: after a mean of similar ones",
    )
    attention_every: int = Field(
        10,
        ge=0,
        description="matches parts anew after so many steps of a scale; 0: once a scale",
        json_schema_extra=STEPS,
    )
    pooling: Literal["max", "average"] = Field(
        "max", description="how VGG19 halves its feature maps"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of convolutions; `auto` takes bfloat16 where it is fast"
    )
    weights: str = Field(
        "embedded",
        min_length=1,
        description="of VGG19: `embedded` (up to `block5_conv1`), `imagenet` (all layers, "
        "downloaded by Keras) or a `.h5`, `.weights.h5` or `.npz` file",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.scales != "auto":
            if not self.scales:
                raise ValueError(
                    "scales: the list is empty; give at least one {size, steps}, or `auto`"
                )
            sizes = [scale.size for scale in self.scales]
            if sizes != sorted(set(sizes)):
                raise ValueError(f"scales: sizes {sizes} must grow from coarse to fine")
        if not any(self.octaves):
            raise ValueError("octaves: all weights are 0; give at least one above 0")
        if not (self.content_weight or self.style_weight):
            raise ValueError(
                "content_weight and style_weight are both 0; there is nothing to optimize"
            )
        return self

    @property
    def attention_layers_in_use(self) -> dict[str, float]:
        """Returns the layers of the attention term, and their weights; empty if the term has no
        weight.
        """
        return self.attention_layers if self.attention_weight and self.style_weight else {}

    @property
    def init_file(self) -> str | None:
        """Returns the file that `init` names, or None if it names none."""
        return None if self.init in INITS else self.init

    @property
    def final_size(self) -> int:
        """Returns the long side of the result in px: the last scale's if scales are listed."""
        return self.size if self.scales == "auto" else self.scales[-1].size
