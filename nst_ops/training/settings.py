"""The settings of a training, without TensorFlow."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nst_ops.network.layout import MOST_BLOCKS
from nst_ops.settings import PX, STEPS, HomePath, LayerWeights, NonNegative, TermWeight, ZeroOrShare
from nst_ops.vgg.weights import known_layers

LEAST_SEEN = 32  # px: two positions of VGG19's block5
_TIMES_STYLE = "beside a style of 1: "


class TrainingSettings(BaseModel):
    """Sets how a network is trained. Losses are relative, as the optimizer's are: each is the
    squared distance from a target over the target's own square.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(
        20_000,
        ge=1,
        le=10_000_000,
        description="of training; 8000 is a draft of one style, several styles want more",
        json_schema_extra=STEPS,
    )
    batch: int = Field(4, ge=1, le=256, description="photos a step")
    crop: int = Field(
        128,
        ge=64,
        le=512,
        multiple_of=16,
        description="side of a photo's crop",
        json_schema_extra=PX,
    )
    style_size: int = Field(
        256,
        ge=64,
        le=1024,
        description="long side at which paintings are seen: larger, coarser strokes",
        json_schema_extra=PX,
    )
    content_weight: TermWeight = Field(
        0.3, description=_TIMES_STYLE + "of the photo's structure; 0.1: free; 0.5: close to it"
    )
    attention_weight: TermWeight = Field(
        0.5, description=_TIMES_STYLE + "strokes follow what the photo shows; 0: they do not"
    )
    tv_weight: TermWeight = Field(0.1, description=_TIMES_STYLE + "of smoothness (total variation)")
    adversarial_weight: TermWeight = Field(
        0.1,
        description=_TIMES_STYLE
        + "of a second network, which tells pictures from paintings; 0: without",
    )
    octaves: list[ZeroOrShare] = Field(
        [1.0, 0.5],
        min_length=1,
        max_length=4,
        description="weights of the style on the picture, its half size, and so on",
    )
    content_layers: LayerWeights = Field(
        {"block4_conv2": 1.0}, description="layers of VGG19 that see the photo's structure"
    )
    style_layers: LayerWeights = Field(
        {f"block{block}_conv1": 1.0 for block in range(1, 6)},
        description="layers of VGG19 that see the painting's textures",
    )
    attention_layers: LayerWeights = Field(
        {"block3_conv1": 1.0, "block4_conv1": 1.0},
        description="layers of VGG19 at which parts of pictures and paintings are matched",
    )
    learning_rate: float = Field(
        2e-3,
        gt=0,
        le=1,
        description="of Adam; it goes down to 0 in the second half of the steps",
    )
    clip: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="longest gradient; a longer one is shortened"
    )
    average: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="what is kept is a mean of the weights over 1 / (1 - average) steps",
    )
    width: int = Field(
        16, ge=4, le=128, multiple_of=4, description="channels of the network at full size"
    )
    blocks: int = Field(5, ge=1, le=MOST_BLOCKS, description="residual blocks of the network")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of VGG19; `auto` takes bfloat16 where it is fast"
    )
    weights: HomePath = Field("embedded", min_length=1, description="of VGG19, as in `nst run`")
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    checkpoint_seconds: NonNegative = Field(
        300.0, description="between checkpoints", json_schema_extra={"unit": "s"}
    )
    sheet_seconds: NonNegative = Field(
        300.0, description="between sheets of samples", json_schema_extra={"unit": "s"}
    )

    _of_vgg19 = field_validator("content_layers", "style_layers", "attention_layers")(known_layers)

    @field_validator("octaves")
    @classmethod
    def _some_octave(cls, octaves: list[float]) -> list[float]:
        if not any(octaves):
            raise ValueError("all weights are 0; give at least one above 0")
        return octaves

    @model_validator(mode="after")
    def _large_enough(self) -> "TrainingSettings":
        least = LEAST_SEEN * 2 ** (len(self.octaves) - 1)
        if self.crop < least:
            raise ValueError(
                f"crop: {self.crop} px is too small for {len(self.octaves)} octaves, which need "
                f"{least} px; use a larger crop or fewer octaves"
            )
        return self

    @property
    def determining(self) -> dict[str, object]:
        """Returns the settings that the trained network depends on."""
        return self.model_dump(mode="json", exclude={"checkpoint_seconds", "sheet_seconds"})

    @property
    def lasting(self) -> dict[str, object]:
        """Returns the settings that cannot change while a network is trained. Others can: it may be
        trained longer, with other weights when its samples are seen, or with smaller steps after a
        loss that was not finite.
        """
        names = {"batch", "crop", "style_size", "width", "blocks", "weights", "seed"}
        rival = {"rival": self.adversarial_weight > 0.0}
        return {key: value for key, value in self.determining.items() if key in names} | rival
