"""L-BFGS on a batch of images, each independent of the others.

An optimizer proposes pictures: evaluate `state.trial`, and pass loss and gradient to `update`,
which returns the next state. One update is one evaluation; line searches are spread over updates. A
state holds only tensors, so `update` can run inside a compiled step. Whatever concerns one image
(history, step length, acceptance) is a row of a tensor [B, ...], so a batch gives what single runs
give, and can be split and joined row by row. Adam has the same interface.

`state.image` is the best picture so far and `state.loss` its loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from nst_ops.images.resampling import resize
from nst_ops.images.size import Size
from nst_ops.optimizers.rows import per_image, select_rows
from nst_ops.settings import HISTORY

_EXPONENT = 0.35  # measured: .25 gives speckles; from .5 on, textures come late
_FIRST_STEP = 0.02  # RMS change of the first step after a (re)start, in a pixel's range of 1
_SUFFICIENT = 1e-4  # Armijo's constant (Nocedal & Wright 2006, section 3.1)
_RESTART_AFTER = 4  # rejections in a row, after which the history is dropped


class LBFGSState(NamedTuple):
    """Holds the state of L-BFGS for a batch of B images."""

    trial: tf.Tensor  # [B, H, W, 3], the picture to evaluate next
    image: tf.Tensor  # [B, H, W, 3], the best so far
    loss: tf.Tensor  # [B], of `image`; infinite before the first evaluation
    gradient: tf.Tensor  # [B, H, W, 3], at `image`
    direction: tf.Tensor  # [B, H, W, 3]; trial = clip(image + length * direction)
    length: tf.Tensor  # [B], of the step, in units of `direction`
    rejections: tf.Tensor  # [B] int32, trials in a row that did not improve
    scale: tf.Tensor  # [B], of the initial inverse Hessian; 0 while there is no history
    # The pairs of Nocedal & Wright 2006, section 7.2: steps, and the gradients' changes along them.
    s: tuple[tf.Tensor, ...]  # history x [B, H, W, 3], newest first
    y: tuple[tf.Tensor, ...]  # history x [B, H, W, 3]
    curvatures: tuple[tf.Tensor, ...]  # history x [B], <s, y>; 0 marks a pair as empty


@dataclass(frozen=True)
class LBFGS:
    """Implements L-BFGS (Nocedal 1980) with a filter in Fourier space as initial inverse Hessian.

    Pictures have spectra that fall like 1/f. A filter f^(-2 e) as the initial inverse Hessian is
    the same as optimizing the coefficients of waves that are weighted by f^-e (Olah et al. 2017):
    broad strokes move first and no pixel noise appears. Pixels stay in [0, 1]: trials are clipped,
    and a gradient that pushes further out is set to 0. Steps that do not improve the loss enough
    (Armijo) are shortened, for each image by itself.

    Args:
      history: how many steps are remembered; each takes two pictures' memory.
      storage: type in which they are kept: `float32`, or `bfloat16` for half the memory.
    """

    history: int = HISTORY
    storage: str = "float32"

    def start(self, image: tf.Tensor) -> LBFGSState:
        """Returns the state whose first trial is `image`, [B, H, W, 3] in [0, 1]."""
        zero, zeros = tf.zeros_like(image), tf.zeros_like(image[:, 0, 0, 0])
        return LBFGSState(
            trial=image,
            image=image,
            loss=zeros + float("inf"),
            gradient=zero,
            direction=zero,
            length=zeros,
            rejections=tf.zeros_like(zeros, tf.int32),
            scale=zeros,
            s=(tf.cast(zero, self.storage),) * self.history,
            y=(tf.cast(zero, self.storage),) * self.history,
            curvatures=(zeros,) * self.history,
        )

    def update(self, state: LBFGSState, loss: tf.Tensor, gradient: tf.Tensor) -> LBFGSState:
        """Returns the next state, given loss [B] and gradient [B, H, W, 3] at `state.trial`.

        A trial whose loss is not finite is rejected and leaves nothing in the history.
        """
        finite = tf.math.is_finite(loss)
        gradient = select_rows(finite, _projected_gradient(gradient, state.trial), state.gradient)
        s = state.trial - state.image
        expected = _dot(state.gradient, s)  # negative: the change of the loss if it were linear
        # s and y are rounded to `storage` first, so that their products fit the stored pairs.
        stored = tf.cast(s, self.storage), tf.cast(gradient - state.gradient, self.storage)
        s, y = (tf.cast(part, tf.float32) for part in stored)
        first = tf.math.is_inf(state.loss)
        accepted = finite & (first | (loss <= state.loss + _SUFFICIENT * expected))

        curvature, stiffness = _dot(s, y), _smooth_norm(y)
        # A pair whose curvature is negative or vanishes says nothing about a minimum.
        useful = accepted & ~first & (curvature > 1e-6 * tf.sqrt(_dot(s, s) * _dot(y, y)))
        scale = tf.where(useful, tf.math.divide_no_nan(curvature, stiffness), state.scale)
        # Every image adds a pair at every step, an empty one if it has none, so that all images
        # stay in step.
        all_s = (stored[0], *state.s[:-1])
        all_y = (stored[1], *state.y[:-1])
        curvatures = (tf.where(useful, curvature, 0.0), *state.curvatures[:-1])

        rejections = tf.where(accepted, 0, state.rejections + 1)
        restart = rejections >= _RESTART_AFTER
        curvatures = tuple(tf.where(restart, 0.0, c) for c in curvatures)
        scale = tf.where(restart, 0.0, scale)

        image = select_rows(accepted, state.trial, state.image)
        with tf.control_dependencies([scale, *curvatures]):  # so that their inputs are freed first
            new_gradient = select_rows(accepted, gradient, state.gradient)
        direction = -_two_loops(new_gradient, all_s, all_y, curvatures, scale)
        unscaled = scale == 0.0
        rms = tf.sqrt(
            _dot(direction, direction) / tf.cast(tf.reduce_prod(tf.shape(image)[1:]), tf.float32)
        )
        first_length = (
            _FIRST_STEP
            * tf.math.divide_no_nan(1.0, rms)
            / 4.0 ** tf.cast(rejections // _RESTART_AFTER, tf.float32)
        )
        fresh = accepted | restart
        direction = select_rows(fresh, direction, state.direction)
        shorter = state.length * _backtrack(state.loss, loss, expected)
        length = tf.where(fresh, tf.where(unscaled, first_length, 1.0), shorter)
        trial = tf.clip_by_value(image + per_image(length) * direction, 0.0, 1.0)
        return LBFGSState(
            trial=trial,
            image=image,
            loss=tf.where(accepted, loss, state.loss),
            gradient=new_gradient,
            direction=direction,
            length=length,
            rejections=rejections,
            scale=scale,
            s=all_s,
            y=all_y,
            curvatures=curvatures,
        )

    def fits(self, state: object) -> bool:
        """Tells whether the state could be one of this optimizer's."""
        if not isinstance(state, LBFGSState):
            return False
        return [s.dtype for s in state.s] == [tf.as_dtype(self.storage)] * self.history

    def resize(self, state: LBFGSState, size: Size) -> LBFGSState:
        """Returns the state for the next scale. It keeps the history, resized; the picture has to
        be evaluated anew.

        With more pixels, each moves the loss by less, so the entries of a gradient shrink; so do
        the `y`, which are differences of gradients.
        """
        shrink = (state.image.shape[1] * state.image.shape[2]) / (size[0] * size[1])
        image = tf.clip_by_value(resize(state.image, size), 0.0, 1.0)
        all_s = tuple(tf.cast(resize(s, size), self.storage) for s in state.s)
        all_y = tuple(tf.cast(resize(y, size) * shrink, self.storage) for y in state.y)
        curvatures = tuple(
            tf.where(old > 0.0, tf.maximum(_dot(*_widened(old, s, y)), 0.0), 0.0)
            for old, s, y in zip(state.curvatures, all_s, all_y, strict=True)
        )
        return self.start(image)._replace(
            scale=state.scale / shrink, s=all_s, y=all_y, curvatures=curvatures
        )


def _two_loops(
    gradient: tf.Tensor,
    all_s: tuple[tf.Tensor, ...],
    all_y: tuple[tf.Tensor, ...],
    curvatures: tuple[tf.Tensor, ...],
    scale: tf.Tensor,
) -> tf.Tensor:
    """Multiplies a gradient by the estimated inverse Hessian (Nocedal & Wright 2006, alg. 7.4)."""
    pairs = list(zip(all_s, all_y, curvatures, strict=True))
    alphas = []
    q = gradient
    for s, y, curvature in pairs:
        s, y = _widened(q, s, y)
        alphas.append(tf.math.divide_no_nan(_dot(s, q), curvature))
        q -= per_image(alphas[-1]) * y
    r = per_image(tf.where(scale == 0.0, 1.0, scale)) * _smooth(q)
    for (s, y, curvature), alpha in reversed(list(zip(pairs, alphas, strict=True))):
        s, y = _widened(r, s, y)
        beta = tf.math.divide_no_nan(_dot(y, r), curvature)
        r += per_image(tf.where(curvature > 0.0, alpha - beta, 0.0)) * s
    return r


def _widened(after: tf.Tensor, *images: tf.Tensor) -> list[tf.Tensor]:
    """Casts stored images to float32, but only once `after` is computed; else all pairs would be in
    memory as float32 at once.
    """
    with tf.control_dependencies([after]):
        return [tf.cast(image, tf.float32) for image in images]


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """Multiplies the spectrum of [B, H, W, 3] by `_gain`."""
    size = tf.shape(images)[1], tf.shape(images)[2]
    gain = tf.cast(_gain(*size), tf.complex64)
    smooth: list[tf.Tensor] = []
    for plane in _planes(images, smooth):
        smooth.append(tf.signal.irfft2d(tf.signal.rfft2d(plane) * gain, fft_length=size))
    return tf.ensure_shape(tf.stack(smooth, axis=-1), images.shape)


def _smooth_norm(images: tf.Tensor) -> tf.Tensor:
    """Returns the inner product <images, _smooth(images)>, [B], by Parseval's theorem."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    # The half spectrum has its inner columns once; the whole one also has their mirror images.
    columns = tf.range(width // 2 + 1)
    twice = tf.where((columns == 0) | (2 * columns == width), 1.0, 2.0)
    weight = _gain(height, width) * twice / tf.cast(height * width, tf.float32)
    norms: list[tf.Tensor] = []
    for plane in _planes(images, norms):
        spectrum = tf.signal.rfft2d(plane)
        power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
        norms.append(tf.reduce_sum(weight * power, axis=[1, 2]))
    return tf.add_n(norms)


def _planes(images: tf.Tensor, done: list[tf.Tensor]) -> Iterator[tf.Tensor]:
    """Yields the colours of [B, H, W, 3] as [B, H, W], each only once the last result in `done` is
    computed. Otherwise the spectra of all colours would take the memory of six pictures.
    """
    for channel in range(images.shape[-1]):
        with tf.control_dependencies(done[-1:]):
            plane = images[..., channel]
        yield plane


def _gain(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the filter f^(-2 * _EXPONENT) over a half spectrum, [H, W // 2 + 1]; f is in cycles
    per longest side, at least 1.
    """
    longest = tf.cast(tf.maximum(height, width), tf.float32)
    rows = tf.cast(tf.minimum(tf.range(height), height - tf.range(height)), tf.float32)
    columns = tf.cast(tf.range(width // 2 + 1), tf.float32)
    rows, columns = rows / tf.cast(height, tf.float32), columns / tf.cast(width, tf.float32)
    frequency = longest * tf.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2)
    return tf.maximum(frequency, 1.0) ** (-2.0 * _EXPONENT)


def _backtrack(before: tf.Tensor, after: tf.Tensor, expected: tf.Tensor) -> tf.Tensor:
    """Returns where the parabola through both losses and the slope has its minimum, as a fraction
    of the step, [B], from .1 to .5.
    """
    fraction = tf.math.divide_no_nan(-0.5 * expected, after - before - expected)
    return tf.where(tf.math.is_finite(fraction), tf.clip_by_value(fraction, 0.1, 0.5), 0.1)


def _projected_gradient(gradient: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Returns the gradient without the entries that would push pixels further out of [0, 1]."""
    outward = ((image <= 0.0) & (gradient > 0.0)) | ((image >= 1.0) & (gradient < 0.0))
    return tf.where(outward, 0.0, gradient)


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b, axis=[1, 2, 3])  # [B]
