"""Colour control (Gatys et al. 2016b, arXiv:1606.05897): recolour the painting, or keep the photo's
colours.

Images here are float32 `[..., H, W, 3]` NumPy arrays, sRGB in [0, 1].
"""

import numpy as np

# ITU-R BT.601, full range: luma and two colour differences.
_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)


def match_colors(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Maps the colours of `image` linearly, so that they have the mean and covariance of
    `reference`.

    This is the symmetric form (section 5.3 of the paper, "image analogies" colour transfer), which
    of all such maps moves colours least.

    Args:
      image: [H, W, 3].
      reference: [h, w, 3].

    Returns:
      [H, W, 3] in [0, 1]; clipping may move the moments a little.
    """
    flat = image.reshape(-1, 3).astype(np.float64)
    goal = reference.reshape(-1, 3).astype(np.float64)
    # A flat image has no covariance to divide by; 1e-5 is under half a level of 255.
    ridge = 1e-5 * np.eye(3)
    transfer = _power(np.cov(goal.T) + ridge, 0.5) @ _power(np.cov(flat.T) + ridge, -0.5)
    moved = (flat - flat.mean(0)) @ transfer.T + goal.mean(0)
    return np.clip(moved, 0.0, 1.0).astype(np.float32).reshape(image.shape)


def luminance(image: np.ndarray) -> np.ndarray:
    """Returns the grey version of an image, as three equal channels, [..., H, W, 3]."""
    return np.repeat((image @ _TO_YIQ[0])[..., None], 3, axis=-1)


def match_luminance(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the grey version of `image` with the mean and the standard deviation of the luma of
    `reference`, [H, W, 3] in [0, 1].
    """
    grey, goal = luminance(image), luminance(reference)
    spread = goal.std() / max(float(grey.std()), 1e-5)
    return np.clip((grey - grey.mean()) * spread + goal.mean(), 0.0, 1.0).astype(np.float32)


def keep_colors(picture: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Combines the luma of `picture` with the colours of `photo`: [..., H, W, 3] in [0, 1]."""
    yiq = photo @ _TO_YIQ.T
    yiq[..., 0] = picture @ _TO_YIQ[0]
    return np.clip(yiq @ _FROM_YIQ.T, 0.0, 1.0).astype(np.float32)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Raises a symmetric positive matrix to a power."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T
