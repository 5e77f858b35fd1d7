"""`nst train`: a network that paints in the styles of some paintings."""

import argparse
import os
import sys
import time

from rich.console import Console

from nst_ops.errors import NonFiniteError
from pipeline.cli.commands import DEFERRED, OK, RUN_FAILED
from pipeline.cli.display import PairDisplay
from pipeline.machine.messages import printable
from pipeline.machine.signals import stopping
from pipeline.machine.tensorflow_setup import start_tensorflow
from pipeline.store.locks import lock
from pipeline.training.plan import load_settings, plan_training
from pipeline.workers.limits import parse_deadline


def train(options: argparse.Namespace, rest: list[str], console: Console) -> int:
    """Trains until the end, a deadline or a signal; the same command goes on from there."""
    settings = load_settings(options.config, options.overrides)
    deadline = parse_deadline(options.deadline, options.max_hours)
    plan = plan_training(settings, options.content, options.style, options.output, options.add_to)
    signals: list[str] = []
    with lock(str(plan.folder), "training"):
        start_tensorflow()
        from pipeline.training.session import TrainingSession

        console.print(
            printable(
                f"photos: {len(plan.photos)}; styles: "
                f"{', '.join(style.name for style in plan.styles)}; samples and losses: "
                f"{plan.folder / 'index.html'}"
            )
        )
        session = TrainingSession(plan)
        with PairDisplay(console) as display, stopping(signals.append):
            display.begin(session.begun)
            try:
                ended = session.run(display.show, lambda: bool(signals) or time.time() > deadline)
            except NonFiniteError as error:
                print(f"nst train: {error}", file=sys.stderr)
                return RUN_FAILED
    for path, why in list(ended.unusable.items())[:5]:
        console.print(printable(f"of no use: {why if path in why else f'{path}: {why}'}"))
    if len(ended.unusable) > 5:
        console.print(f"and {len(ended.unusable) - 5} photos more")
    if not ended.finished:
        console.print(
            f"stopped at step {ended.step} of {settings.steps}; run the same command again to go on"
        )
        return DEFERRED
    size = os.path.getsize(plan.output) / 1e6
    console.print(printable(f"{options.output}: {ended.step} steps, {size:.2f} MB"))
    return OK
