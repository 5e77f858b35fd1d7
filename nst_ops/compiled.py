"""One trace for all shapes: without it, a collection of a thousand shapes is traced a thousand
times.
"""

from collections.abc import Callable

import tensorflow as tf


def uses_xla() -> bool:
    """Whether every new shape costs a compilation: on GPUs, where XLA makes the step faster."""
    return bool(tf.config.list_logical_devices("GPU"))


class Compiled:
    """A `tf.function` traced once for tensors of any batch, height and width.

    On a GPU, XLA compiles that one trace once per shape.

    Args:
      function: of nested structures of tensors: images and features [B, H, W, C], matrices
        [B, C, C], rows [B] and scalars.
    """

    def __init__(self, function: Callable):
        self.function = tf.function(function, jit_compile=uses_xla())
        self._concrete: dict[tuple[tf.TensorSpec, ...], Callable] = {}

    @property
    def traces(self) -> int:
        """One, unless it was called with different structures, such as numbers of octaves."""
        return len(self._concrete)

    def __call__(self, *arguments):
        specs = tf.nest.map_structure(_any_size, arguments)
        key = tuple(tf.nest.flatten(specs))
        if key not in self._concrete:
            self._concrete[key] = self.function.get_concrete_function(*specs)
        return self._concrete[key](*arguments)


def _any_size(tensor: tf.Tensor) -> tf.TensorSpec:
    fixed = {4: 3, 3: 1, 1: 1, 0: 0}[tensor.shape.rank]  # leading dimensions that may change
    return tf.TensorSpec([None] * fixed + tensor.shape[fixed:], tensor.dtype)
