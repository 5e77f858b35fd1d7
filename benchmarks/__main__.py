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
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("counts", nargs="*", type=int, help="of rows, for `rows`")
    given = parser.parse_args()
    name, counts = given.name, given.counts
    if counts and name != "rows":
        parser.error(f"{name} takes no numbers")
    text = table.markdown(importlib.import_module(f"benchmarks.{name}").main(*counts))
    print(text)
    print(f"kept as {table.write(name, text).relative_to(table.RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
