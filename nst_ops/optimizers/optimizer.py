"""The optimizers by name."""

from nst_ops.optimizers.adam import Adam, AdamState
from nst_ops.optimizers.lbfgs import LBFGS, LBFGSState
from nst_ops.settings import HISTORY

State = LBFGSState | AdamState


def make_optimizer(
    name: str, learning_rate: float, history: int = HISTORY, storage: str = "float32"
) -> LBFGS | Adam:
    """The optimizer a config names: `lbfgs` or `adam`."""
    return LBFGS(history, storage) if name == "lbfgs" else Adam(learning_rate, storage)
