"""The optimizers by name."""

from nst_ops.optimizers.adam import Adam, AdamState
from nst_ops.optimizers.lbfgs import LBFGS, LBFGSState
from nst_ops.settings import HISTORY

State = LBFGSState | AdamState


def make_optimizer(
    name: str, learning_rate: float, history: int = HISTORY, storage: str = "float32"
) -> LBFGS | Adam:
    """Makes the optimizer of this name: `lbfgs` or `adam`.

    Args:
      name: as in `Settings.optimizer`.
      learning_rate: of Adam.
      history: steps that L-BFGS remembers.
      storage: type in which history or moments are kept, `float32` or `bfloat16`.
    """
    return LBFGS(history, storage) if name == "lbfgs" else Adam(learning_rate, storage)
