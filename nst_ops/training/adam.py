"""Adam on the variables of a network."""

from collections.abc import Sequence

import tensorflow as tf


class NetworkAdam:
    """Implements Adam (Kingma & Ba 2015), with gradients shortened to a length.

    All that it remembers is in variables, which a checkpoint can hold.

    Args:
      variables: what it changes.
      clip: longest gradient, over all variables together.
      beta2: decay of the mean squared gradient.
    """

    def __init__(self, variables: Sequence[tf.Variable], clip: float, beta2: float = 0.99):
        self.variables = list(variables)
        self.first = [tf.Variable(tf.zeros(v.shape)) for v in variables]
        self.second = [tf.Variable(tf.zeros(v.shape)) for v in variables]
        self.steps = tf.Variable(0.0)
        self._clip, self._beta1, self._beta2 = clip, 0.9, beta2

    @property
    def state(self) -> list[tf.Variable]:
        """Returns all that has to be kept beside the variables themselves."""
        return [*self.first, *self.second, self.steps]

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        """Takes one step of size `rate`; returns the length that the gradient had."""
        gradients, length = tf.clip_by_global_norm(gradients, self._clip)
        self.steps.assign(self.steps + 1.0)
        unbias1, unbias2 = (1.0 - beta**self.steps for beta in (self._beta1, self._beta2))
        for variable, first, second, gradient in zip(
            self.variables, self.first, self.second, gradients, strict=True
        ):
            first.assign(self._beta1 * first + (1.0 - self._beta1) * gradient)
            second.assign(self._beta2 * second + (1.0 - self._beta2) * tf.square(gradient))
            step = (first / unbias1) / (tf.sqrt(second / unbias2) + 1e-8)
            variable.assign(variable - rate * step)
        return length
