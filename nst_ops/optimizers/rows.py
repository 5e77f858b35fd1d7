"""The images of a batch as rows of tensors [B, ...], which can be taken, selected and joined."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def take_rows(tensors: Any, rows: Sequence[int]) -> Any:
    """Returns these rows of a state, or of any nest of tensors [B, ...]."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)


def select_rows(rows: tf.Tensor, yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
    """Returns the images of `yes` where `rows` [B] is true, else of `no`; both are [B, ...]."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (yes.shape.rank - 1)), yes, no)


def join_rows(parts: Sequence[tuple[Sequence[int], Any]]) -> Any:
    """Joins parts of a batch, in the order of its rows.

    Args:
      parts: pairs (rows, nest of tensors) that together have each row once.
    """
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return tf.nest.map_structure(
        lambda *tensors: tf.gather(tf.concat(tensors, axis=0), order), *(part for _, part in parts)
    )


def per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]
