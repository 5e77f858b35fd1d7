"""The coarse-to-fine loop: photos and paintings in, a generator of iterates out."""

import copy
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from nst_ops import colors, pyramid
from nst_ops.checkpoints import Checkpoint
from nst_ops.errors import InputError
from nst_ops.first import first_pictures, given_pictures
from nst_ops.iterates import Iterate, Knobs, Report, Result
from nst_ops.losses import LossWeights, Targets
from nst_ops.memory import HISTORY
from nst_ops.objective import Objective, evaluate
from nst_ops.optimizers import LBFGS, Adam, AdamState, State, make_optimizer, update_in_strips
from nst_ops.precision import resolve_precision
from nst_ops.settings import Settings
from nst_ops.sizes import ScalePlan, Size, schedule
from nst_ops.standing import Standing
from nst_ops.targets import Style, TargetCache, content_targets, style_targets
from nst_ops.tiles import side_for
from nst_ops.tiling import evaluate_tiled
from nst_ops.vgg import vgg19
from nst_ops.weights import load_weights

CACHE = TargetCache()  # this process's, unless a caller brings its own


def run(
    contents: np.ndarray,
    styles: Sequence,
    settings: Settings | None = None,
    *,
    progress: Callable[[Iterate], None] = lambda iterate: None,
    **options,
) -> Result:
    """Stylizes a batch and gathers its reports; arguments as for `stylize`, which it drives."""
    last = None
    for iterate in stylize(contents, styles, settings, **options):
        progress(iterate)
        last = iterate
    if last is None:
        raise InputError("nothing to stylize: the batch is empty")
    return Result(last.image(), last.reports)


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
    tile: int | None = None,
    history: int = HISTORY,
    resume: Callable[[], Checkpoint] | None = None,
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
      tile: side in px, a multiple of 16, of the tiles that scales larger than one are computed in;
        None: whole. The picture is the same to float tolerance.
      history: steps that L-BFGS remembers; each takes two pictures' memory, half of that in tiles.
      resume: gives where an earlier call with the same arguments had come to, as
        `Iterate.checkpoint` does. A function, since a large picture's is too much to be held by
        the caller too.
      eager: run the same code without `tf.function`, to look inside.

    Yields:
      An `Iterate` per step. The last one's `image()` is the result.

    Raises:
      InputError: shapes or ranges that do not fit, a layer the weights lack.
    """
    settings = settings or Settings()
    knobs = knobs or Knobs(settings.content_weight, settings.style_weight, settings.tv_weight)
    contents = _batch(contents, "contents")
    photos, blends = _recolored(contents, _blends(styles, len(contents)), settings.color)
    objective = _objective(settings, model, eager)
    # Who needs tiles needs memory: rounding what the optimiser remembers does not show in the
    # picture.
    storage = "float32" if tile is None else "bfloat16"
    optimizer = make_optimizer(settings.optimizer, settings.learning_rate, history, storage)
    final: Size = (contents.shape[1], contents.shape[2])
    plans = schedule(final, settings)
    image_of = functools.partial(_finished, contents=contents, color=settings.color)
    state: State | None = None
    standing = Standing.at_start(len(contents))
    reports = [Report() for _ in contents]
    begin = 0
    if resume is not None:
        begin, standing, state, reports = _checked(resume(), plans, optimizer, len(contents))
        if standing.finished and begin == len(plans) - 1:  # nothing is left to do but to say so
            yield _iterate(begin, plans, standing, state, reports, image_of)
            return
        if standing.finished:
            begin, standing = begin + 1, Standing.at_start(len(contents))
    for index, plan in list(enumerate(plans))[begin:]:
        side = side_for(plan.size, tile)
        photo = pyramid.resize(tf.constant(photos), plan.size)
        paintings = [
            style_targets(blend, plan.size, final, settings, objective, cache or CACHE, side)
            for blend in blends
        ]
        targets = Targets(content_targets(photo, objective, side), _stacked(paintings))
        if state is None:
            if initial is not None:
                first = given_pictures(_batch(initial, "initial"), plan.size)
            else:
                main = [blend[0].image for blend in blends]
                first_seeds = seeds or [settings.seed] * len(contents)
                first = first_pictures(settings.init, photo, main, first_seeds)
            state = optimizer.start(first)
            del first
        elif standing.step == 0:
            state = optimizer.resize(state, plan.size)
        del photo  # a picture's memory, which may be gigabytes
        octaves = tuple(settings.octaves[: len(targets.style)])
        step = _step(objective, optimizer, octaves, side)
        for losses, now in _optimise(step, state, standing, targets, plan, knobs, settings):
            state, standing = now
            iterate = _iterate(index, plans, standing, state, reports, image_of, losses)
            for row, report in enumerate(reports):
                report.add(iterate, row)
            yield iterate
        standing = Standing.at_start(len(contents))


def _iterate(
    index: int,
    plans: Sequence[ScalePlan],
    standing: Standing,
    state: State,
    reports: list[Report],
    image_of: Callable[[tf.Tensor], np.ndarray],
    losses: dict[str, np.ndarray] | None = None,
) -> Iterate:
    """Where the loop is, at the scale of this index."""
    return Iterate(
        scale=index,
        scales=len(plans),
        size=plans[index].size,
        step=standing.step,
        steps=plans[index].steps,
        losses=standing.best if losses is None else losses,
        best=standing.best,
        stopped=standing.stopped,
        seconds=standing.seconds,
        image=functools.partial(image_of, state.image),
        reports=reports,
        checkpoint=functools.partial(Checkpoint, index, standing, state, reports),
    )


def _optimise(
    step: Callable,
    state: State,
    standing: Standing,
    targets: Targets,
    plan: ScalePlan,
    knobs: Knobs,
    settings: Settings,
) -> Iterator[tuple[dict[str, np.ndarray], tuple[State, Standing]]]:
    """One scale, from where it stands: per step the trial's losses, and where that has led.

    Images that have stopped stay put; the scale ends when all have.
    """
    set_to = None
    while not standing.finished:
        weights = (knobs.content_weight, knobs.style_weight * plan.weight, knobs.tv_weight)
        if weights != set_to and set_to is not None:
            # Take the next trial whatever it costs.
            state = state._replace(loss=tf.fill([state.image.shape[0]], float("inf")))
            standing = standing.forget_losses()
        set_to = weights
        started = time.perf_counter()
        state, losses = step(
            state, targets, LossWeights(*map(tf.constant, weights)), tf.constant(standing.active)
        )
        losses = {name: value.numpy() for name, value in losses.items()}
        standing = standing.after(
            losses,
            state.rejections.numpy(),
            time.perf_counter() - started,
            last=standing.step + 1 == plan.steps,
            settings=settings,
        )
        yield losses, (state, standing)


def _checked(
    checkpoint: Checkpoint, plans: Sequence[ScalePlan], optimizer: LBFGS | Adam, count: int
) -> Checkpoint:
    """The checkpoint, with reports of its own, which grow.

    Raises:
      InputError: it is of other images, sizes or settings.
    """
    here = checkpoint.scale < len(plans) and (count, *plans[checkpoint.scale].size, 3)
    if tuple(checkpoint.state.image.shape) != here or not optimizer.fits(checkpoint.state):
        raise InputError("the checkpoint is of other images or settings; go on without it")
    return checkpoint._replace(reports=copy.deepcopy(checkpoint.reports))


@functools.lru_cache(maxsize=16)
def _step(
    objective: Objective,
    optimizer: LBFGS | Adam,
    octave_weights: tuple[float, ...],
    side: int | None,
) -> Callable:
    """The step (state, targets, weights, active) -> (state, losses), for images of any size.

    One compiled function; or, in tiles, several that Python calls for each.
    """

    def step(state: State, targets: Targets, weights: LossWeights, active: tf.Tensor):
        total, terms, gradient = evaluate(objective, octave_weights, state.trial, targets, weights)
        return optimizer.update(state, total, gradient, active), {"total": total, **terms}

    if side is None:
        return objective.compile(step)
    update = objective.compile(optimizer.update)

    def tiled_step(state: State, targets: Targets, weights: LossWeights, active: tf.Tensor):
        total, terms, gradient = evaluate_tiled(
            objective, octave_weights, state.trial, targets, weights, side
        )
        if isinstance(state, AdamState):
            new = update_in_strips(update, state, total, gradient, active)
        else:
            gradient = tf.constant(gradient)  # and NumPy's is gone
            new = update(state, total, gradient, active)
        return new, {"total": total, **terms}

    return tiled_step


def _objective(settings: Settings, model: keras.Model | None, eager: bool) -> Objective:
    precision = resolve_precision(settings.precision)
    network = ""
    if model is None:
        layers = (*settings.content_layers, *settings.style_layers)
        model = vgg19(
            layers, weights=settings.weights, pooling=settings.pooling, precision=precision
        )
        sha256 = load_weights(settings.weights).sha256
        network = f"vgg19 {sha256} {settings.pooling} {precision}"
    return Objective.of(settings, model, precision, eager, network)


def _recolored(
    contents: np.ndarray, blends: list[list[Style]], color: str
) -> tuple[np.ndarray, list[list[Style]]]:
    """Photos and paintings as the optimisation sees them."""
    recolor = {"match": colors.match_colors, "content": colors.match_luminance}.get(color)
    if recolor is None:
        return contents, blends
    blends = [
        [Style(recolor(style.image, photo), style.weight) for style in blend]
        for blend, photo in zip(blends, contents, strict=True)
    ]
    return (colors.luminance(contents) if color == "content" else contents), blends


def _finished(pictures: tf.Tensor, contents: np.ndarray, color: str) -> np.ndarray:
    """Pictures as the user sees them."""
    if color != "content":
        return pictures.numpy()
    photos = pyramid.resize(tf.constant(contents), tuple(pictures.shape[1:3]))
    return colors.keep_colors(pictures.numpy(), photos.numpy())


def _stacked(blends: Sequence[tuple[dict[str, tf.Tensor], ...]]) -> tuple:
    """Per octave and layer, the Gram matrices of all images of the batch: [B, C, C]."""
    return tuple(
        {layer: tf.concat([grams[layer] for grams in octave], axis=0) for layer in octave[0]}
        for octave in zip(*blends, strict=True)
    )


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
