"""What a picture is scored by: loss and gradient of a batch of images, in one graph."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from nst_ops import pyramid
from nst_ops.compiled import Compiled
from nst_ops.errors import InputError
from nst_ops.gram import gram_matrix
from nst_ops.losses import (
    Features,
    LossWeights,
    Targets,
    content_loss,
    style_loss,
    total_variation,
    weighted_total,
)
from nst_ops.settings import Settings

Evaluation = tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]  # total [B], terms, gradient


class Objective(NamedTuple):
    """A network and how its features are weighted; hashable, a key for what is compiled."""

    model: keras.Model
    content_layers: tuple[tuple[str, float], ...]
    style_layers: tuple[tuple[str, float], ...]
    precision: str
    eager: bool = False
    network: str = ""  # names the model between processes; "" if nothing does

    @classmethod
    def of(
        cls,
        settings: Settings,
        model: keras.Model,
        precision: str,
        eager: bool = False,
        network: str = "",
    ) -> "Objective":
        """As the settings say.

        Raises:
          InputError: the model does not give a layer in use.
        """
        layers = {*settings.content_layers, *settings.style_layers}
        given = set(model.output) if isinstance(model.output, dict) else set()
        if not layers <= given:
            raise InputError(
                f"the model gives {sorted(given)}, which lacks {sorted(layers - given)}; "
                "its output must be a dict of feature maps by layer"
            )
        return cls(
            model,
            tuple(settings.content_layers.items()),
            tuple(settings.style_layers.items()),
            precision,
            eager,
            network,
        )

    @property
    def gradient_gain(self) -> float:
        """float16 loses gradients below 6e-8 on their way back; they travel multiplied by this."""
        return 2.0**16 if self.precision == "float16" else 1.0

    def compile(self, function: Callable) -> Callable:
        """The function itself for eager runs."""
        return function if self.eager else Compiled(function)


@functools.lru_cache(maxsize=16)
def extractor(objective: Objective) -> Callable[[tf.Tensor], Features]:
    """The network alone, compiled: images -> {layer: features}, of the layers in use."""
    layers = [layer for layer, _ in (*objective.content_layers, *objective.style_layers)]

    def extract(images: tf.Tensor) -> Features:
        features = objective.model(images)
        return {layer: features[layer] for layer in layers}

    return objective.compile(extract)


def evaluate(
    objective: Objective,
    octave_weights: tuple[float, ...],
    images: tf.Tensor,
    targets: Targets,
    weights: LossWeights,
) -> Evaluation:
    """Loss and gradient of whole images.

    Args:
      octave_weights: as many as `targets.style` has octaves.
      images: [B, H, W, 3].

    Returns:
      The total [B]; {"content", "style", "tv"}: [B] each, which add up to it; and the total's
      gradient [B, H, W, 3].
    """
    style_layers = dict(objective.style_layers)
    with tf.GradientTape() as tape:
        tape.watch(images)
        octaves = pyramid.octaves(images, len(octave_weights))
        features = [objective.model(octave) for octave in octaves]
        grams = [{layer: gram_matrix(f[layer]) for layer in style_layers} for f in features]
        total, terms = weighted_total(
            weights,
            content=content_loss(features[0], targets.content, dict(objective.content_layers)),
            style=style_loss(grams, targets.style, style_layers, octave_weights),
            tv=total_variation(images),
        )
        amplified = total * objective.gradient_gain
    return total, terms, tape.gradient(amplified, images) / objective.gradient_gain
