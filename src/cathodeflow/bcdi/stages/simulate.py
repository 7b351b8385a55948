"""Stage: simulate strained crystals and their diffraction."""

import logging
from contextlib import ExitStack

import dask
import numpy as np
import pandas as pd

from cathodeflow.bcdi.simulation import block, crystal_table, stored
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import default_shards, new_volume
from cathodeflow.scheduling import scheduled
from cathodeflow.stage import Metrics, OutputFile, OutputStore, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.simulate")
def simulate(
    *, out: OutputStore, objects: OutputStore, good: OutputStore, table: OutputFile, options: Simulate
) -> Metrics:
    """Simulate strained crystals and the counts of their diffraction patterns, block by block.

    Parameters
    ----------
    out : path
        Zarr store of the amplitudes (square roots of the counts) to write.
    objects : path
        Zarr store of the true objects to write.
    good : path
        Zarr store of the good pixels to write.
    table : path
        Table of the crystals to write (Parquet).
    """
    count, side = options.crystals, (options.size,) * 3
    # Files contain the same number of crystals in all stores, so that one task writes a block of them.
    together = default_shards((count, *side), (1, *side), 8)[0]
    with ExitStack() as stack:
        stores = [
            stack.enter_context(
                new_volume(
                    path,
                    (count, *shape),
                    dtype,
                    axes=("crystal", *"zyx"[-len(shape) :]),
                    chunks=(1, *shape),
                    shards=(together, *shape),
                )
            )
            for path, shape, dtype in ((out, side, np.float32), (objects, side, np.complex64), (good, side[1:], bool))
        ]

        def write_block(start: int, stop: int) -> pd.DataFrame:
            numbers = range(options.first + start, options.first + stop)
            simulated = block(numbers, options)
            for store, values in zip(stores, stored(simulated), strict=True):
                store[start:stop] = values
            return crystal_table(numbers, simulated)

        tasks = [dask.delayed(write_block)(start, min(start + together, count)) for start in range(0, count, together)]
        with scheduled():
            parts = dask.compute(*tasks)
    crystals = pd.concat(parts, ignore_index=True)
    write_table(table, crystals)
    metrics: dict[str, float] = {
        f"crystals_{regime}": int(number) for regime, number in crystals["regime"].value_counts().items()
    }
    metrics |= {"crystals": count, "median_photons": float(crystals["photons"].median())}
    log.info("%s", ", ".join(f"{name} {value:g}" for name, value in metrics.items()))
    return Metrics(metrics)
