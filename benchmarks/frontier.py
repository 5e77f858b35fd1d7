"""How much of the photo's structure is lost for how near the textures come to the painting's: along
`content_weight`, with the attention term and without, and as it was before there was the term.
"""

from typing import Any

from benchmarks import pairs, versions
from benchmarks.table import Table, means
from nst_ops.quality import measure

SIZE = 256
CONTENT_WEIGHTS = (1e3, 3e3, 6e3, 1e4)
_METHODS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "before": (versions.BEFORE_ATTENTION, {}),
    "without attention": (None, {"attention_weight": 0.0}),
    "default": (None, {}),
}


def main() -> Table:
    rows = []
    chosen = [pairs.load(number, SIZE) for number in range(len(pairs.NAMES))]
    for method, (commit, changes) in _METHODS.items():
        for weight in CONTENT_WEIGHTS:
            settings = {"size": SIZE, "tolerance": 0.0, "content_weight": weight, **changes}
            cases = [versions.Case(pair.photo, pair.painting, settings) for pair in chosen]
            found = [
                measure(made.picture, pair.photo, pair.painting)
                for made, pair in zip(versions.make(cases, commit), chosen, strict=True)
            ]
            mean = means(found)
            shown = {name: mean[name] for name in ("swd", "gram", "cin", "speckle")}
            patch = (mean["patch3"] + mean["patch4"]) / 2
            rows.append({"method": method, "content_weight": weight, **shown, "patch": patch})
            print(*rows[-1].values(), flush=True)
    return Table(
        f"The frontier, {SIZE} px",
        rows,
        (
            "Means of the four pairs. Before: the program as it was at"
            f" {versions.BEFORE_ATTENTION}, the last commit without attention.",
        ),
    )
