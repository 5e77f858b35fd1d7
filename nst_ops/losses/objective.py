"""What a picture is scored by: loss and gradient of a batch of images, in one graph."""

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
    """A network and how its features are weighted, with all that is compiled of them.

    Compiled functions hold the network, so they live here and nowhere else: with the objective,
    they go.
    """

    model: keras.Model
    content_layers: tuple[tuple[str, float], ...]
    style_layers: tuple[tuple[str, float], ...]
    attention_layers: tuple[tuple[str, float], ...]  # none where the term is not in use
    geometry: tuple[tuple[str, LayerGeometry], ...]  # of the layers in use
    precision: str
    eager: bool = False
    network: str = ""  # names the model between processes; "" if nothing does
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
        """As the settings say.

        Raises:
          InputError: the model does not give a layer in use, or gives something else for it.
        """
        output = getattr(model, "output", None)  # which only functional models have
        given = set(output) if isinstance(output, dict) else set()
        attention_layers = settings.attention_layers_in_use
        if "attention_layers" not in settings.model_fields_set and not given >= {*attention_layers}:
            attention_layers = {}  # the default ones are VGG19's, and this is another network
        layers = {*settings.content_layers, *settings.style_layers, *attention_layers}
        if not layers <= given:
            raise InputError(
                f"the model gives {sorted(given)}, which lacks {sorted(layers - given)}; "
                "it must be a functional keras.Model whose output is a dict of feature maps by "
                "layer"
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
        """What its features depend on; without the model itself, which a key must not keep."""
        return self.network or weakref.ref(self.model), self.style_layers, self.precision

    @property
    def gradient_gain(self) -> float:
        """float16 loses gradients below 6e-8 on their way back; they travel multiplied by this."""
        return 2.0**16 if self.precision == "float16" else 1.0

    def compile(self, function: Callable) -> Callable:
        """The function itself for eager runs."""
        return function if self.eager else Compiled(function)

    def compiled(self, key: Hashable, make: Callable[[], Callable]) -> Callable:
        """What `make` gives, made once for each key."""
        if key not in self._functions:
            self._functions[key] = make()
        return self._functions[key]

    @property
    def least_side(self) -> int:
        """Shortest side in px of an image that the network finds a texture in."""
        return least_side(geometry for _, geometry in self.geometry)

    @property
    def tileable(self) -> bool:
        """Whether parts of an image give the features of the whole."""
        return all(geometry.reach is not None for _, geometry in self.geometry)

    def stride(self, layer: str) -> int:
        """Pixels of the image, along each side, for one position of the layer."""
        return dict(self.geometry)[layer].stride

    def tiles(self, size: Size, side: int) -> Iterator[Tile]:
        """Cuts an image into tiles of about `side` px, with the margin that this network needs.

        Raises:
          InputError: it cannot be computed in tiles.
        """
        layers = [geometry for _, geometry in self.geometry]
        step = alignment(layers)
        return tiles(size, -(-side // step) * step, margin(layers), step)


class _Recent:
    """The objectives that were used last, so that another call finds what was compiled for it."""

    def __init__(self, most: int):
        self._most = most
        self._objectives: OrderedDict[Objective, Objective] = OrderedDict()
        self._lock = threading.Lock()

    def setdefault(self, objective: Objective) -> Objective:
        """The one that equals it, if there is one; else itself, from now on."""
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
    """The network alone, compiled, no further than these layers: images -> {layer: features}."""

    def extract(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = objective.model(images)
        return {layer: features[layer] for layer in layers}

    return objective.compiled(("extractor", layers), lambda: objective.compile(extract))


def evaluate(
    objective: Objective,
    octaves: Sequence[int],
    images: tf.Tensor,
    targets: Targets,
    weights: LossWeights,
) -> Evaluation:
    """Loss and gradient of whole images.

    Args:
      octaves: those that `targets.style` is of, by number; 0 is full size. Of others, the network
        sees nothing.
      images: [B, H, W, 3].

    Returns:
      The total [B], NaN where the gradient is not finite; {"content", "style", "tv",
      "attention"}: [B] each, which add up to it; and the total's gradient [B, H, W, 3].
    """
    style_layers, content_layers = dict(objective.style_layers), dict(objective.content_layers)
    with tf.GradientTape() as tape:
        tape.watch(images)
        levels = resampling.octaves(images, max(octaves) + 1)
        features = {octave: objective.model(levels[octave]) for octave in {0, *octaves}}
        grams = [
            {layer: gram_matrix(features[octave][layer]) for layer in style_layers}
            for octave in octaves
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
            style=style_loss(grams, targets.style, style_layers, targets.octave_weights),
            tv=total_variation(images),
        )
        amplified = total * objective.gradient_gain
    gradient = tape.gradient(amplified, images) / objective.gradient_gain
    finite = tf.reduce_all(tf.math.is_finite(gradient), axis=[1, 2, 3])
    return tf.where(finite, total, float("nan")), terms, gradient
