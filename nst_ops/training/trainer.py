"""The loop that trains a network, step by step, on one device or on several."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nst_ops import archives
from nst_ops.errors import InputError, NonFiniteError
from nst_ops.training.adam import NetworkAdam
from nst_ops.training.discriminator import Discriminator, PaintingCrops, distance_from
from nst_ops.training.objective import TERMS, TrainingObjective
from nst_ops.training.photos import Photos
from nst_ops.training.settings import TrainingSettings

_FORMAT = 1  # of checkpoints
_AHEAD = 80  # samples that are asked for at once
_MOST_POINTS = 1000  # of the curve of losses
LOSSES = ("total", *TERMS, "adversarial", "fooled")


class Point(NamedTuple):
    """Holds the mean losses of some steps."""

    step: int  # the last of them
    losses: dict[str, float]


class Trainer:
    """Trains a network; it holds all of the training's state.

    Args:
      settings: of the training.
      model: the network; it is changed.
      paintings: what its styles are learned from, in their order, [h, w, 3] each.
      photos: gives the samples.
      learned: how many of the styles are there already: only what belongs to the others is then
        trained.
      strategy: spreads a step over devices; its devices share each batch.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: keras.Model,
        paintings: Sequence[np.ndarray],
        photos: Photos,
        *,
        learned: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.settings, self.model = settings, model
        self.step = 0
        self.curve: list[Point] = []
        self._photos, self._learned = photos, learned
        self._strategy = strategy or tf.distribute.get_strategy()
        # Of a network that knows styles, others learn nothing: their norms are rows of their own,
        # whose gradients are 0 here.
        trained = [v for v in model.trainable_variables if not learned or "_norm/" in v.path]
        with self._strategy.scope():
            self._objective = TrainingObjective(settings, paintings)
            self._adam = NetworkAdam([v.value for v in trained], settings.clip)
            self._mean = [tf.Variable(v) for v in self._adam.variables]
            self._rival: Discriminator | None = None
            if settings.adversarial_weight:
                self._rival = Discriminator(len(paintings), settings.seed)
                self._rival_adam = NetworkAdam(self._rival.variables, settings.clip)
                self._crops = PaintingCrops(
                    paintings, settings.style_size, settings.crop, settings.seed
                )
        self._update = tf.function(self._updated, reduce_retracing=True)
        self._recent: list[dict[str, float]] = []

    def run(self) -> Iterator[Point]:
        """Trains from where it stands to the last step, and yields the losses of each step.

        Raises:
          NonFiniteError: the loss was not finite; the state is that of the step before.
        """
        settings = self.settings
        for batch in self._samples():
            rate = settings.learning_rate * min(1.0, 2.0 * (1.0 - self.step / settings.steps))
            real = self._real_crops(batch)
            found = self._update(batch, real, tf.constant(rate, tf.float32))
            losses = {name: float(value) for name, value in found.items()}
            if not np.isfinite(losses["total"]):
                raise NonFiniteError(
                    f"the loss was not finite at step {self.step + 1}; go on with a smaller "
                    "learning_rate or clip, or `precision: float32`"
                )
            self.step += 1
            self._note(losses)
            yield Point(self.step, losses)

    def _samples(self) -> Iterator[Any]:
        settings = self.settings
        ahead = max(1, _AHEAD // settings.batch)
        for first in range(self.step, settings.steps, ahead):
            last = min(first + ahead, settings.steps)
            samples = self._photos.dataset(first, last, settings.batch)
            batches = iter(self._strategy.experimental_distribute_dataset(samples))
            try:
                yield from batches
            except tf.errors.OpError as error:  # TensorFlow's words for what a sample raised
                raise self._photos.failure or error from None
            finally:
                # Whoever stops earlier waits for the rest. An iterator that was destroyed while it
                # still made samples was seen to hang: its threads need the interpreter, which
                # waits for them.
                with contextlib.suppress(tf.errors.OpError):
                    for _ in batches:
                        pass

    def averaged(self) -> keras.Model:
        """Returns a copy of the network whose weights are the mean over the last steps."""
        copy = keras.models.clone_model(self.model)
        copy.set_weights(self.model.get_weights())
        means = {id(v): mean for v, mean in zip(self._adam.variables, self._mean, strict=True)}
        for mine, theirs in zip(copy.variables, self.model.variables, strict=True):
            if id(theirs.value) in means:
                mine.assign(means[id(theirs.value)].numpy())
        return copy

    def save(self, file: BinaryIO, facts: Mapping[str, Any]) -> None:
        """Writes all of the state, and plain values with it."""
        header = {"step": self.step, "curve": self.curve, "recent": self._recent, "facts": facts}
        arrays = {str(number): v.numpy() for number, v in enumerate(self._state())}
        archives.write(file, "training", _FORMAT, header, arrays)

    def load(self, file: BinaryIO, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Takes up the state that `save` wrote, and returns the values that were saved with it.

        Args:
          file: open for reading.
          check: is given these values first, and raises an error if they are not the right ones.

        Raises:
          InputError: it is damaged, or of another network.
        """
        with archives.opened(file, "training", _FORMAT) as (header, arrays):
            check(header["facts"])
            state = self._state()
            fits = len(arrays) == len(state) + 1 and all(
                arrays[str(number)].shape == tuple(v.shape) for number, v in enumerate(state)
            )
            if not fits:
                raise InputError("the checkpoint is of another network")
            for number, variable in enumerate(state):
                variable.assign(arrays[str(number)])
        self.step = header["step"]
        self.curve = [Point(step, losses) for step, losses in header["curve"]]
        self._recent = header["recent"]
        return header["facts"]

    def _state(self) -> list[tf.Variable]:
        state = [v.value for v in self.model.variables] + self._mean + self._adam.state
        if self._rival:
            state += self._rival.state + self._rival_adam.state
        return state

    def _note(self, losses: dict[str, float]) -> None:
        """Adds a point to the curve from time to time."""
        self._recent.append(losses)
        if len(self._recent) >= -(-self.settings.steps // _MOST_POINTS):
            means = {name: float(np.mean([each[name] for each in self._recent])) for name in losses}
            self.curve.append(Point(self.step, means))
            self._recent = []

    def _real_crops(self, batch: Any) -> Any:
        """Returns crops of the paintings for a batch, on the devices where its photos are."""
        if not self._rival:
            return ()
        styles = self._strategy.experimental_local_results(batch[1])
        chosen = [style - self._learned for each in styles for style in each.numpy()]
        crops = iter(np.split(self._crops.of_step(self.step, chosen), len(chosen)))
        parts = [np.concatenate([next(crops) for _ in range(len(each))]) for each in styles]
        if len(parts) == 1:
            return tf.constant(parts[0])
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _updated(self, batch: Any, real: Any, rate: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes one step; returns its mean losses. Where they are not finite nothing is learned."""
        losses, gradients, rival_gradients = self._strategy.run(self._gradients, (batch, real))

        def mean(value: Any) -> tf.Tensor:
            return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)

        losses = {name: mean(value) for name, value in losses.items()}
        gradients = [mean(gradient) for gradient in gradients]
        rival_gradients = [mean(gradient) for gradient in rival_gradients]
        lengths = [tf.linalg.global_norm(each) for each in (gradients, rival_gradients) if each]
        sound = tf.reduce_all(tf.math.is_finite([losses["total"], *lengths]))
        losses["total"] = tf.where(sound, losses["total"], float("nan"))
        if sound:
            self._adam.apply(gradients, rate)
            keep = self.settings.average
            # At first the mean goes over fewer steps, else it would be of the random weights.
            keep = tf.minimum(keep, self._adam.steps / (self._adam.steps + 10.0))
            for average, variable in zip(self._mean, self._adam.variables, strict=True):
                average.assign(average + (1.0 - keep) * (variable - average))
            if self._rival:
                self._rival_adam.apply(rival_gradients, rate)
        return losses

    def _gradients(self, batch: Any, real: Any) -> tuple[dict[str, tf.Tensor], list, list]:
        """Returns losses and gradients of one device's part of a batch."""
        photos, styles = batch
        count = self.model.input["style"].shape[-1]
        with tf.GradientTape() as tape:
            pictures = self.model({"image": photos, "style": tf.one_hot(styles, count)})
            styles -= self._learned  # as the paintings are counted
            terms = self._objective.losses(photos, styles, pictures)
            total = self._objective.total(terms)
            losses = {name: tf.reduce_mean(value) for name, value in terms.items()}
            losses["adversarial"] = losses["fooled"] = tf.constant(0.0)
            if self._rival:
                judged = self._rival.judge(pictures, styles, learns=False)
                deceived = distance_from(judged, 1.0)
                total += self.settings.adversarial_weight * deceived
                losses["fooled"] = tf.reduce_mean(deceived)
            loss = tf.reduce_mean(total)
        losses["total"] = loss
        gradients = tape.gradient(loss, self._adam.variables)
        rival_gradients = []
        if self._rival:
            with tf.GradientTape() as tape:
                of_real = distance_from(self._rival.judge(real, styles, learns=True), 1.0)
                made = tf.stop_gradient(pictures)
                of_made = distance_from(self._rival.judge(made, styles, learns=True), 0.0)
                loss = tf.reduce_mean(of_real + of_made)
            losses["adversarial"] = loss
            rival_gradients = tape.gradient(loss, self._rival_adam.variables)
        return losses, gradients, rival_gradients
