"""Commands that simulate: crystals for the network, and raw scans."""

import logging

import click

from cathodeflow.bcdi.cli.shared import group, sample_flag
from cathodeflow.bcdi.options import Simulate, SimulateScan
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag

log = logging.getLogger("cathodeflow.bcdi")


@stage_command(group, Simulate)
@sample_flag
@click.option("--out", required=True, metavar="STORE", help="Zarr store of the amplitudes to write.")
@click.option("--objects", required=True, metavar="STORE", help="Zarr store of the true objects to write.")
@click.option("--good", required=True, metavar="STORE", help="Zarr store of the good pixels to write.")
@click.option("--table", required=True, metavar="FILE", help="Table of the crystals to write.")
@record_flag()
def simulate(
    sample: str, out: str, objects: str, good: str, table: str, record: str, options: Simulate
) -> None:  # fmt: skip
    """Simulate strained crystals and what a detector counts of them, block by block."""
    from contextlib import ExitStack

    import dask
    import numpy as np
    import pandas as pd

    from cathodeflow.bcdi import simulate as crystals
    from cathodeflow.bcdi.crystals import HABITS
    from cathodeflow.bcdi.displacement import REGIMES
    from cathodeflow.bcdi.fields import KINDS
    from cathodeflow.io.tables import write_table
    from cathodeflow.io.volumes import default_shards, new_volume
    from cathodeflow.record import write_record
    from cathodeflow.scheduling import scheduled

    population = crystals.Population(**options.model_dump(include=set(crystals.Population._fields)))
    measurement = crystals.Measurement(**options.model_dump(include=set(crystals.Measurement._fields)))
    count, side = options.crystals, (options.size,) * 3
    # A file holds as many crystals in all stores, so that a block of them is written by one task.
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

        def made(start: int, stop: int) -> pd.DataFrame:
            numbers = range(options.first + start, options.first + stop)
            one = crystals.block(numbers, seed=options.seed or 0, size=options.size, population=population,
                                 measurement=measurement)  # fmt: skip
            values = (np.sqrt(one.counts * one.good[:, None], dtype=np.float32),
                      one.amplitude * np.exp(np.complex64(1j) * one.phase), one.good)  # fmt: skip
            for store, value in zip(stores, values, strict=True):
                store[start:stop] = value
            names = {"regime": list(REGIMES), "kind": KINDS, "habit": list(HABITS)}
            columns = {name: np.array(known)[getattr(one, name)] for name, known in names.items()}
            columns |= {f"oversampling_{axis}": one.oversampling[:, k] for k, axis in enumerate("zyx")}
            return pd.DataFrame(
                {"number": list(numbers), **columns, "phase_range": one.phase_range, "photons": one.photons}
            )

        tasks = [dask.delayed(made)(start, min(start + together, count)) for start in range(0, count, together)]
        with scheduled():
            parts = dask.compute(*tasks)
    truth = pd.concat(parts, ignore_index=True)
    write_table(table, truth)
    figures: dict[str, float] = {
        f"crystals_{name}": int(number) for name, number in truth["regime"].value_counts().items()
    }
    figures |= {"crystals": count, "median_photons": float(truth["photons"].median())}
    write_record(record, stage="bcdi.simulate", sample=sample, options=options, metrics=figures)
    log.info("%s", ", ".join(f"{name} {value:g}" for name, value in figures.items()))


@stage_command(group, SimulateScan)
@click.argument("folder")
@click.option("--number", type=int, default=0, help="Number of the scan: each is another crystal.")
def simulate_scan(folder: str, number: int, options: SimulateScan) -> None:
    """Write the raw frames of a simulated rocking scan into FOLDER, with dark, whitefield, mask, geometry and truth."""
    from cathodeflow.bcdi.data_sets import simulated_files
    from cathodeflow.bcdi.rocking import GEOMETRY, rocking_scan
    from cathodeflow.io.reconstructions import Reconstruction, write_cxi
    from cathodeflow.io.simulated import write_tiff
    from cathodeflow.io.text import write_yaml

    keywords = options.model_dump(exclude={"frames", "rows", "cols", "rocking_step_deg", "seed"})
    made = rocking_scan(
        seed=(options.seed or 0) + 1000 * number, shape=(options.frames, options.rows, options.cols),
        geometry=GEOMETRY._replace(rocking_step_deg=options.rocking_step_deg), **keywords,
    )  # fmt: skip
    files = simulated_files(folder, options)
    for path, frame in zip(files["frames"], made.frames, strict=True):
        write_tiff(path, frame)
    write_tiff(files["dark"], made.dark)
    write_tiff(files["whitefield"], made.whitefield)
    write_tiff(files["mask"], made.good.astype("uint8"))
    write_yaml(files["geometry"], made.geometry._asdict())
    truth = made.truth
    known = {"phase_range": truth.phase_range, "regime": truth.regime}
    write_cxi(
        files["truth"],
        Reconstruction(truth.object, abs(truth.object) >= 0.5, frame="scan", geometry=made.geometry._asdict(),
                       process=known),
    )  # fmt: skip
