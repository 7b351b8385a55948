"""Class, entropy and out-of-distribution score of whole micrographs without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.crops import LEAST, geometry_of
from cathodeflow.parallel import ordered_map
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.info_bar import Bar, bar_of
from cathodeflow.sem.map_tiles import Parts, bar_of_map, cut_map
from cathodeflow.sem.nickel import COLUMNS as NICKEL
from cathodeflow.sem.onnx_network import OnnxNetwork, Outputs
from cathodeflow.sem.ood import ood_score
from cathodeflow.sem.options import Predict
from cathodeflow.sem.printed_pixel import read_printed
from cathodeflow.sem.rejection import CONTRADICTED, DOUBTFUL, UNKNOWN, Rejection, relative_scores
from cathodeflow.sem.texture_classifier import TextureClassifier
from cathodeflow.sem.tiles import Grey, cut_tiles

if TYPE_CHECKING:
    import torch

    from cathodeflow.sem.model import SemNetwork

#: Image as stored, or a map that is read in parts, and the settings of its instrument, as far as they are known.
Micrograph = tuple[Grey | Parts, dict[str, Any]]

# Tiles per batch: all tiles of a usual image, within the memory that the largest images need.
_TOGETHER = 128
# Likewise, of onnxruntime: what its layers pass on fits into the cache of a core.
_IN_CACHE = 2
#: Columns of a table of tiles.
TILE_COLUMNS = ("image", "row", "col", "rows", "cols", "prediction", "confidence")


class ImagePrediction(NamedTuple):
    """Calibrated probabilities (k,) of an image, its OOD score, the probabilities (n, k) of its tiles, and its nickel.

    `nickel` is the nickel fraction, and the lower and upper limit of its interval; None if the network predicts none.
    `withheld` says why the prediction is not accepted ("" if it is); None for networks of before there was a rule.
    `agreement` is the probability of the prediction according to the texture; None for networks of earlier versions.
    """

    probabilities: NDArray[np.float64]
    ood_score: float
    of_tiles: NDArray[np.float64]
    nickel: tuple[float, ...] | None = None
    withheld: str | None = None
    agreement: float | None = None


class PredictedImage(NamedTuple):
    """Rows of an image in the table of images and in that of tiles; values by the name of the column."""

    row: dict[str, Any]
    tiles: list[list[Any]]


def predict_tiles(
    model: SemNetwork | OnnxNetwork,
    metadata: Mapping[str, Any],
    batches: Iterable[NDArray[np.uint8]],
    *,
    device: torch.device | str,
) -> ImagePrediction:
    """Predict an image from its tiles.

    Parameters
    ----------
    model : SemNetwork or OnnxNetwork
    metadata : mapping
        Of `model.load_network`: temperature, original_temperature, statistics, and nickel, rejection, texture if there
        are.
    batches : iterable of (n, side, side) uint8
        The tiles (`tiles.cut_tiles`, `map_tiles.cut_map`).
    device : torch.device or str
        Of a SemNetwork.
    """
    classifier: TextureClassifier | None = metadata.get("texture")
    found, textures = [], []
    for crops in batches:
        found.append(_outputs(model, crops, device))
        if classifier is not None:
            textures.append(classifier.of_crops(crops))
    outputs = Outputs(*(np.concatenate(part) for part in zip(*found, strict=True)))
    of_tiles = apply_temperature(outputs.logits, metadata["temperature"])
    whole = apply_mean_temperature(of_tiles.mean(0, keepdims=True), metadata["original_temperature"])[0]
    features = outputs.features.mean(0, keepdims=True, dtype=np.float64)
    score = float(ood_score(features, metadata["statistics"])[0])
    regression = metadata.get("nickel")
    nickel = None if regression is None else tuple(regression.intervals(features)[0].tolist())
    texture = np.concatenate(textures).mean(0) if textures else None
    agreement = None if texture is None else float(texture[whole.argmax()])
    reason = _reason(whole, score, texture, metadata)
    return ImagePrediction(whole, score, of_tiles, nickel, reason, agreement)


def _reason(
    whole: NDArray[np.float64], score: float, texture: NDArray[np.float64] | None, metadata: Mapping[str, Any]
) -> str | None:
    rejection: Rejection | None = metadata.get("rejection")
    if rejection is None:
        return None
    relative, best = float(relative_scores(score, metadata["statistics"])), int(whole.argmax())
    if rejection.accepted([whole[best]], [relative], None if texture is None else [texture[best]])[0]:
        return ""
    if relative > 1:
        return UNKNOWN
    return DOUBTFUL if texture is None or texture.argmax() == best else CONTRADICTED


def _outputs(model: SemNetwork | OnnxNetwork, crops: NDArray[np.uint8], device: torch.device | str) -> Outputs:
    if isinstance(model, OnnxNetwork):
        return model.outputs(crops, batch_size=_IN_CACHE)
    from cathodeflow.sem.predictions import network_outputs  # imports torch, which other networks do not need

    return network_outputs(model, crops, batch_size=_TOGETHER, device=device)


def predict_images(
    model: SemNetwork | OnnxNetwork,
    metadata: Mapping[str, Any],
    images: Iterable[str],
    read: Callable[[str], Micrograph],
    options: Predict,
    *,
    processor: torch.device | str = "cpu",
    known: Mapping[str, PredictedImage] | None = None,
    on_image: Callable[[str, PredictedImage], None] | None = None,
) -> pd.DataFrame:
    """Predict images and sort them by OOD score, the highest first.

    On CPUs, `options.threads` images are read and predicted side by side; on a GPU the next images are read during the
    computation.

    Parameters
    ----------
    model, metadata
        Of `model.load_network`, or an OnnxNetwork and its metadata.
    images : iterable of str
        Names, such as paths.
    read : function of str
        Returns an image and the settings of its instrument, or raises InputError; runs in threads.
    options : Predict
        With `on_bad_file: skip`, unusable images are the last rows, with the error in column `problem`.
    processor : torch.device or str
        Device of a SemNetwork.
    known : mapping, optional
        Images that have been predicted before, by their names.
    on_image : function, optional
        Called with the name and the result of every image that was predicted now.

    Returns
    -------
    DataFrame
        rank, image, prediction, confidence (calibrated), entropy [nat], entropy_share (fraction of the maximum
        entropy), strangeness (the OOD score), foreign (whether the score is above the threshold), agreement
        (probability of the prediction according to the texture), accepted (whether it is likely enough to be right),
        withheld (why it is not: `rejection`), tiles (their number), bar_rows [px], bar_side, pixel_nm (NaN: unknown)
        [nm], page, mask (the options), problem, p_<class>; with a regression of the nickel fraction
        (`nickel.fit_nickel`) also nickel, nickel_low, nickel_high: the fraction and the limits of its 90 % interval.

    Raises
    ------
    InputError
        No image; a network without `statistics`; with `on_bad_file: fail`, unusable images, a line each.
    """
    if metadata.get("statistics") is None:
        raise InputError("network", "no statistics of known images", "a network of sem_train")
    known = known or {}
    classes, on_cpu = model.classes, isinstance(model, OnnxNetwork) or str(processor) == "cpu"
    geometry = geometry_of(metadata)
    errors: list[InputError] = []

    def predicted(cut: _Cut) -> PredictedImage:
        found = predict_tiles(model, metadata, cut.batches, device=processor)
        return _as_rows(cut, found, classes, metadata["statistics"].threshold(options.ood_quantile))

    def work(name: str) -> tuple[str, PredictedImage | _Cut | InputError | None]:
        if name in known:
            return name, known[name]
        # Where one unusable image is an error, nothing is predicted after it, and the others are only tried.
        try:
            cut = _cut(name, read, options, geometry)
            return name, (None if _ended(errors, options) else predicted(cut)) if on_cpu else cut
        except InputError as error:
            return name, error if str(error.where) != "image" else InputError(name, error.found, error.expected)

    rows: list[dict[str, Any]] = []
    for name, found in ordered_map(work, images, workers=options.threads):
        if isinstance(found, InputError):
            errors.append(found)
            rows.append({"image": name, "tiles": 0, "problem": str(found)})
        elif found is not None and not _ended(errors, options):
            result = predicted(found) if isinstance(found, _Cut) else found
            rows.append(result.row)
            if on_image is not None and name not in known:
                on_image(name, result)
    if errors and options.on_bad_file == "fail":
        raise InputErrors.of(errors)
    if not rows:
        raise InputError("images", "none", "at least one")
    return _ranked(pd.DataFrame(rows), classes)


class _Cut(NamedTuple):
    """Tiles of an image: their first pixels in it, their size, and their crops in batches; how the image was read."""

    name: str
    bar: Bar
    places: NDArray[np.int64]
    extent: tuple[int, int]
    batches: Iterable[NDArray[np.uint8]]
    pixel_nm: float | None
    page: int | None
    mask: str | None


def _ended(errors: list[InputError], options: Predict) -> bool:
    return bool(errors) and options.on_bad_file == "fail"


def _cut(name: str, read: Callable[[str], Micrograph], options: Predict, geometry: Mapping[str, Any]) -> _Cut:
    image, settings = read(name)
    own = settings.get("pixel_nm") or options.pixel_nm
    arguments = {**geometry, "overlap": options.overlap, "own_pixel_nm": own}
    try:
        if isinstance(image, np.ndarray):
            bar = bar_of(image, settings, options.bar_rows, options.bar_side)
            area = bar.area(image.shape)
            if own is None and geometry["pixel_nm"] is not None and (scale := read_printed(image, area)):
                own = arguments["own_pixel_nm"] = scale.pixel_nm
            cut = cut_tiles(image, area=area, **arguments)
            places, batches = cut.places, iter([cut.crops])
        else:
            bar = bar_of_map(image.shape, settings, options.bar_rows, options.bar_side)
            area = bar.area(image.shape)
            del arguments[LEAST]
            cut_in_rows = cut_map(image, area=area, **arguments)
            places, batches = cut_in_rows.places, _read_to_the_end(image, cut_in_rows.batches)
            places = places + _first(area, geometry, image.shape)
            return _Cut(name, bar, places, cut_in_rows.extent, batches, own, options.page, None)
    except InputError as error:
        raise InputError(name, error.found, error.expected) from error
    places = places + _first(area, geometry, image.shape)
    return _Cut(name, bar, places, cut.extent, batches, own, options.page, options.mask)


def _first(area: Any, geometry: Mapping[str, Any], shape: tuple[int, ...]) -> list[int]:
    usable = area.inset(geometry["margin"], shape)
    return [usable.row0, usable.col0]


def _read_to_the_end(image: Any, batches: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    with image:
        yield from batches


def _as_rows(cut: _Cut, found: ImagePrediction, classes: list[str], threshold: float) -> PredictedImage:
    best, entropy = int(found.probabilities.argmax()), float(entr(found.probabilities).sum())
    row = {
        "image": cut.name,
        "prediction": classes[best],
        "confidence": float(found.probabilities[best]),
        "entropy": entropy,
        "entropy_share": entropy / math.log(len(classes)),
        "strangeness": found.ood_score,
        "foreign": found.ood_score > threshold,
        "agreement": found.agreement,
        "accepted": None if found.withheld is None else not found.withheld,
        "withheld": found.withheld or None,
        "tiles": len(cut.places),
        "bar_rows": cut.bar.rows,
        "bar_side": cut.bar.side,
        "pixel_nm": cut.pixel_nm,
        "page": cut.page,
        "mask": cut.mask,
        "problem": None,
        **dict(zip(NICKEL, found.nickel or (), strict=False)),
        **{f"p_{label}": float(value) for label, value in zip(classes, found.probabilities, strict=True)},
    }
    tiles = [
        [cut.name, int(place[0]), int(place[1]), *cut.extent, classes[int(p.argmax())], float(p.max())]
        for place, p in zip(cut.places, found.of_tiles, strict=True)
    ]
    return PredictedImage(row, tiles)


def _ranked(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    nickel = [name for name in NICKEL if name in table]
    judged = ["strangeness", "foreign", "agreement", "accepted", "withheld"]
    read = ["tiles", "bar_rows", "bar_side", "pixel_nm", "page", "mask", "problem"]
    names = ["image", "prediction", "confidence", "entropy", "entropy_share", *judged, *read, *nickel]
    names += [f"p_{label}" for label in classes]
    table = table.reindex(columns=names)
    table = table.astype(
        {"foreign": "boolean", "accepted": "boolean", "tiles": "int64", "bar_rows": "Int64", "page": "Int64"}
    )
    table = table.sort_values(["strangeness", "image"], ascending=[False, True], na_position="last", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table
