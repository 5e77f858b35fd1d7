"""What a network is trained on: crops of photos, each of which follows from its number alone, so
that a training that was interrupted goes on with exactly the samples that it would have had.
"""

import functools
import threading
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.images.codec import decode, probe
from nst_ops.images.size import fit

_LARGEST_SCALE = 2.5  # the short side of a photo is shown at up to so many times the crop's side
_LONGEST = 16  # a photo is of no use if it is more times as long as wide
_TRIES = 1000  # photos in a row, of which one must be readable
_GAIN, _GAMMA = (0.8, 1.25), (0.75, 1.35)  # of light and colour; few photos become more by it


class Photos:
    """Gives crops of photos, at random scales, turned and in changed light.

    Files are read when they are needed; nothing of them is kept. Those that are no images are
    skipped and noted.

    Args:
      paths: of the files.
      crop: side in px.
      styles: the numbers of the styles that samples are painted in.
      seed: of everything random.
    """

    def __init__(self, paths: Sequence[str], crop: int, styles: Sequence[int], seed: int):
        self._paths, self._crop, self._styles, self._seed = list(paths), crop, list(styles), seed
        self._order = functools.lru_cache(2)(self._order_of)
        self._lock = threading.Lock()
        self.unusable: dict[str, str] = {}  # {path: why}
        self.failure: InputError | None = None  # why there was no sample

    def dataset(self, first: int, last: int, size: int) -> tf.data.Dataset:
        """Returns batches number `first` to `last - 1`: pairs of photos [size, crop, crop, 3], sRGB
        in [0, 1], and the numbers of the styles that they are to be painted in, [size] int32.
        """

        def load(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            photo, style = tf.numpy_function(self._sample, [number], [tf.float32, tf.int32])
            return tf.ensure_shape(photo, [self._crop, self._crop, 3]), tf.ensure_shape(style, [])

        numbers = tf.data.Dataset.range(first * size, last * size)
        samples = numbers.map(load, num_parallel_calls=2, deterministic=True)
        return samples.batch(size, drop_remainder=True).prefetch(2)

    def _sample(self, number: int) -> tuple[np.ndarray, np.int32]:
        number = int(number)
        random = np.random.default_rng([self._seed, 1, number])
        style = np.int32(self._styles[number % len(self._styles)])
        order, place = divmod(number, len(self._paths))
        why = ""
        for try_ in range(min(_TRIES, len(self._paths))):
            path = self._paths[self._order(order)[(place + try_) % len(self._paths)]]
            try:
                return self._crop_of(path, random), style
            except (InputError, OSError) as error:
                why = str(error)
                with self._lock:
                    self.unusable[path] = why
        self.failure = InputError(f"not one of the photos can be read; the last: {why}")
        raise self.failure

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._paths))

    def _crop_of(self, path: str, random: np.random.Generator) -> np.ndarray:
        with open(path, "rb") as file:
            data = file.read()
        size = probe(data, path=path).size
        if max(size) > _LONGEST * min(size):
            raise InputError(f"{size[0]}x{size[1]} px is too narrow to learn from", path=path)
        short = self._crop * random.uniform(1.0, _LARGEST_SCALE)
        long_side = int(np.ceil(short * max(size) / min(size)))
        small = min(fit(size, long_side)) < self._crop
        if small:  # it is enlarged no more than it must be
            long_side = int(np.ceil(self._crop * max(size) / min(size)))
        photo = decode(data, path=path, long_side=long_side, enlarge=small).on_white()
        top, left = (int(random.integers(side - self._crop + 1)) for side in photo.shape[:2])
        part = photo[top : top + self._crop, left : left + self._crop]
        if random.random() < 0.5:
            part = part[:, ::-1]
        light = part * random.uniform(*_GAIN, 3) * random.uniform(*_GAIN)
        return np.clip(light, 0.0, 1.0).astype(np.float32) ** np.float32(random.uniform(*_GAMMA))
