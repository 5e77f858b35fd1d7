"""The coarse-to-fine loop: photos and paintings in, a generator of iterates out."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nst_ops import colors, pyramid
from nst_ops.errors import InputError
from nst_ops.losses import LossWeights, Targets, weighted_terms
from nst_ops.optimizers import LBFGS, Adam, State, make_optimizer
from nst_ops.precision import resolve_precision
from nst_ops.settings import Settings
from nst_ops.sizes import ScalePlan, Size, schedule
from nst_ops.targets import Style, TargetCache, style_targets
from nst_ops.vgg import vgg19

CACHE = TargetCache()  # this process's, unless a caller brings its own

_STALLED_AFTER = 10  # rejected trials in a row: two restarts along the gradient found nothing lower


@dataclass
class Knobs:
    """The three weights of a running optimisation; change them between steps, nothing is traced
    again.
    """

    content_weight: float
    style_weight: float
    tv_weight: float


class Iterate(NamedTuple):
    """The state of a batch of B images after one step."""

    scale: int  # index into the schedule, 0 is the coarsest
    scales: int  # length of the schedule
    size: Size
    step: int  # of this scale, from 1
    steps: int  # at most, of this scale
    losses: dict[
        str, np.ndarray
    ]  # total and its parts content, style, tv: [B] float32 each, at this step's trial
    best: dict[str, np.ndarray]  # the same, of the best picture of this scale so far
    stopped: tuple[
        str, ...
    ]  # per image: "" while it runs, else `steps`, `converged`, `stalled` or `non-finite`
    seconds: float  # spent in the compiled step so far, at this scale
    image: Callable[
        [], np.ndarray
    ]  # the best picture so far, [B, h, w, 3] in [0, 1], at this scale's size

    @property
    def finished(self) -> bool:
        """Whether this is the last iterate of its scale."""
        return all(self.stopped)


class ScaleReport(NamedTuple):
    """How one image fared at one scale."""

    size: Size
    steps: int
    evaluations: int
    seconds: float
    stop_reason: str


@dataclass
class Report:
    """How one image came about."""

    scales: list[ScaleReport] = field(default_factory=list)
    curve: list[tuple[int, int, float, float, float, float]] = field(default_factory=list)
    losses: dict[str, float] = field(
        default_factory=dict
    )  # of the result: total, content, style, tv

    @property
    def non_finite(self) -> bool:
        """Whether the loss was never a number, so that there is no result."""
        return any(scale.stop_reason == "non-finite" for scale in self.scales)


class Result(NamedTuple):
    """Pictures [B, H, W, 3] float32 in [0, 1], and a report on each."""

    images: np.ndarray
    reports: list[Report]
    seconds_optimise: float  # in the compiled step, of the whole batch


def run(
    contents: np.ndarray,
    styles: Sequence,
    settings: Settings | None = None,
    *,
    progress: Callable[[Iterate], None] = lambda iterate: None,
    **options,
) -> Result:
    """Stylizes a batch and gathers its reports; arguments as for `stylize`, which it drives."""
    reports: list[Report] = []
    last = None
    seconds = 0.0
    for iterate in stylize(contents, styles, settings, **options):
        reports = reports or [Report() for _ in iterate.stopped]
        for row, report in enumerate(reports):
            _record(report, row, iterate)
        if iterate.finished:
            seconds += iterate.seconds
        progress(iterate)
        last = iterate
    if last is None:
        raise InputError("nothing to stylize: the batch is empty")
    return Result(last.image(), reports, seconds)


def _record(report: Report, row: int, iterate: Iterate) -> None:
    if len(report.scales) > iterate.scale:
        return  # this image stopped earlier than its neighbours
    values = [float(iterate.losses[name][row]) for name in ("total", "content", "style", "tv")]
    report.curve.append((iterate.scale, iterate.step, values[0], values[1], values[2], values[3]))
    if iterate.stopped[row]:
        report.scales.append(
            ScaleReport(
                iterate.size, iterate.step, iterate.step, iterate.seconds, iterate.stopped[row]
            )
        )
        report.losses = {name: float(values[row]) for name, values in iterate.best.items()}


def stylize(
    contents: np.ndarray,
    styles: Sequence,
    settings: Settings | None = None,
    *,
    knobs: Knobs | None = None,
    initial: np.ndarray | None = None,
    seeds: Sequence[int] | None = None,
    model: keras.Model | None = None,
    cache: TargetCache | None = None,
    eager: bool = False,
) -> Iterator[Iterate]:
    """Optimises a batch of pictures, coarse to fine, yielding after every step.

    Gatys et al. 2016 and 2017; departures are named in `losses` and `optimizers`.

    Args:
      contents: photos of one size, at the result's size: [B, H, W, 3] float32, sRGB in [0, 1]; or
        one, [H, W, 3].
      styles: per photo a painting [h, w, 3], or a list of `Style(image, weight)` to blend.
      settings: see `nst_ops.settings`; `size` and `enlarge` have no effect here, where the size is
        that of `contents`.
      knobs: weights in place of the settings', which the caller may change while this runs.
      initial: first pictures, like `contents`, at any size, in place of `settings.init`.
      seeds: one per photo, in place of `settings.seed`.
      model: a Keras model from images to `{layer: features}` in place of VGG19.
      cache: of style targets, in place of this process's.
      eager: run the same code without `tf.function`, to look inside.

    Yields:
      An `Iterate` per step. The last one's `image()` is the result.

    Raises:
      InputError: shapes or ranges that do not fit, a layer the weights lack.
    """
    settings = settings or Settings()
    knobs = knobs or Knobs(settings.content_weight, settings.style_weight, settings.tv_weight)
    contents = _batch(contents, "contents")
    blends = _blends(styles, len(contents))
    if settings.color == "match":
        blends = [
            [Style(colors.match_colors(s.image, photo), s.weight) for s in blend]
            for blend, photo in zip(blends, contents, strict=True)
        ]
    photos = contents
    if settings.color == "content":
        blends = [
            [Style(colors.match_luminance(s.image, photo), s.weight) for s in blend]
            for blend, photo in zip(blends, contents, strict=True)
        ]
        photos = colors.luminance(contents)

    precision = resolve_precision(settings.precision)
    layers = (*settings.content_layers, *settings.style_layers)
    model = model or vgg19(
        layers, weights=settings.weights, pooling=settings.pooling, precision=precision
    )
    extractor = _extractor(
        model, tuple(settings.content_layers), tuple(settings.style_layers), eager
    )
    optimizer = make_optimizer(settings.optimizer, settings.learning_rate)
    final: Size = (contents.shape[1], contents.shape[2])
    plans = schedule(final, settings)
    seeds = seeds or [settings.seed] * len(contents)
    state: State | None = None
    for index, plan in enumerate(plans):
        photo = pyramid.resize(tf.constant(photos), plan.size)
        targets = _targets(photo, blends, plan, final, settings, extractor, cache or CACHE)
        if state is None:
            first = _first_pictures(photo, blends, initial, settings.init, seeds)
            state = optimizer.start(first)
        else:
            state = optimizer.resize(state, plan.size)
        step = _step(
            model,
            settings.optimizer,
            settings.learning_rate,
            tuple(settings.content_layers.items()),
            tuple(settings.style_layers.items()),
            tuple(settings.octaves[: len(targets.style)]),
            precision,
            eager,
        )
        for iterate, latest in _optimise(step, state, targets, plan, knobs, settings):
            best, state = latest.image, latest

            def image(best: tf.Tensor = best) -> np.ndarray:
                picture = best.numpy()
                if settings.color == "content":
                    return colors.keep_colors(
                        picture, pyramid.resize(tf.constant(contents), best.shape[1:3]).numpy()
                    )
                return picture

            yield iterate._replace(scale=index, scales=len(plans), image=image)


def _optimise(
    step: Callable,
    state: State,
    targets: Targets,
    plan: ScalePlan,
    knobs: Knobs,
    settings: Settings,
) -> Iterator[tuple[Iterate, State]]:
    """One scale. Images that have stopped stay put; the scale ends when all have."""
    count = state.image.shape[0]
    stopped = [""] * count
    plateau = _Plateau(count, settings.tolerance, settings.patience)
    best: dict[str, np.ndarray] = {}
    set_to = None
    seconds = 0.0
    for number in range(1, plan.steps + 1):
        now = (knobs.content_weight, knobs.style_weight * plan.weight, knobs.tv_weight)
        if now != set_to and set_to is not None:
            # Losses under other weights do not compare: take the next trial whatever it costs.
            state = state._replace(loss=tf.fill([count], float("inf")))
            best = {}
            plateau = _Plateau(count, settings.tolerance, settings.patience)
        set_to = now
        active = np.array([not reason for reason in stopped])
        started = time.perf_counter()
        state, losses = step(
            state, targets, LossWeights(*map(tf.constant, now)), tf.constant(active)
        )
        losses = {name: value.numpy() for name, value in losses.items()}
        seconds += time.perf_counter() - started
        improved = active & (losses["total"] < best.get("total", np.inf))
        best = {
            name: np.asarray(np.where(improved, value, best.get(name, value)))
            for name, value in losses.items()
        }
        flat = plateau.update(best["total"])
        rejections = state.rejections.numpy()
        for row in np.flatnonzero(active):
            if not np.isfinite(best["total"][row]) and (rejections[row] or number == plan.steps):
                stopped[row] = "non-finite"
            elif rejections[row] >= _STALLED_AFTER:
                stopped[row] = "stalled"
            elif flat[row]:
                stopped[row] = "converged"
            elif number == plan.steps:
                stopped[row] = "steps"
        yield (
            Iterate(
                0,
                0,
                plan.size,
                number,
                plan.steps,
                losses,
                best,
                tuple(stopped),
                seconds,
                state.image.numpy,
            ),
            state,
        )
        if all(stopped):
            return


class _Plateau:
    """Notices, per image, that the loss has flattened."""

    def __init__(self, count: int, tolerance: float, patience: int):
        self.tolerance, self.patience = tolerance, patience
        self.goal = np.full(count, np.inf)  # the loss to get below
        self.since = np.zeros(count, int)

    def update(self, best: np.ndarray) -> np.ndarray:
        """Takes the best losses [B] so far; returns [B] bool, whether `patience` steps have gained
        too little.
        """
        gained = best < self.goal
        self.since = np.where(gained, 0, self.since + 1)
        self.goal[gained] = best[gained] * (1.0 - self.tolerance)
        return self.since >= self.patience


@functools.lru_cache(maxsize=16)
def _step(
    model: keras.Model,
    optimizer_name: str,
    learning_rate: float,
    content_layers: tuple[tuple[str, float], ...],
    style_layers: tuple[tuple[str, float], ...],
    octave_weights: tuple[float, ...],
    precision: str,
    eager: bool,
) -> Callable:
    """The step (state, targets, weights, active) -> (state, losses), compiled once for images of
    any size.
    """
    optimizer: LBFGS | Adam = make_optimizer(optimizer_name, learning_rate)
    # Gradients are divided by as much again; float16 would lose those below 6e-8 on their way back.
    gain = 2.0**16 if precision == "float16" else 1.0

    def losses_of(images: tf.Tensor, targets: Targets, weights: LossWeights):
        features = [model(octave) for octave in pyramid.octaves(images, len(octave_weights))]
        return weighted_terms(
            images,
            features,
            targets,
            weights,
            content_layers=dict(content_layers),
            style_layers=dict(style_layers),
            octave_weights=octave_weights,
        )

    def step(state: State, targets: Targets, weights: LossWeights, active: tf.Tensor):
        with tf.GradientTape() as tape:
            tape.watch(state.trial)
            total, terms = losses_of(state.trial, targets, weights)
            amplified = total * gain
        gradient = tape.gradient(amplified, state.trial) / gain
        return optimizer.update(state, total, gradient, active), {"total": total, **terms}  # type: ignore[arg-type]

    return step if eager else _Compiled(step)


class _Compiled:
    """A `tf.function` traced once for tensors of any batch, height and width.

    Without the relaxed signature a collection with a thousand shapes would be traced a thousand
    times; on a GPU, XLA compiles the one trace per shape.
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
    """Images and features may have any batch and size, Gram matrices and rows any batch."""
    fixed = {4: 3, 3: 1, 1: 1, 0: 0}[tensor.shape.rank]  # leading dimensions that may change
    return tf.TensorSpec([None] * fixed + tensor.shape[fixed:], tensor.dtype)


@functools.lru_cache(maxsize=16)
def _extractor(
    model: keras.Model, content_layers: tuple[str, ...], style_layers: tuple[str, ...], eager: bool
) -> Callable:
    """The network alone, for targets: images -> {layer: features}."""
    wanted = {*content_layers, *style_layers}
    given = set(model.output) if isinstance(model.output, dict) else set()
    if not wanted <= given:
        raise InputError(
            f"the model gives {sorted(given)}, which lacks {sorted(wanted - given)}; its output "
            "must "
            "be a dict of feature maps by layer"
        )

    def extract(images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        features = model(images)
        return {layer: features[layer] for layer in wanted}

    return extract if eager else _Compiled(extract)


def _targets(
    photo: tf.Tensor,
    blends: Sequence[Sequence[Style]],
    plan: ScalePlan,
    final: Size,
    settings: Settings,
    extractor: Callable,
    cache: TargetCache,
) -> Targets:
    features = extractor(photo)
    styles = [
        style_targets(blend, plan.size, final, settings, extractor, cache) for blend in blends
    ]
    return Targets(
        content={layer: features[layer] for layer in settings.content_layers},
        style=tuple(
            {
                layer: tf.concat([style[octave][layer] for style in styles], axis=0)
                for layer in settings.style_layers
            }
            for octave in range(len(styles[0]))
        ),
    )


def _first_pictures(
    photo: tf.Tensor,
    blends: Sequence[Sequence[Style]],
    initial: np.ndarray | None,
    init: str,
    seeds: Sequence[int],
) -> tf.Tensor:
    """[B, H, W, 3] at the coarsest scale."""
    if initial is not None:
        first = pyramid.resize(tf.constant(_batch(initial, "initial")), photo.shape[1:3])
    elif init == "content":
        first = photo
    elif init in ("noise", "style"):
        noise = np.stack([_pink_noise(photo.shape[1:3], seed) for seed in seeds])
        if init == "style":
            noise = np.stack(
                [
                    colors.match_colors(n, blend[0].image)
                    for n, blend in zip(noise, blends, strict=True)
                ]
            )
        first = tf.constant(noise)
    else:
        raise InputError(f"init: {init!r} is a file; read it and pass its pixels as `initial`")
    return tf.clip_by_value(first, 0.0, 1.0)


def _pink_noise(size: Size, seed: int) -> np.ndarray:
    """Noise [H, W, 3] around .5 whose spectrum falls like 1/f, as pictures' do."""
    white = np.random.default_rng(seed).standard_normal((*size, 3))
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    gain = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(size))
    gain[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(white, axes=(0, 1)) * gain[..., None], s=size, axes=(0, 1))
    return np.clip(0.5 + 0.15 * noise / noise.std(), 0.0, 1.0).astype(np.float32)


def _batch(images: np.ndarray, name: str) -> np.ndarray:
    images = np.asarray(images, np.float32)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"{name} has shape {images.shape}; expected [B, H, W, 3] or [H, W, 3]")
    if not images.size:
        raise InputError(f"{name} has shape {images.shape}: nothing to stylize")
    if not (images.min() >= 0.0 and images.max() <= 1.0):  # also false for NaN
        raise InputError(
            f"{name} has values from {images.min():g} to {images.max():g}; expected sRGB in [0, "
            "1] (divide 8-bit by 255)"
        )
    return images


def _blends(styles: Sequence, count: int) -> list[list[Style]]:
    if isinstance(styles, np.ndarray) and styles.ndim == 3:
        styles = [styles]
    if len(styles) != count:
        raise InputError(
            f"{count} photos but {len(styles)} styles; give one painting or blend per photo"
        )
    blends = []
    for entry in styles:
        blend = [Style(entry)] if isinstance(entry, np.ndarray) else [Style(*s) for s in entry]
        blends.append([Style(_batch(s.image, "a style")[0], s.weight) for s in blend])
    return blends
