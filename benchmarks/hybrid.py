"""`engine: hybrid`: how few steps after the network reach the optimizer's figures."""

import time

import numpy as np

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table, means
from nst_ops.network.facts import EMBEDDED
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.quality import measure
from nst_ops.settings import Scale

SIZE = 512
# Steps, and content_weight: since the network keeps the photo's structure, less of it will do.
CASES = ((10, 6000.0), (12, 5000.0), (12, 4000.0))


def main() -> Table:
    model, facts = load_network(EMBEDDED)
    painter = Painter(model)
    rows = []
    default = nst_ops.Settings(size=SIZE)
    found: dict[str, list[dict[str, float]]] = {}
    for photo, painting in pairs.NAMES:
        pair = pairs.pair(photo, painting, SIZE)
        style = [facts.weights_of([(painting, 1.0)])]
        nst_ops.run(pair.photo, [pair.painting], default.model_copy(update={"steps": 1}))  # traces
        cases: dict[str, nst_ops.Settings] = {"optimizer": default} | {
            f"hybrid, {steps} steps, content_weight {weight:g}": default.model_copy(
                update={"scales": [Scale(size=SIZE, steps=steps)], "content_weight": weight}
            )
            for steps, weight in CASES
        }
        painter.paint(pair.photo[None], style)  # traces
        for method, settings in cases.items():
            started = time.process_time()
            initial = None if method == "optimizer" else painter.paint(pair.photo[None], style)
            result = nst_ops.run(
                pair.photo,
                [pair.painting],
                settings,
                initial=initial,
                cache=nst_ops.TargetCache(),
            )
            seconds = time.process_time() - started
            picture = np.asarray(result.images[0])
            figures = {**measure(picture, pair.photo, pair.painting), "cpu": seconds}
            found.setdefault(method, []).append(figures)
            print(pair.name, method, figures, flush=True)
    whole = means(found["optimizer"])["cpu"]
    for method, figures in found.items():
        mean = means(figures)
        shown = {name: mean[name] for name in ("swd", "gram", "cin", "patch3", "patch4")}
        rows.append({"method": method, **shown, "of the time": mean["cpu"] / whole})
    return Table(
        f"The hybrid, {SIZE} px",
        rows,
        (
            "Means of the example pairs.",
            "`of the time`: processor seconds over the optimizer's; paintings' targets are computed"
            " anew each time.",
        ),
    )
