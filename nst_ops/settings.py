"""Every setting that changes the picture, with its range and default: the one place they are
defined.

No TensorFlow here: launchers and validators read settings without starting it.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

HISTORY = 10  # steps that L-BFGS remembers where there is room
INITS = ("content", "noise", "style")  # other values of `init` are files

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MOST_WEIGHT = 1e12  # of a term of the loss; float32 ends at 3e38, and squares are taken
TermWeight = Annotated[float, Field(ge=0, le=MOST_WEIGHT, allow_inf_nan=False)]
LEAST_SHARE, MOST_SHARE = 1e-6, 1e6  # beyond, float32 would lose one beside others, or overflow
Share = Annotated[float, Field(ge=LEAST_SHARE, le=MOST_SHARE, allow_inf_nan=False)]  # of a mean


def _zero_or_share(weight: float) -> float:
    if weight and not LEAST_SHARE <= weight <= MOST_SHARE:
        raise ValueError(f"an octave's weight must be 0, or from {LEAST_SHARE:g} to {MOST_SHARE:g}")
    return weight


OctaveWeight = Annotated[NonNegative, AfterValidator(_zero_or_share)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(_Strict):
    """One scale of the coarse-to-fine loop."""

    size: int = Field(ge=32, le=65536, description="long side in px")
    steps: int = Field(ge=1, le=100_000, description="at most this many optimizer steps")
    weight: Share = Field(1.0, description="multiplies style_weight at this scale")


class StyleScale(_Strict):
    """One resolution of the painting: relative to the picture, or in px when the picture has its
    final size.
    """

    ratio: Positive | None = None
    size: int | None = Field(None, ge=32, le=65536)
    weight: Share = 1.0

    @model_validator(mode="after")
    def _one_of_both(self) -> "StyleScale":
        if (self.ratio is None) == (self.size is None):
            raise ValueError("give either ratio or size")
        return self


def _layers(value: object) -> object:
    """A list of names means equal weights."""
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
    """What `stylize` needs to know beyond the images."""

    size: int = Field(512, ge=32, le=65536, description="long side of the result in px")
    enlarge: bool = Field(False, description="enlarge photos smaller than `size`")
    scales: Literal["auto"] | list[Scale] = Field(
        "auto", description="coarse to fine; `auto`: halvings of `size`, see `steps`"
    )
    steps: int = Field(
        22,
        ge=1,
        le=100_000,
        description="for `scales: auto`: steps at the result's scale, more at coarser ones",
    )
    octaves: list[OctaveWeight] = Field(
        [1.0, 1.0, 1.0],
        min_length=1,
        max_length=6,
        description="weights of style terms on the picture, its half, its quarter, ...",
    )
    style_scales: list[StyleScale] = Field(
        [StyleScale(ratio=1.0)],
        min_length=1,
        max_length=8,
        description="resolutions of the painting to take strokes from",
    )
    content_weight: TermWeight = Field(
        5e3, description="useful 1e3 (free) to 1e4 (close to the photo)"
    )
    style_weight: TermWeight = Field(3e-2, description="useful 1e-2 (timid) to 1e-1 (abstract)")
    tv_weight: TermWeight = Field(
        10.0, description="useful 10 (hardly seen) to 100 (smooth, flat areas)"
    )
    attention_weight: TermWeight = Field(
        0.5,
        description="times style_weight: strokes where they belong; 0: none, useful .3 to 1.5",
    )
    content_layers: LayerWeights = Field(
        {"block4_conv2": 1.0}, description="layer: weight, or a list of layers"
    )
    style_layers: LayerWeights = Field(
        {f"block{block}_conv1": 1.0 for block in range(1, 6)},
        description="layer: weight, or a list of layers",
    )
    attention_layers: LayerWeights = Field(
        {"block3_conv1": 1.0, "block4_conv1": 1.0},
        description="layer: weight, or a list of layers",
    )
    attention_temperature: NonNegative = Field(
        0.0, description="0: the most similar part of the painting; above: a mean of similar parts"
    )
    attention_every: int = Field(
        0, ge=0, description="steps after which parts are matched anew; 0: once a scale"
    )
    pooling: Literal["max", "average"] = Field(
        "max", description="how VGG19 halves its feature maps"
    )
    optimizer: Literal["lbfgs", "adam"] = Field(
        "lbfgs", description="L-BFGS in Fourier space, or Adam"
    )
    learning_rate: Share = Field(0.02, description="Adam's; a pixel's range is 0 to 1")
    tolerance: NonNegative = Field(
        1e-3,
        description=(
            "a scale ends early when `patience` steps improve the loss by less than this fraction"
        ),
    )
    patience: int = Field(5, ge=1, description="see `tolerance`")
    init: str = Field(
        "content", description="first picture: `content`, `noise`, `style` (its colours) or a file"
    )
    color: Literal["style", "content", "match"] = Field(
        "style",
        description=(
            "`style`: the painting's; `content`: the photo's; `match`: painting recoloured first"
        ),
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "auto", description="of convolutions; `auto` takes bfloat16 where it is fast"
    )
    weights: str = Field(
        "embedded", min_length=1, description="`embedded`, `imagenet` (download) or a file"
    )

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
        """None where the term has no weight."""
        return self.attention_layers if self.attention_weight and self.style_weight else {}

    @property
    def init_file(self) -> str | None:
        """The file that `init` names, if it names one."""
        return None if self.init in INITS else self.init

    @property
    def final_size(self) -> int:
        """Long side of the result in px: the last scale's where scales are listed."""
        return self.size if self.scales == "auto" else self.scales[-1].size
