"""The objective of the optimization: loss and gradient of a batch of images, in one graph."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from nst_ops.compiled import Compiled
from nst_ops.errors import InputError
from nst_ops.images import resampling
from nst_ops.images.size import Size
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.terms import (
    LossWeights,
    Targets,
    feature_loss,
    style_loss,
    total_variation,
    weighted_total,
)
from nst_ops.losses.tile_grid import Tile, tiles
from nst_ops.settings import Settings
from nst_ops.vgg.geometry import LayerGeometry, alignment, least_side, margin, model_geometry

Evaluation = tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]  # total [B], terms, gradient


@dataclass(frozen=True)
class Objective:
    """Holds a network, the weights of its layers, and all functions that were compiled from them.

    Compiled functions keep the network in memory. They are held only here, so that they are freed
    together with the objective.
    """

    model: keras.Model
    content_layers: tuple[tuple[str, float], ...]
    style_layers: tuple[tuple[str, float], ...]
    attention_layers: tuple[tuple[str, float], ...]  # empty if the term is not in use
    geometry: tuple[tuple[str, LayerGeometry], ...]  # of the layers in use
    precision: str
    eager: bool = False
    network: str = ""  # identifies the model in any process; "" if it has no such name
    _functions: dict[Hashable, Callable] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        settings: Settings,
        model: keras.Model,
        precision: str,
        eager: bool = False,
        network: str = "",
    ) -> "Objective":
        """Returns the objective for these settings. An equal one that was used recently is used
        again, with all that was compiled for it.

        Raises:
          InputError: the model lacks a layer in use, or its output is no feature map.
        """
        output = getattr(model, "output", None)  # which only functional models have
        given = set(output) if isinstance(output, dict) else set()
        attention_layers = settings.attention_layers_in_use
        layers = {*settings.content_layers, *settings.style_layers, *attention_layers}
        if not layers <= given:
            raise InputError(
                f"the model gives {sorted(given)}, which lacks {sorted(layers - given)}; "
                "it must be a functional keras.Model whose output is a dict of feature maps by "
                "layer. Name its layers as content_layers, style_layers and attention_layers, or "
                "do without the latter by `attention_weight: 0`"
            )
        objective = cls(
            model,
            tuple(settings.content_layers.items()),
            tuple(settings.style_layers.items()),
            tuple(attention_layers.items()),
            tuple(model_geometry(model, sorted(layers)).items()),
            precision,
            eager,
            network,
        )
        return _recent.setdefault(objective)

    @property
    def identity(self) -> Hashable:
        """Returns a key of all that features of a painting depend on beside it. It refers to the
        model only weakly, since a cache's key must not keep it in memory.
        """
        return self.network or weakref.ref(self.model), self.style_layers, self.precision

    @property
    def gradient_gain(self) -> float:
        """Returns the factor by which the loss is multiplied before backpropagation. float16 loses
        gradients below 6e-8; the result is divided by the factor again.
        """
        return 2.0**16 if self.precision == "float16" else 1.0

    def compile(self, function: Callable) -> Callable:
        """Compiles a function; in eager runs, returns it as it is."""
        return function if self.eager else Compiled(function)

    def compiled(self, key: Hashable, make: Callable[[], Callable]) -> Callable:
        """Returns what `make` gives, which is called only once for each key."""
        if key not in self._functions:
            self._functions[key] = make()
        return self._functions[key]

    @property
    def least_side(self) -> int:
        """Returns the shortest side in px at which the network can see a texture in an image."""
        return least_side(geometry for _, geometry in self.geometry)

    @property
    def tileable(self) -> bool:
        """Tells whether parts of an image give the same features as the whole."""
        return all(geometry.reach is not None for _, geometry in self.geometry)

    def stride(self, layer: str) -> int:
        """Returns how many px of the image, along each side, one position of the layer covers."""
        return dict(self.geometry)[layer].stride

    def positions(self, size: Size, layer: str) -> Size:
        """Returns how many positions (rows, columns) the layer has for an image of this size."""
        geometry = dict(self.geometry)[layer]
        if geometry.reach is not None:
            return size[0] // geometry.stride, size[1] // geometry.stride
        _, height, width, _ = self.model.compute_output_shape((1, *size, 3))[layer]
        return height, width

    def tiles(self, size: Size, side: int) -> Iterator[Tile]:
        """Cuts an image into tiles of about `side` px, with the margin that this network needs.

        Raises:
          InputError: this network cannot be computed in tiles.
        """
        layers = [geometry for _, geometry in self.geometry]
        step = alignment(layers)
        return tiles(size, -(-side // step) * step, margin(layers), step)


class _Recent:
    """Keeps the objectives that were used last, with their compiled functions, for later calls."""

    def __init__(self, most: int):
        self._most = most
        self._objectives: OrderedDict[Objective, Objective] = OrderedDict()
        self._lock = threading.Lock()

    def setdefault(self, objective: Objective) -> Objective:
        """Returns the kept objective that equals this one; else keeps this one and returns it."""
        with self._lock:
            found = self._objectives.setdefault(objective, objective)
            self._objectives.move_to_end(found)
            while len(self._objectives) > self._most:
                self._objectives.popitem(last=False)
            return found


_recent = _Recent(4)


def extractor(
    objective: Objective, layers: tuple[str, ...]
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the network alone, compiled up to these layers: images -> {layer: features}."""
    chosen = tuple(sorted(layers))  # whatever their order, they are compiled once

    def extract(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = objective.model(images)
        return {layer: features[layer] for layer in chosen}

    return objective.compiled(("extractor", chosen), lambda: objective.compile(extract))


def evaluate(
    objective: Objective,
    octaves: Sequence[int],
    images: tf.Tensor,
    targets: Targets,
    weights: LossWeights,
) -> Evaluation:
    """Returns loss and gradient of whole images.

    Args:
      octaves: the number of the octave of each of `targets.views`; 0 is full size. Other octaves
        are not given to the network.
      images: [B, H, W, 3].

    Returns:
      The total [B], NaN for images whose gradient is not finite; {"content", "style", "tv",
      "attention"}: [B] each, which add up to it; and the total's gradient [B, H, W, 3].
    """
    style_layers, content_layers = dict(objective.style_layers), dict(objective.content_layers)
    with tf.GradientTape() as tape:
        tape.watch(images)
        levels = resampling.octaves(images, max(octaves) + 1)
        features = {octave: objective.model(levels[octave]) for octave in {0, *octaves}}
        grams = [
            {
                layer: gram_matrix(features[octave][layer], view.positions.get(layer))
                for layer in style_layers
            }
            for octave, view in zip(octaves, targets.views, strict=True)
        ]
        content = feature_loss(features[0], targets.content, content_layers)
        attention = tf.zeros_like(content)
        if targets.attention:
            layers = dict(objective.attention_layers)
            attention = feature_loss(features[0], targets.attention, layers)
        total, terms = weighted_total(
            weights,
            content=content,
            attention=attention,
            style=style_loss(grams, targets.views, style_layers),
            tv=total_variation(images),
        )
        amplified = total * objective.gradient_gain
    gradient = tape.gradient(amplified, images) / objective.gradient_gain
    finite = tf.reduce_all(tf.math.is_finite(gradient), axis=[1, 2, 3])
    return tf.where(finite, total, float("nan")), terms, gradient
