"""Stage: compute class activation maps of a network."""

import logging

import numpy as np
import torch

from cathodeflow.io.activation_maps import ActivationMaps, write_activation_maps
from cathodeflow.io.crops import geometry_of, read_crops
from cathodeflow.io.tables import read_csv, write_csv
from cathodeflow.learning import resolve_device
from cathodeflow.sem.gradcam import activation_maps, choose_crops, choose_originals, whole_map
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.model import load_network
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.options import Explain
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")
# Of the table of images.
_COLUMNS = ("name", "image", *UsableArea._fields, "pixel_nm", "page", "mask")


@stage("sem.explain")
def explain(
    split_table: InputFile,
    model: InputFile,
    crops: InputStore,
    images: InputFile,
    predictions: InputFile,
    *,
    out: OutputFile,
    crops_table: OutputFile,
    images_table: OutputFile,
    sheet: str | None = None,
    options: Explain,
) -> Metrics:
    """Compute class activation maps of MODEL for its predictions of IMAGES and of their crops, PREDICTIONS.

    Parameters
    ----------
    split_table : path
        Table of images that `split` wrote.
    model : path
        Model file that `train` wrote.
    crops : path
        Store that `crops` wrote.
    images : path
        Predictions of the test images that `test` wrote.
    predictions : path
        Predictions of the test crops that `test` wrote.
    out : path
        File of the maps to write (explain.h5).
    crops_table : path
        CSV table of the crops that were chosen, to write.
    images_table : path
        CSV table of the images that were chosen, to write.
    sheet : str
        Sample sheet: images are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        An image cannot be read or is smaller than a crop.
    """
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device or "auto").type
    network, metadata = load_network(model)
    classes = network.classes
    rng = np.random.default_rng(options.seed or 0)
    array, _ = read_crops(crops)
    chosen = choose_crops(read_csv(predictions), per_class=options.per_class, rng=rng)
    shown = np.stack([np.asarray(array[int(number)]) for number in chosen["crop"]])
    targets = [classes.index(label) for label in chosen["prediction"]]
    maps = activation_maps(network, shown, targets, method=options.method, device=device)
    files = read_split(split_table, _COLUMNS, sheet=sheet).set_index("name")
    read = listed_reader(files)
    originals = choose_originals(read_csv(images), whole=options.whole, rng=rng)
    originals["pixel_nm"] = files.loc[originals["name"], "pixel_nm"].to_numpy()
    geometry = geometry_of(metadata)
    whole, whole_maps = [], []
    for name, prediction, pixel_nm in zip(*(originals[c] for c in ("name", "prediction", "pixel_nm")), strict=True):
        image = read(files.loc[name, "image"])
        area = UsableArea(*files.loc[name, list(UsableArea._fields)])
        own_pixel_nm = float(pixel_nm) if pixel_nm > 0 else None
        tiles = cut_tiles(image, overlap=options.overlap, area=area, own_pixel_nm=own_pixel_nm, **geometry)
        whole_maps.append(whole_map(network, tiles, classes.index(prediction), method=options.method, device=device))
        rows, cols = whole_maps[-1].shape
        grey = to_uint8(image, area=area)
        whole.append(area.inset(geometry["margin"], image.shape).of(grey)[:rows, :cols])
    write_activation_maps(out, ActivationMaps(shown, maps, whole, whole_maps), requested=options.whole)
    write_csv(crops_table, chosen)
    write_csv(images_table, originals)
    log.info("class activation maps of %d crops and %d whole images", len(chosen), len(originals))
    return Metrics({"crops": len(chosen), "images": len(originals)})
