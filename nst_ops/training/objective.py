"""What a network is trained towards: the optimizer's losses, for crops of photos in many styles.

Content is compared after instance normalisation, so that a change of palette costs nothing; all
that the losses need of the paintings is computed once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.size import fit
from nst_ops.losses.attention import answers, thin
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.terms import View, feature_loss, style_loss, total_variation
from nst_ops.training.settings import TrainingSettings
from nst_ops.vgg.network import vgg19
from nst_ops.vgg.precision import resolve_precision

TERMS = ("style", "content", "attention", "tv")
Features = Mapping[str, tf.Tensor]


class TrainingObjective:
    """Holds VGG19, and what it sees in the paintings.

    Args:
      settings: of the training.
      paintings: [h, w, 3] each, sRGB in [0, 1], at least as large as they are to be seen.
    """

    def __init__(self, settings: TrainingSettings, paintings: Sequence[np.ndarray]):
        self._settings = settings
        self._attentive = settings.attention_layers if settings.attention_weight else {}
        layers = {*settings.style_layers, *settings.content_layers, *self._attentive}
        precision = resolve_precision(settings.precision)
        self._vgg = vgg19(layers, weights=settings.weights, precision=precision)
        self._octaves = [octave for octave, weight in enumerate(settings.octaves) if weight]
        seen = [self._see(painting) for painting in paintings]
        self._grams = [
            {layer: tf.concat([each[octave][layer] for each, _ in seen], 0) for layer in grams}
            for octave, grams in enumerate(seen[0][0])
        ]
        self._answers = {
            layer: _stacked([given[layer] for _, given in seen]) for layer in self._attentive
        }

    def _see(self, painting: np.ndarray) -> tuple[list[Features], dict[str, tuple]]:
        """Returns a painting's Gram matrices by octave, and features and keys for attention."""
        image = tf.constant(painting[None], tf.float32)
        size = fit(painting.shape[:2], self._settings.style_size)
        image = tf.clip_by_value(resampling.resize(image, size), 0.0, 1.0)
        levels = resampling.octaves(image, max(self._octaves) + 1)
        grams = []
        for octave in self._octaves:
            features = self._vgg(levels[octave])
            layers = self._settings.style_layers
            grams.append({layer: gram_matrix(features[layer]) for layer in layers})
        features = self._vgg(image)
        given = {layer: answers(thin(features[layer])) for layer in self._attentive}
        return grams, {layer: (each.features, each.keys) for layer, each in given.items()}

    def losses(
        self, photos: tf.Tensor, styles: tf.Tensor, pictures: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns the terms of the loss, not yet weighted, {one of `TERMS`: [B]}.

        Args:
          photos: [B, H, W, 3].
          styles: [B] int32, the style of each.
          pictures: what the network made of them, [B, H, W, 3].
        """
        levels = resampling.octaves(pictures, max(self._octaves) + 1)
        full = self._vgg(pictures)
        seen = [full if octave == 0 else self._vgg(levels[octave]) for octave in self._octaves]
        shown = self._vgg(photos)
        terms = {
            "style": self._style(seen, styles),
            "content": _structure_loss(full, shown, self._settings.content_layers),
            "attention": tf.zeros(tf.shape(styles)),
            "tv": total_variation(pictures),
        }
        if self._attentive:
            targets = {layer: self._target(layer, full, shown, styles) for layer in self._attentive}
            terms["attention"] = feature_loss(full, targets, self._attentive)
        return terms

    def total(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted sum of the terms, [B]."""
        settings = self._settings
        return (
            terms["style"]
            + settings.content_weight * terms["content"]
            + settings.attention_weight * terms["attention"]
            + settings.tv_weight * terms["tv"]
        )

    def _style(self, seen: Sequence[Features], styles: tf.Tensor) -> tf.Tensor:
        weights = [self._settings.octaves[octave] for octave in self._octaves]
        layers = self._settings.style_layers
        views = [
            View(
                {layer: tf.gather(gram, styles) for layer, gram in grams.items()},
                tf.fill(tf.shape(styles), weight / sum(weights)),
                {},
            )
            for weight, grams in zip(weights, self._grams, strict=True)
        ]
        found = [{layer: gram_matrix(features[layer]) for layer in layers} for features in seen]
        return style_loss(found, views, layers)

    def _target(self, layer: str, full: Features, shown: Features, styles: tf.Tensor) -> tf.Tensor:
        """Returns the painting's features that each position should take after, [B, h, w, C]."""
        asked = [_normalized(features[layer]) for features in (full, shown)]
        asked = tf.math.l2_normalize(tf.stop_gradient(tf.add_n(asked)), axis=-1)
        features, keys, silent = self._answers[layer]
        shape = tf.shape(asked)
        flat = tf.reshape(asked, [shape[0], -1, asked.shape[-1]])

        def answer(of_one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            questions, style = of_one
            similarity = tf.matmul(questions, keys[style], transpose_b=True) + silent[style]
            return tf.gather(features[style], tf.argmax(similarity, axis=-1))

        # One by one: all similarities of a batch together would take most of the memory.
        found = tf.map_fn(answer, (flat, styles), fn_output_signature=tf.float32)
        return tf.reshape(found, shape)


def _stacked(given: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, ...]:
    """Returns features and keys [styles, M, C] of all paintings, the shorter filled up; and
    [styles, M], 0 for positions that are there, else -inf.
    """
    most = max(len(features) for features, _ in given)

    def filled(values: tf.Tensor) -> tf.Tensor:
        return tf.pad(tf.cast(values, tf.float32), [[0, most - len(values)], [0, 0]])

    silent = [tf.where(tf.range(most) < len(features), 0.0, -float("inf")) for features, _ in given]
    features, keys = zip(*given, strict=True)
    return (
        tf.stack(list(map(filled, features))),
        tf.stack(list(map(filled, keys))),
        tf.stack(silent),
    )


def _structure_loss(mine: Features, goals: Features, layers: Mapping[str, float]) -> tf.Tensor:
    """Returns the mean squared distance of instance-normalised features, [B]: 0 for the photo
    itself, 2 for an unrelated picture.
    """
    terms = [
        weight
        * tf.reduce_mean(
            tf.square(_normalized(mine[layer]) - _normalized(goals[layer])), axis=[1, 2, 3]
        )
        for layer, weight in layers.items()
    ]
    return tf.add_n(terms) / sum(layers.values())


def _normalized(features: tf.Tensor) -> tf.Tensor:
    """Returns features [B, h, w, C] as float32 with mean 0 and variance 1 over positions."""
    features = tf.cast(features, tf.float32)
    mean, variance = tf.nn.moments(features, axes=[1, 2], keepdims=True)
    return (features - mean) * tf.math.rsqrt(variance + 1e-6)
