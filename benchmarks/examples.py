"""Figures of the example pairs with the default settings: what a change of method does to them."""

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table
from nst_ops.images.codec import decode
from nst_ops.quality import measure

SIZES = (256, 512)


def main() -> Table:
    rows = []
    for size in SIZES:
        for index, (_, painting) in enumerate(pairs.NAMES):
            pair = pairs.load(index, size)
            whole = decode((pairs.IMAGES / f"{painting}.jpg").read_bytes()).pixels
            result = nst_ops.run(pair.photo, [whole], nst_ops.Settings(size=size))
            rows.append(
                {
                    "size": size,
                    "pair": pair.name,
                    **measure(result.images[0], pair.photo, whole),
                }
            )
            print(*rows[-1].values(), flush=True)
    return Table("The example pairs, default settings", rows)
