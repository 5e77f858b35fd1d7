"""A second network, which learns to tell crops of the paintings from what the first one paints, so
that the first one learns to paint what it cannot tell.

It judges patches, not pictures (Isola et al. 2017), at two sizes, and knows which style it is to
see (Miyato & Koyama 2018). Spectral normalisation (Miyato et al. 2018) and squared distances (Mao
et al. 2017) keep both in balance.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.size import fit

_CHANNELS = (32, 64, 128)
_SIZES = 2  # full and half
_LIGHT = (0.9, 1.1)  # real crops are shown a little lighter or darker


class Discriminator:
    """Judges crops.

    Args:
      styles: how many styles there are.
      seed: of its weights.
    """

    def __init__(self, styles: int, seed: int):
        keras.utils.set_random_seed(seed + 1)
        image = keras.Input((None, None, 3))
        x = 2.0 * image - 1.0
        for channels in _CHANNELS:
            x = _normalized(keras.layers.Conv2D(channels, 4, 2, padding="same"))(x)
            x = keras.layers.LeakyReLU(0.2)(x)
        self.model = keras.Model(image, x)
        self._logit = _normalized(keras.layers.Conv2D(1, 3, padding="same"))
        self._styles = styles
        self._of_style = keras.layers.Dense(
            _CHANNELS[-1], use_bias=False, kernel_initializer="zeros"
        )
        self._logit.build((None, None, None, _CHANNELS[-1]))
        self._of_style.build((None, styles))

    @property
    def variables(self) -> list[tf.Variable]:
        """Returns what is to be trained."""
        parts = (self.model, self._logit, self._of_style)
        return [v.value for part in parts for v in part.trainable_variables]

    @property
    def state(self) -> list[tf.Variable]:
        """Returns all of its variables."""
        parts = (self.model, self._logit, self._of_style)
        return [v.value for part in parts for v in part.variables if v.dtype == "float32"]

    def judge(self, images: tf.Tensor, styles: tf.Tensor, *, learns: bool) -> list[tf.Tensor]:
        """Returns how real each patch looks, 1: real, 0: made; [B, h, w] for each size.

        Args:
          images: [B, H, W, 3].
          styles: [B] int32.
          learns: whether the norms of its weights are measured anew.
        """
        judgements = []
        for level in resampling.octaves(images, _SIZES):
            features = self.model(level, training=learns)
            logit = self._logit(features, training=learns)[..., 0]
            style = self._of_style(tf.one_hot(styles, self._styles))[:, None, None]
            judgements.append(logit + tf.reduce_mean(features * style, axis=-1))
        return judgements


def distance_from(judgements: Sequence[tf.Tensor], goal: float) -> tf.Tensor:
    """Returns the mean squared distance of judgements from a goal, [B]."""
    means = [tf.reduce_mean(tf.square(each - goal), axis=[1, 2]) for each in judgements]
    return tf.add_n(means) / len(means)


class PaintingCrops:
    """Gives crops of paintings, turned and in changed light.

    Args:
      paintings: [h, w, 3] each, in the order of the styles.
      style_size: long side in px at which they are seen.
      crop: side in px.
      seed: of everything random.
    """

    def __init__(self, paintings: Sequence[np.ndarray], style_size: int, crop: int, seed: int):
        self._crop, self._seed = crop, seed
        self._seen = []
        for painting in paintings:
            size = fit(painting.shape[:2], style_size)
            if min(size) < crop:  # its crops are then as sharp as the painting is
                size = fit(size, -(-crop * max(size) // min(size)), enlarge=True)
            seen = resampling.resize(tf.constant(painting[None], tf.float32), size)[0].numpy()
            self._seen.append(np.clip(seen, 0.0, 1.0))

    def of_step(self, step: int, styles: Sequence[int]) -> np.ndarray:
        """Returns the crops of this step, [B, crop, crop, 3], which follow from its number."""
        random = np.random.default_rng([self._seed, 2, step])
        crops = []
        for style in styles:
            seen = self._seen[style]
            top, left = (int(random.integers(side - self._crop + 1)) for side in seen.shape[:2])
            part = seen[top : top + self._crop, left : left + self._crop]
            part = part[:, :: 1 if random.random() < 0.5 else -1]
            crops.append(np.clip(part * random.uniform(*_LIGHT), 0.0, 1.0))
        return np.stack(crops).astype(np.float32)


def _normalized(layer: keras.layers.Layer) -> keras.layers.Layer:
    return keras.layers.SpectralNormalization(layer)
