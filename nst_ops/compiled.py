"""One trace for all shapes: without it, a collection of a thousand shapes is traced a thousand
times.
"""

from collections.abc import Callable

import tensorflow as tf


class Compiled:
    """A `tf.function` traced once for tensors of any batch, height and width.

    On a GPU, XLA compiles that one trace once per shape.

    Args:
      function: of nested structures of tensors: images and features [B, H, W, C], matrices
        [B, C, C], rows [B] and scalars.
    """

    def __init__(self, function: Callable):
        jit = bool(tf.config.list_logical_devices("GPU"))
        self.function = tf.function(function, jit_compile=jit)
        self.traces = 0
        self._concrete: list[Callable] = []

    def __call__(self, *arguments):
        if not self._concrete:
            specs = tf.nest.map_structure(_any_size, arguments)
            self._concrete.append(self.function.get_concrete_function(*specs))
            self.traces += 1
        return self._concrete[0](*arguments)


def _any_size(tensor: tf.Tensor) -> tf.TensorSpec:
    fixed = {4: 3, 3: 1, 1: 1, 0: 0}[tensor.shape.rank]  # leading dimensions that may change
    return tf.TensorSpec([None] * fixed + tensor.shape[fixed:], tensor.dtype)
