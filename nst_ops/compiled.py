"""Traces a function once for all shapes; else a collection of a thousand shapes would be traced a
thousand times.
"""

from collections.abc import Callable

import tensorflow as tf


def uses_xla() -> bool:
    """Tells whether XLA compiles every new shape: on GPUs, where it makes the step faster."""
    return bool(tf.config.list_logical_devices("GPU"))


class Compiled:
    """Wraps a function as a `tf.function` traced once for any batch, height and width.

    On a GPU, XLA compiles that one trace once per shape.

    Args:
      function: takes nested structures of tensors: images and features [B, H, W, C], matrices
        [B, C, C], vectors [B, C], rows [B] and scalars.
    """

    def __init__(self, function: Callable):
        self.function = tf.function(function, jit_compile=uses_xla())
        self._concrete: dict[tuple[tf.TensorSpec, ...], Callable] = {}

    @property
    def traces(self) -> int:
        """Returns the number of traces: 1, unless arguments differed in more than those sizes, such
        as in the number of octaves.
        """
        return len(self._concrete)

    def __call__(self, *arguments):
        specs = tf.nest.map_structure(_any_size, arguments)
        key = tuple(tf.nest.flatten(specs))
        if key not in self._concrete:
            self._concrete[key] = self.function.get_concrete_function(*specs)
        return self._concrete[key](*arguments)


def _any_size(tensor: tf.Tensor) -> tf.TensorSpec:
    fixed = {4: 3, 3: 1, 2: 1, 1: 1, 0: 0}[tensor.shape.rank]  # leading dimensions that may change
    return tf.TensorSpec([None] * fixed + tensor.shape[fixed:], tensor.dtype)
