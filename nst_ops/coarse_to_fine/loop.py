"""The coarse-to-fine loop: photos and paintings in, a generator of iterates out."""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from nst_ops.coarse_to_fine.checkpoints import Checkpoint
from nst_ops.coarse_to_fine.convergence import Convergence
from nst_ops.coarse_to_fine.initial import initial_pictures, resize_initial
from nst_ops.coarse_to_fine.iterates import Iterate, Knobs
from nst_ops.coarse_to_fine.reports import Report, Result
from nst_ops.coarse_to_fine.schedule import ScalePlan, check_side, schedule
from nst_ops.errors import InputError
from nst_ops.images import colors, resampling
from nst_ops.images.inputs import (
    Style,
    Styles,
    check_aspect,
    image_batch,
    keep_masks,
    photo_seeds,
    style_blends,
)
from nst_ops.images.size import Size
from nst_ops.losses.objective import Objective, evaluate
from nst_ops.losses.octaves import layers_in_use
from nst_ops.losses.regions import regions_of, resized
from nst_ops.losses.targets.attention import attention_targets
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.losses.targets.content import content_targets
from nst_ops.losses.targets.paintings import Sight
from nst_ops.losses.targets.style import style_views
from nst_ops.losses.terms import LossWeights, Targets
from nst_ops.losses.tile_grid import side_for
from nst_ops.losses.tiled import evaluate_tiled
from nst_ops.optimizers.adam import Adam, AdamState, update_in_strips
from nst_ops.optimizers.lbfgs import LBFGS
from nst_ops.optimizers.optimizer import State, make_optimizer
from nst_ops.optimizers.rows import join_rows
from nst_ops.optimizers.running_rows import Part, RunningRows
from nst_ops.settings import HISTORY, Settings
from nst_ops.vgg.network import vgg19
from nst_ops.vgg.precision import resolve_precision
from nst_ops.vgg.weights import load_weights

CACHE = TargetCache()  # shared by all calls in this process that bring none


def run(
    contents: np.ndarray,
    styles: Styles,
    settings: Settings | None = None,
    *,
    progress: Callable[[Iterate], object] = lambda iterate: None,
    knobs: Knobs | None = None,
    keep: np.ndarray | Sequence[np.ndarray | None] | None = None,
    initial: np.ndarray | None = None,
    seeds: Sequence[int] | None = None,
    model: keras.Model | None = None,
    cache: TargetCache | None = None,
    tile: int | None = None,
    history: int = HISTORY,
    resume: Callable[[], Checkpoint] | None = None,
    eager: bool = False,
) -> Result:
    """Stylizes a batch of B photos to the end: runs `stylize`, and returns its last pictures.

    Args:
      contents: photos of one size, at the result's size: [B, H, W, 3] float32, sRGB in [0, 1]; or
        one, [H, W, 3].
      styles: a painting [h, w, 3], sRGB in [0, 1], per photo, or a blend; see `Styles`.
      settings: see `Settings`; None: the defaults.
      progress: called with each `Iterate`.
      knobs: as for `stylize`, which describes this and all that follows.
      keep: masks [h, w] in [0, 1] of what stays as in the photos.
      initial: first pictures, [B, h, w, 3] float32, sRGB in [0, 1].
      seeds: one per photo, whole numbers of at least 0.
      model: a Keras model in place of VGG19.
      cache: holds what was seen in paintings.
      tile: side of tiles in px.
      history: steps that L-BFGS remembers.
      resume: returns the checkpoint to go on from.
      eager: run without `tf.function`.

    Returns:
      The pictures, at the size of `contents`, and a report on each of them.

    Raises:
      InputError: as `stylize` does.
    """
    last = None
    for iterate in stylize(
        contents,
        styles,
        settings,
        knobs=knobs,
        keep=keep,
        initial=initial,
        seeds=seeds,
        model=model,
        cache=cache,
        tile=tile,
        history=history,
        resume=resume,
        eager=eager,
    ):
        progress(iterate)
        last = iterate
    if last is None:
        raise InputError("nothing to stylize: the batch is empty")
    return Result(last.image(), last.reports)


def stylize(
    contents: np.ndarray,
    styles: Styles,
    settings: Settings | None = None,
    *,
    knobs: Knobs | None = None,
    keep: np.ndarray | Sequence[np.ndarray | None] | None = None,
    initial: np.ndarray | None = None,
    seeds: Sequence[int] | None = None,
    model: keras.Model | None = None,
    cache: TargetCache | None = None,
    tile: int | None = None,
    history: int = HISTORY,
    resume: Callable[[], Checkpoint] | None = None,
    eager: bool = False,
) -> Iterator[Iterate]:
    """Optimizes a batch of pictures, from coarse to fine, and yields after every step.

    The method is that of Gatys et al. 2016 and 2017; where it departs from them, `losses` and
    `optimizers` say so.

    Args:
      contents: photos of one size, at the result's size: [B, H, W, 3] float32, sRGB in [0, 1]; or
        one, [H, W, 3]. Values up to .001 outside that range, from rounding, are clipped.
      styles: per photo a painting [h, w, 3], sRGB in [0, 1] and of any size, a
        `Style` or a pair (image, weight); or a list of these to blend. For one photo the painting
        itself will do. See `Styles`. A `Style` may have masks, which say where its strokes go.
      settings: see `Settings`; None: the defaults. `size` and `enlarge` have no effect here, where
        the size is that of `contents`.
      knobs: weights, in place of the settings', that the caller may change while this runs.
      keep: a mask [h, w] in [0, 1], of the photo's aspect and any size, or None for each photo:
        where it is 1, the photo stays as it is. For one photo the mask itself will do.
      initial: first pictures, as many as `contents`, in place of `settings.init`: [B, h, w, 3]
        float32, sRGB in [0, 1], of any size.
      seeds: one per photo, whole numbers of at least 0, in place of `settings.seed`.
      model: a functional Keras model from images [B, H, W, 3] float32, sRGB in [0, 1] and of any
        size, to `{layer: features [B, h, w, C]}`, in place of VGG19. The settings then name its
        layers.
      cache: holds what was seen in paintings; None: one that all calls in this process share.
      tile: side in px, a multiple of 16, of tiles. Scales larger than a tile are computed in tiles;
        None: all are computed whole. The picture is the same to float tolerance.
      history: steps that L-BFGS remembers; each takes two pictures' memory, half of that in tiles.
      resume: returns the checkpoint of an earlier call with the same arguments, such as
        `Iterate.checkpoint` returns. It is a function so that the caller need not hold the
        checkpoint, which is large for a large picture. If the settings now give the scale fewer
        steps than were done, one more is made.
      eager: run the same code without `tf.function`, to look inside.

    Yields:
      An `Iterate` per step. The last one's `image()` is the result.

    Raises:
      InputError: shapes, counts or ranges do not fit, the weights lack a layer, or a mask leaves a
        painting no place.
    """
    settings = settings or Settings()
    if tile is not None and (tile < 16 or tile % 16):
        raise InputError(f"tile: {tile} is not a multiple of 16 px, at least 16")
    knobs = knobs or Knobs(settings.content_weight, settings.style_weight, settings.tv_weight)
    contents = image_batch(contents, "contents")
    blends = style_blends(styles, len(contents))
    keeps = keep_masks(keep, len(contents))
    seeds = photo_seeds(seeds, len(contents), settings.seed)
    photos, blends = _recolored(contents, blends, settings.color)
    objective = _objective(settings, model, eager)
    final: Size = (contents.shape[1], contents.shape[2])
    check_side(final, settings, "contents: ", objective.least_side)
    _check_aspects(blends, keeps, final)
    # Tiles are used where memory is short. Storing the optimizer's history as bfloat16 then saves
    # half of it, and does not show in the picture.
    storage = "float32" if tile is None else "bfloat16"
    optimizer = make_optimizer(settings.optimizer, settings.learning_rate, history, storage)
    plans = schedule(final, settings, objective.least_side)
    sight = Sight(final, settings, objective, cache or CACHE)
    given = None if initial is None else image_batch(initial, "initial", count=len(contents))
    finish = functools.partial(_finished, contents=contents, keeps=keeps, color=settings.color)
    teller = _Teller(plans, finish)
    state: State | None = None
    convergence = Convergence.at_start(len(contents))
    reports = [Report() for _ in contents]
    begin, matched = 0, None
    if resume is not None:
        begin, convergence, state, reports, matched = _checked(
            resume(), plans, optimizer, len(contents)
        )
        if convergence.finished and begin == len(plans) - 1:  # only the result is left to yield
            yield teller.iterate(begin, convergence, [(range(len(contents)), state)], reports)
            return
        if convergence.finished:
            begin, convergence = begin + 1, Convergence.at_start(len(contents))
    for index, plan in list(enumerate(plans))[begin:]:
        side = side_for(plan.size, tile)
        photo = resampling.resize(tf.constant(photos), plan.size)
        regions = [
            regions_of(blend, mask, plan.size) for blend, mask in zip(blends, keeps, strict=True)
        ]
        octaves, views = style_views(regions, plan.size, sight)
        targets = Targets(content_targets(photo, regions, sight, side), views, {})
        match = functools.partial(attention_targets, photo, regions, sight, side)
        del regions
        if state is None:
            if given is not None:
                first = resize_initial(given, plan.size)
            else:
                main = [blend[0].image for blend in blends]
                first = initial_pictures(settings.init, photo, main, seeds)
            state = optimizer.start(first)
            del first
        elif convergence.step == 0:
            teller.forget()
            state = optimizer.resize(state, plan.size)
            matched = state.image if objective.attention_layers else None
        teller.matched = matched
        targets = targets._replace(attention=match(pictures=matched))
        rematch = None
        if settings.attention_every and objective.attention_layers:
            rematch = _Rematching(match, settings.attention_every, targets, teller)
        del photo, match  # frees a picture's memory, which may be gigabytes
        step = _step(objective, optimizer, octaves, side)
        running, state = RunningRows(state, targets), None  # so that it is not held twice
        for losses, ran, now in _optimize(
            step, running, convergence, plan, knobs, settings, rematch
        ):
            iterate = teller.iterate(index, now, running.parts, reports, losses)
            for row in np.flatnonzero(ran):
                iterate.record(row)
            yield iterate
        state = running.whole()
        convergence = Convergence.at_start(len(contents))


class _Teller:
    """Makes the iterates that callers get from the state of the loop.

    Args:
      plans: the schedule.
      finished: turns pictures of the optimization into what the user sees.
    """

    def __init__(self, plans: Sequence[ScalePlan], finished: Callable[[tf.Tensor], np.ndarray]):
        self._plans, self._finished = plans, finished
        self.matched: tf.Tensor | None = None  # the pictures that attention last matched
        self.forget()

    def forget(self) -> None:
        """Drops the latest state, which is as large as a checkpoint."""
        self._latest: Callable[[], Checkpoint] | None = None
        self._parts: Sequence[Part] = ()

    def iterate(
        self,
        index: int,
        convergence: Convergence,
        parts: Sequence[Part],
        reports: list[Report],
        losses: dict[str, np.ndarray] | None = None,
    ) -> Iterate:
        """Returns the iterate for where the loop is now, at the scale of this index."""

        def checkpoint() -> Checkpoint:
            if self._latest is not checkpoint:
                raise InputError(
                    "only the latest iterate has a checkpoint; ask for it before the next step"
                )
            return Checkpoint(index, convergence, join_rows(self._parts), reports, self.matched)

        self._latest, self._parts = checkpoint, parts
        images = [(rows, state.image) for rows, state in parts]  # all that earlier iterates keep
        return Iterate(
            scale=index,
            scales=len(self._plans),
            size=self._plans[index].size,
            step=convergence.step,
            steps=self._plans[index].steps,
            losses=convergence.best if losses is None else losses,
            best=convergence.best,
            stopped=convergence.stopped,
            seconds=convergence.seconds,
            image=lambda: self._finished(join_rows(images)),
            reports=reports,
            checkpoint=checkpoint,
        )


class _Rematching:
    """Matches the parts of pictures with parts of the paintings anew, every so many steps.

    Args:
      match: returns the attention targets of `pictures`.
      every: how many steps one matching holds for.
      targets: of the scale.
      teller: gets the pictures that were matched, for its checkpoints.
    """

    def __init__(self, match: Callable, every: int, targets: Targets, teller: _Teller):
        self._match, self._every, self._targets, self._teller = match, every, targets, teller

    def targets_after(self, step: int, running: RunningRows) -> Targets | None:
        """Returns the targets to use after this step of the scale; None: the present ones stay."""
        if not step or step % self._every:
            return None
        pictures = running.whole().image
        self._teller.matched = pictures
        return self._targets._replace(attention=self._match(pictures=pictures))


def _optimize(
    step: Callable,
    running: RunningRows,
    convergence: Convergence,
    plan: ScalePlan,
    knobs: Knobs,
    settings: Settings,
    rematch: "_Rematching | None",
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, Convergence]]:
    """Runs one scale, from the step that it is at, until all images have stopped.

    Yields:
      After each step the losses of its trial, [B] each; which images still ran, [B] bool; and the
      convergence then.
    """
    running.set_aside(~convergence.active)
    while not convergence.finished:
        style = knobs.style_weight * plan.weight
        attention = knobs.attention_weight
        attention = settings.attention_weight if attention is None else attention
        weights = (knobs.content_weight, style, knobs.tv_weight, style * attention)
        again = np.full(len(convergence.stopped), convergence.weights not in (None, weights))
        others = rematch and rematch.targets_after(convergence.step, running)
        if others:
            running.aim_at(others)
            # Not those that have converged: alone, they would not have lived to see this step.
            again |= convergence.active
        if again.any():
            running.begin_anew(again, ~convergence.active)
            convergence = convergence.begin_anew(again)
            running.set_aside(~convergence.active)
        convergence = convergence._replace(weights=weights)
        started = time.perf_counter()
        ran = convergence.active
        found, rejections = running.advance(step, LossWeights(*map(tf.constant, weights)))
        # For images that have stopped, the losses of their best pictures are given.
        losses = {n: np.where(ran, v, convergence.best.get(n, v)) for n, v in found.items()}
        convergence = convergence.after(
            losses,
            rejections,
            time.perf_counter() - started,
            last=convergence.step + 1 >= plan.steps,
            settings=settings,
        )
        yield losses, ran, convergence
        if not convergence.finished:
            running.set_aside(~convergence.active)


def _checked(
    checkpoint: Checkpoint, plans: Sequence[ScalePlan], optimizer: LBFGS | Adam, count: int
) -> Checkpoint:
    """Returns the checkpoint with copies of its reports, since reports grow while the loop runs.

    Raises:
      InputError: it is of other images, sizes or settings.
    """
    here = checkpoint.scale < len(plans) and (count, *plans[checkpoint.scale].size, 3)
    if tuple(checkpoint.state.image.shape) != here or not optimizer.fits(checkpoint.state):
        raise InputError("the checkpoint is of other images or settings; go on without it")
    return checkpoint._replace(reports=copy.deepcopy(checkpoint.reports))


def _step(
    objective: Objective, optimizer: LBFGS | Adam, octaves: tuple[int, ...], side: int | None
) -> Callable:
    """Returns the step (state, targets, weights) -> (state, losses), for images of any size.

    It is one compiled function; in tiles, Python calls several compiled functions for each tile.
    """

    def step(state: State, targets: Targets, weights: LossWeights):
        total, terms, gradient = evaluate(objective, octaves, state.trial, targets, weights)
        return optimizer.update(state, total, gradient), {"total": total, **terms}

    if side is None:
        return objective.compiled(("step", optimizer, octaves), lambda: objective.compile(step))
    update = objective.compiled(("update", optimizer), lambda: objective.compile(optimizer.update))

    def tiled_step(state: State, targets: Targets, weights: LossWeights):
        total, terms, gradient = evaluate_tiled(
            objective, octaves, state.trial, targets, weights, side
        )
        if isinstance(state, AdamState):
            new = update_in_strips(update, state, total, gradient)
        else:
            gradient = tf.constant(gradient)  # frees the NumPy array
            new = update(state, total, gradient)
        return new, {"total": total, **terms}

    return tiled_step


def _objective(settings: Settings, model: keras.Model | None, eager: bool) -> Objective:
    precision = resolve_precision(settings.precision)
    network = ""
    if model is None:
        layers = layers_in_use(settings)
        model = vgg19(
            layers, weights=settings.weights, pooling=settings.pooling, precision=precision
        )
        sha256 = load_weights(settings.weights).sha256
        network = f"vgg19 {sha256} {settings.pooling} {precision}"
    return Objective.of(settings, model, precision, eager, network)


def _recolored(
    contents: np.ndarray, blends: list[list[Style]], color: str
) -> tuple[np.ndarray, list[list[Style]]]:
    """Returns photos and paintings in the colours in which they are optimized."""
    recolor = {"match": colors.match_colors, "content": colors.match_luminance}.get(color)
    if recolor is None:
        return contents, blends
    blends = [
        [dataclasses.replace(style, image=recolor(style.image, photo)) for style in blend]
        for blend, photo in zip(blends, contents, strict=True)
    ]
    return (colors.luminance(contents) if color == "content" else contents), blends


def _check_aspects(
    blends: Sequence[Sequence[Style]], keeps: Sequence[np.ndarray | None], photo: Size
) -> None:
    for blend, keep in zip(blends, keeps, strict=True):
        for style in blend:
            if style.photo_mask is not None:
                check_aspect(style.photo_mask, photo, "a style's photo_mask")
        if keep is not None:
            check_aspect(keep, photo, "keep")


def _finished(
    pictures: tf.Tensor, contents: np.ndarray, keeps: Sequence[np.ndarray | None], color: str
) -> np.ndarray:
    """Returns the pictures in the colours that the user asked for, with what stays of the photos
    put back.
    """
    found = pictures.numpy()
    masked = any(keep is not None for keep in keeps)
    if color != "content" and not masked:
        return found
    size: Size = (found.shape[1], found.shape[2])
    photos = resampling.resize(tf.constant(contents), size).numpy()
    if color == "content":
        found = colors.keep_colors(found, photos)
    if not masked:
        return found
    stays = [0.0 if keep is None else resized(keep, size)[0].numpy() for keep in keeps]
    return np.stack(
        [s * photo + (1.0 - s) * own for s, photo, own in zip(stays, photos, found, strict=True)]
    )
