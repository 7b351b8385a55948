"""Outputs of a network for labelled images that it was not trained with: for tiles that cover each image."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.crops import geometry_of
from cathodeflow.parallel import ordered_map
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.onnx_network import Outputs
from cathodeflow.sem.options import Test
from cathodeflow.sem.predictions import network_outputs
from cathodeflow.sem.tiles import Grey, Tiles, cut_tiles
from cathodeflow.sem.usable_area import UsableArea

_READERS = 2


def labelled_outputs(
    model: SemNetwork,
    metadata: Mapping[str, Any],
    table: pd.DataFrame,
    read: Callable[[str], Grey],
    options: Test,
    *,
    device: torch.device | str,
) -> tuple[Outputs, pd.DataFrame]:
    """Compute the logits of tiles that cover all images, as `predict_images` cuts them.

    Parameters
    ----------
    model, metadata
        Of `model.load_network`.
    table : DataFrame
        Of `image_table.build_index`; images that are left out, such as duplicates, are not used.
    read : function of str
        Returns the image of a path; runs in threads.
    options : Test
    device : torch.device or str

    Returns
    -------
    outputs : Outputs
    tiles : DataFrame
        crop (number of the tile), name, label, a row for each.

    Raises
    ------
    InputError
        No image, classes that the network does not know, or images that are smaller than a tile: a line each.
    """
    used = table[table["split"] != "left out"]
    errors = [
        InputError(used["image"][used["label"] == label].iloc[0], f"class {label}", f"{', '.join(model.classes)}")
        for label in sorted(set(used["label"]) - set(model.classes))
    ]
    if used.empty:
        errors = [InputError("images", "none", "at least one that is labelled")]
    if errors:
        raise InputErrors.of(errors)
    geometry = geometry_of(metadata)

    def load(row: tuple[Any, ...]) -> tuple[str, str, Tiles] | InputError:
        path, name, label, pixel_nm, *edges = row
        try:
            own = float(pixel_nm) if pixel_nm > 0 else None
            tiles = cut_tiles(
                read(path), overlap=options.overlap, area=UsableArea(*edges), own_pixel_nm=own, **geometry
            )
        except InputError as error:
            return InputError(path, error.found, error.expected)
        return name, label, tiles

    outputs: list[Outputs] = []
    rows: list[tuple[str, str]] = []
    columns = ["image", "name", "label", "pixel_nm", *UsableArea._fields]
    for loaded in ordered_map(load, list(used[columns].itertuples(index=False, name=None)), workers=_READERS):
        if isinstance(loaded, InputError):
            errors.append(loaded)
        elif not errors:
            name, label, tiles = loaded
            outputs.append(network_outputs(model, tiles.crops, batch_size=options.batch_size, device=device))
            rows += [(name, label)] * len(tiles.crops)
    if errors:
        raise InputErrors.of(errors)
    cut = pd.DataFrame(rows, columns=["name", "label"])
    cut.insert(0, "crop", np.arange(len(cut)))
    return Outputs(*(np.concatenate(part) for part in zip(*outputs, strict=True))), cut
