"""Stage: write the tables of the MatPhase paper."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.fibsem.method_costs import job_seconds, n_parameters, seconds_per_slice, training_records
from cathodeflow.fibsem.method_options import Tables
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.paper_tables import CAPTIONS, TABLES, as_markdown, missing_rows, paper_table
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.table_plots import table_figure
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv, read_json, read_table, write_csv
from cathodeflow.io.text import write_text as write_markdown
from cathodeflow.io.volumes import read_volume
from cathodeflow.stage import InputFile, InputFolder, InputStore, Metrics, OutputFolder, stage

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.tables")
def tables(
    folders: Sequence[InputFolder],
    *,
    comparison: InputFile,
    images: InputStore,
    out: OutputFolder,
    numbers: str = "1,2,3,5",
    options: Tables,
) -> Metrics:
    """Write tables of the MatPhase paper with the methods trained in FOLDERS.

    Each table is written as table_<n>.csv, table_<n>.md and table_<n>.png. Rows that were not run are missing.

    Parameters
    ----------
    folders : sequence of path
        Folders of runs, after `test`.
    comparison : path
        CSV table of all methods that `metrics` wrote.
    images : path
        Zarr store of the images, for the inference time.
    out : path
        Folder for the tables.
    numbers : str
        Tables to write, separated by commas: 1, 2, 3, 5.

    Raises
    ------
    InputError
        There is no such table.
    """
    torch.set_num_threads(options.threads)
    offered = {str(number): number for number in TABLES}
    for text in numbers.split(","):
        if text not in offered:
            raise InputError("--numbers", text, "1, 2, 3 or 5")
    wanted = [offered[text] for text in numbers.split(",")]
    metrics = read_csv(comparison)
    costs, machine = _costs(folders, images, options)
    notes = [
        "mIoU and fIoU: mean over the seeds ± standard deviation over the seeds. ACC: ± standard deviation over these "
        "images. Training: jobs of all networks that the method needs, with the networks of its cross-validation folds "
        "and the start of the programs, mean over the runs. Inference: "
        f"{options.inference_slices} slices with the model of the first run, {options.threads} thread(s).",
        *([f"Machine: {machine}."] if machine else []),
    ]
    absent: dict[str, str] = {}
    for number in wanted:
        table = paper_table(number, metrics, costs)
        missing = missing_rows(number, list(metrics["model"]))
        path = Path(out, f"table_{number}")
        write_csv(f"{path}.csv", table)
        write_markdown(f"{path}.md", as_markdown(number, table, missing, notes))
        save_figure(f"{path}.png", table_figure(table, f"Table {number}. {CAPTIONS[number]}"))
        if missing:
            absent[f"not_run_{number}"] = ", ".join(missing)
            log.warning("table %d: not run: %s", number, ", ".join(missing))
    figures = [f"{out}/table_{number}.png" for number in wanted]
    return Metrics({"runs": len(folders), **absent}, figures=figures)


def _costs(folders: Sequence[str], images: str, options: Tables) -> tuple[dict[str, dict[str, float]], str]:
    """Parameters and times of all methods, and the machine that the first run was trained on."""
    networks, metadata = load_bundle(f"{folders[0]}/model.pt")
    tested = read_table(f"{folders[0]}/test.parquet", ["image"])["image"].to_numpy()[: options.inference_slices]
    slices = read_volume(images)[tested].compute()
    predict = Predict(threads=options.threads, device=options.device)
    found, machine = {}, ""
    for entry in metadata["methods"]:
        method = Method(**entry)
        times = []
        for folder in folders:
            names = [f"{folder}/{name}.json" for name in training_records(method)]
            records = [read_json(name) for name in names if Path(name).is_file()]
            machine = machine or next((record["job"]["platform"] for record in records if "job" in record), "")
            # Without all records the time is not known; a run may lack the method.
            if len(records) == len(names):
                times.append(job_seconds(records))
        wall, processor = np.mean(times or [(np.nan, np.nan)], axis=0).tolist()
        found[method.name] = {
            "parameters": n_parameters(method, networks),
            "training_s": wall,
            "training_cpu_s": processor,
            "inference_s": seconds_per_slice(slices, method, networks, metadata, predict),
        }
    return found, machine
