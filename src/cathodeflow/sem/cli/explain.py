"""Command that draws where a network looks."""

import logging
from pathlib import Path

import click

from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, record_flag
from cathodeflow.sem.cli.shared import group, sample_flag
from cathodeflow.sem.options import VERSION, Explain

log = logging.getLogger("cathodeflow.sem")


@stage_command(group, Explain)
@click.argument("split_table")
@click.argument("model")
@click.argument("crops")
@click.argument("images")
@click.argument("predictions")
@sample_flag(VERSION)
@click.option("--sheet", required=True, metavar="FILE", help="Image of right and wrong crops of every class.")
@click.option("--maps", required=True, metavar="FOLDER", help="Folder of the maps over whole images: map_1.png and on.")
@record_flag()
def explain(
    split_table: str, model: str, crops: str, images: str, predictions: str, sample: str, sheet: str, maps: str,
    record: str, options: Explain,
) -> None:  # fmt: skip
    """Draw where MODEL looked for its predictions of IMAGES and of their crops, PREDICTIONS."""
    import numpy as np
    import torch

    from cathodeflow.io.crops import read_crops
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.micrographs import read_micrograph
    from cathodeflow.io.tables import read_csv, read_table
    from cathodeflow.record import write_record
    from cathodeflow.sem.explain import attention_maps, choose_crops, choose_originals, whole_map
    from cathodeflow.sem.explain_plots import contact_sheet, no_image_figure, whole_figure
    from cathodeflow.sem.model import load_network
    from cathodeflow.sem.predict import cut_tiles
    from cathodeflow.sem.resample import to_uint8

    torch.set_num_threads(options.threads)
    device = compute_device(options.device)
    network, metadata = load_network(model)
    classes = network.classes
    rng = np.random.default_rng(options.seed or 0)
    array, _ = read_crops(crops)
    chosen = choose_crops(read_csv(predictions), per_class=options.per_class, rng=rng)
    shown = np.stack([np.asarray(array[int(number)]) for number in chosen["crop"]])
    targets = [classes.index(label) for label in chosen["prediction"]]
    attention = attention_maps(network, shown, targets, method=options.method, device=device)
    save_figure(sheet, contact_sheet(shown, attention, chosen))
    figures = [sheet]
    files = read_table(split_table).set_index("name")
    originals = choose_originals(read_csv(images), whole=options.whole, rng=rng)
    geometry = {name: metadata[name] for name in ("pixels", "side", "margin", "pixel_nm")}
    for number, (_, row) in enumerate(originals.iterrows(), start=1):
        place = files.loc[row["name"]]
        pixel_nm = float(place["pixel_nm"]) if place["pixel_nm"] > 0 else None
        image, bar_rows = read_micrograph(place["image"]), int(place["bar_rows"])
        tiles = cut_tiles(image, overlap=options.overlap, bar_rows=bar_rows, own_pixel_nm=pixel_nm, **geometry)
        heat = whole_map(network, tiles, classes.index(row["prediction"]), method=options.method, device=device)
        grey = to_uint8(image, bar_rows=bar_rows)[: heat.shape[0], : heat.shape[1]]
        figures.append((Path(maps) / f"map_{number}.png").as_posix())
        save_figure(figures[-1], whole_figure(grey, heat, row.to_dict(), pixel_nm=pixel_nm))
    for number in range(len(originals) + 1, options.whole + 1):
        figures.append((Path(maps) / f"map_{number}.png").as_posix())
        save_figure(figures[-1], no_image_figure(f"{len(originals)} test images, no more"))
    metrics = {"crops": len(chosen), "images": len(originals)}
    write_record(record, stage="sem.explain", sample=sample, options=options, metrics=metrics, figures=figures)
    log.info("%d crops and %d whole images", len(chosen), len(originals))
