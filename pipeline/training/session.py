"""Carries a training out, from its checkpoint if there is one, until it ends or is stopped."""

import dataclasses
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nst_ops.engines.base import Step
from nst_ops.errors import InputError
from nst_ops.images.codec import decode
from nst_ops.images.margins import decode_scan
from nst_ops.network.facts import NetworkFacts
from nst_ops.network.model import add_styles, load_network, make_network, save_network
from nst_ops.network.painter import Painter
from nst_ops.network.thumbnails import read_thumbnails, thumbnail
from nst_ops.training.photos import Photos
from nst_ops.training.settings import LEAST_SEEN, TrainingSettings
from nst_ops.training.trainer import Trainer
from pipeline.store import files
from pipeline.training.plan import TrainingPlan
from pipeline.training.record import TrainingRecord

_SAMPLE_SIDE, _SAMPLES = 256, 3
_LICENCE = "that of the photos and paintings it was trained on, beside Apache-2.0 of nst"


class Ended(NamedTuple):
    """Says how a training ended."""

    finished: bool
    step: int
    unusable: dict[str, str]  # photos that could not be read, and why


class TrainingSession:
    """Holds one training.

    Args:
      plan: what is trained.
    """

    def __init__(self, plan: TrainingPlan):
        self._plan = plan
        settings = plan.settings
        several = len(tf.config.list_logical_devices("GPU")) > 1
        strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
        if settings.batch % strategy.num_replicas_in_sync:
            raise InputError(
                f"batch: {settings.batch} photos cannot be shared by "
                f"{strategy.num_replicas_in_sync} devices; use a multiple"
            )
        before = plan.known.styles if plan.known else ()
        self._facts = NetworkFacts((*before, *plan.styles), settings.width, settings.blocks)
        with strategy.scope():
            if plan.base:
                model = add_styles(*load_network(plan.base), len(plan.styles), settings.seed)
            else:
                count = len(plan.styles)
                model = make_network(count, settings.width, settings.blocks, settings.seed)
        numbers = range(len(before), len(before) + len(plan.styles))
        self._photos = Photos(plan.photos, settings.crop, numbers, settings.seed)
        paintings = [_painting(path, settings) for path in plan.paintings.values()]
        self._thumbnails = dict(read_thumbnails(plan.base)) if plan.base else {}
        self._thumbnails |= zip(plan.paintings, map(thumbnail, paintings), strict=True)
        self._trainer = Trainer(
            settings,
            model,
            paintings,
            self._photos,
            learned=len(before),
            strategy=strategy,
        )
        self._record = TrainingRecord(plan.folder, plan.identity)
        told = self._record.resume(self._trainer)
        self._seconds: float = told.get("seconds", 0.0)
        self._photos.unusable.update(told.get("unusable", {}))
        if os.path.exists(plan.output) and not self._trainer.step:
            raise InputError(
                "is there already, and not from this training; give another -o, or remove it",
                path=plan.output,
            )
        self.begun = self._trainer.step / settings.steps  # share that was done before

    def run(self, show: Callable[[Step], None], must_stop: Callable[[], bool]) -> Ended:
        """Trains until the end, or until `must_stop` says so after a step. Writes the network at
        the end, checkpoints and samples meanwhile. A training that is done already changes nothing.

        Raises:
          NonFiniteError: the loss was not finite.
        """
        settings, trainer = self._plan.settings, self._trainer
        stopped = False
        if trainer.step < settings.steps or not os.path.exists(self._plan.output):
            try:
                stopped = self._train(show, must_stop)
            finally:  # also of a loss that was not finite: the state is that of the step before
                self._save()
            if not stopped:
                self._write(self._plan.output, trainer.averaged())
            self._show(0.0)
        return Ended(not stopped, trainer.step, self._photos.unusable)

    def _train(self, show: Callable[[Step], None], must_stop: Callable[[], bool]) -> bool:
        """Trains; returns whether it was stopped before the end."""
        settings, trainer = self._plan.settings, self._trainer
        started = saved = shown = time.monotonic()
        before, first = self._seconds, trainer.step
        for point in trainer.run():
            now = time.monotonic()
            self._seconds = before + now - started
            speed = (trainer.step - first) / max(now - started, 1e-6)
            text = (
                f"step {trainer.step}/{settings.steps}, loss {point.losses['total']:.4g}, "
                f"{3600 * speed:.0f} steps an hour"
            )
            show(Step(text, 1.0 / max(speed, 1e-9), trainer.step / settings.steps))
            if must_stop() and trainer.step < settings.steps:
                return True
            if now - saved >= settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
            if now - shown >= settings.sheet_seconds:
                self._show(speed)
                shown = time.monotonic()
        return False

    def _save(self) -> None:
        """Writes a checkpoint. One that cannot be written costs time only if the training is then
        interrupted, so it goes on.
        """
        told = {"seconds": self._seconds, "unusable": self._photos.unusable}
        try:
            self._record.save(self._trainer, told)
        except OSError as error:
            warnings.warn(f"{self._plan.folder}: no checkpoint: {error}", stacklevel=2)

    def _show(self, speed: float) -> None:
        """Writes the network as it is now, samples and losses; without them it goes on as well.

        Args:
          speed: steps a second; 0: it has ended.
        """
        trainer, settings = self._trainer, self._plan.settings
        model = trainer.averaged()
        left = (settings.steps - trainer.step) / speed if speed else 0.0
        words = {
            "step": f"{trainer.step} of {settings.steps}",
            "trained for": str(datetime.timedelta(seconds=round(self._seconds))),
            "left": str(datetime.timedelta(seconds=round(left))) if speed else "not at work",
            "photos": f"{len(self._plan.photos)}, of no use so far {len(self._photos.unusable)}",
        }
        try:
            self._write(str(self._plan.folder / "network.keras"), model)
            samples = list(self._samples())
            self._record.show(Painter(model), self._facts, samples, trainer.curve, words)
        except OSError as error:
            warnings.warn(f"{self._plan.folder}: no samples: {error}", stacklevel=2)

    def _write(self, path: str, model: keras.Model) -> None:
        save_network(path, model, self._told(), thumbnails=self._thumbnails)

    def _samples(self) -> Iterator[np.ndarray]:
        """Yields the first photos that can be read, small."""
        found = 0
        for path in self._plan.photos:
            try:
                picture = decode(files.read(path), path=path, long_side=_SAMPLE_SIDE)
            except InputError:
                continue
            yield picture.on_white()
            found += 1
            if found == _SAMPLES:
                return

    def _told(self) -> NetworkFacts:
        """Returns the facts of the network as it is now."""
        trainer, known = self._trainer, self._plan.known
        training = {
            "settings": self._plan.settings.determining,
            "steps": trainer.step,
            "seconds": round(self._seconds),
            "photos": len(self._plan.photos),
            "unusable": len(self._photos.unusable),
            "losses": trainer.curve[-1].losses if trainer.curve else {},
            "base": {"sha256": known.sha256, **known.training} if known else {},
        }
        return dataclasses.replace(self._facts, training=training, licence=_LICENCE)


def _painting(path: str, settings: TrainingSettings) -> np.ndarray:
    """Returns a painting without its margin, as large as it is to be seen."""
    pixels = decode_scan(files.read(path), path=path, long_side=settings.style_size).pixels
    least = LEAST_SEEN * 2 ** (len(settings.octaves) - 1)
    if min(pixels.shape[:2]) < least:
        raise InputError(
            f"a painting of {pixels.shape[0]}x{pixels.shape[1]} px at `style_size: "
            f"{settings.style_size}`, but layers and octaves need {least} px; use a larger "
            "style_size or painting, or fewer octaves",
            path=path,
            code="too_small",
        )
    return pixels
