"""Stage: success of phase retrieval on unseen crystals, from the network's prediction and from random starts."""

import logging
from typing import Any

import pandas as pd
import torch

from cathodeflow.bcdi.figures_of_merit import success_rates
from cathodeflow.bcdi.network import restored
from cathodeflow.bcdi.network_options import Evaluate
from cathodeflow.bcdi.trials import best_trials, by_regime, try_starts
from cathodeflow.io.models import load_model
from cathodeflow.io.tables import read_table, write_csv, write_table
from cathodeflow.io.zarr_stores import open_array
from cathodeflow.learning import resolve_device
from cathodeflow.parallel import ordered_map
from cathodeflow.progress import progress
from cathodeflow.seeds import derived_seed
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.evaluate")
def evaluate(
    model: InputFile,
    amplitudes: InputStore,
    objects: InputStore,
    good: InputStore,
    table: InputFile,
    *,
    out: OutputFile,
    trials: OutputFile,
    options: Evaluate,
) -> Metrics:
    """Phase unseen crystals from the prediction of MODEL and from random starts, with the same settings.

    Parameters
    ----------
    model : path
        Trained network.
    amplitudes : path
        Zarr store of the amplitudes of simulated crystals.
    objects : path
        Zarr store of their true objects.
    good : path
        Zarr store of their good pixels.
    table : path
        Table of the crystals.
    out : path
        CSV table of success rates to write.
    trials : path
        Table of all trials to write (Parquet).
    """
    # Small volumes are phased in parallel by one thread each: several threads on one volume mostly wait for each other.
    torch.set_num_threads(1)
    network = restored(*load_model(model), where=model)
    stores = [open_array(path) for path in (amplitudes, objects, good)]
    known = read_table(table, ["number", "regime", "phase_range", "photons"])
    count = min(options.crystals, len(known))

    def phased(row: int) -> list[dict[str, Any]]:
        metadata = {str(name): value for name, value in known.iloc[row].items() if name != "number"}
        measured, truth, usable = (torch.from_numpy(store[row]) for store in stores)
        seeded = options.model_copy(update={"seed": derived_seed(options.seed or 0, row)})
        found = try_starts(network, measured, truth, seeded, mask=usable.expand(measured.shape))
        return [{"crystal": int(known["number"].iloc[row]), **metadata, **trial} for trial in found]

    # On a GPU, one crystal after the other.
    workers = options.threads if resolve_device(options.device or "auto").type == "cpu" else 1
    phased_crystals = progress(ordered_map(phased, range(count), workers=workers), "phasing", total=count)
    tried = by_regime(pd.DataFrame([trial for rows in phased_crystals for trial in rows]))
    best = best_trials(tried)
    rates, overall = (success_rates(rows, options) for rows in (best, best.assign(regime="all")))
    write_table(trials, tried)
    write_csv(out, pd.concat([rates, overall], ignore_index=True))
    columns = zip(overall["start"], overall["iterations"], overall["share"], strict=True)
    metrics = {f"success_{start}_{iterations}": float(share) for start, iterations, share in columns}
    log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    return Metrics(metrics)
