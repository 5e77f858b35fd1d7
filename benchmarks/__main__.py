"""`python -m benchmarks NAME`: measures, prints a table, keeps it as
`benchmarks/results/NAME.md`.
"""

import argparse
import importlib

from benchmarks import table

NAMES = (
    "baseline",
    "examples",
    "sweep",
    "attention",
    "frontier",
    "defaults",
    "regions",
    "rim",
    "symptoms",
    "step_share",
    "step",
    "memory",
    "throughput",
    "collection",
    "rows",
    "scaling",
    "time_to_quality",
    "network",
    "network_run",
    "hybrid",
    "training",
    "exports",
    "page",
    "rival",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("words", nargs="*", help="for `rows`, counts; for `training`, photos")
    given = parser.parse_args()
    name, words = given.name, given.words
    if words and name not in ("rows", "training"):
        parser.error(f"{name} takes nothing more")
    text = table.markdown(importlib.import_module(f"benchmarks.{name}").main(*words))
    print(text)
    print(f"kept as {table.write(name, text).relative_to(table.RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
