"""Figure of how far a reconstruction can be trusted."""

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cathodeflow.bcdi.plots import DIVERGING
from cathodeflow.io.reconstructions import Reconstruction
from cathodeflow.plotting import COLOURS, MAP, TWO_COLUMNS, nothing_to_show, styled

_NOTHING = "#A6A6A6"
# Highest probability that is stated: the fit to some hundred simulated crystals knows no higher ones.
_CERTAIN = 0.99


@styled
def trust_figure(table: pd.DataFrame, reconstruction: Reconstruction) -> Figure:
    """Draw the probability that each start is right, and slices of the strain and of its standard error.

    Parameters
    ----------
    table : DataFrame
        Of the stage `trust`: `start`, `probability_right` and `median_agreement`.
    reconstruction : Reconstruction
        With the fields of the strain and its standard error; without them, only the probabilities are drawn.
    """
    fields = {name: values for name, _, values in reconstruction.fields}
    pair = [next((v for name, v in fields.items() if name.startswith(word)), None) for word in ("strain", "standard")]
    with_maps = all(values is not None and np.isfinite(values).any() for values in pair)
    figure = Figure(figsize=(TWO_COLUMNS, 5.4 if with_maps else 2.2))
    grid = figure.subplots(3, 3, height_ratios=(0.9, 1, 1)) if with_maps else figure.subplots(1, 3, squeeze=False)
    bars, like, third = grid[0]
    bars.bar(table["start"], table["probability_right"], color=COLOURS[0])
    bars.set(xlabel="Start", ylabel="Probability of being right", ylim=(0, 1))
    best = float(table["probability_right"].iloc[0])
    bars.set_title(f"Best start: {best:.2f}" if best <= _CERTAIN else f"Best start: above {_CERTAIN}")
    if len(table) > 1:
        like.bar(table["start"], table["median_agreement"], color=COLOURS[1])
        like.set(xlabel="Start", ylabel="Median correlation\nwith other starts", ylim=(0, 1))
    else:
        nothing_to_show(like, "one start")
    if not with_maps:
        nothing_to_show(third, "no geometry, so there is no strain")
        return figure
    strain, error = (values for values in pair if values is not None)
    known = np.isfinite(strain) & np.isfinite(error)
    third.hist(1e4 * error[known], bins=30, color=COLOURS[2])
    third.set(xlabel="Standard error of the strain [10⁻⁴]", ylabel="Voxels")
    places = np.argwhere(known)
    middle = np.round(places.mean(0)).astype(int)
    box = tuple(slice(max(low - 2, 0), high + 3) for low, high in zip(places.min(0), places.max(0), strict=True))
    scales = [
        ("Strain [10⁻⁴]", strain, DIVERGING, CenteredNorm(0, 1e4 * float(np.quantile(np.abs(strain[known]), 0.99)))),
        ("Standard error [10⁻⁴]", error, MAP, Normalize(0, 1e4 * float(np.quantile(error[known], 0.99)))),
    ]
    for row, (name, values, colours, norm) in zip(grid[1:], scales, strict=True):
        for axis, axes in enumerate(row):
            axes.set_facecolor(_NOTHING)
            axes.imshow(_slice(1e4 * np.where(known, values, np.nan), middle, box, axis), cmap=colours, norm=norm)
            axes.set(xticks=[], yticks=[], xlabel=f"slice {'zyx'[axis]} = {middle[axis]} [voxel]")
        figure.colorbar(ScalarMappable(norm, colours), ax=list(row), label=name, shrink=0.9)
    return figure


def _slice(
    values: NDArray[np.floating], middle: NDArray[np.integer], box: tuple[slice, ...], axis: int
) -> NDArray[np.floating]:
    rest = [box[other] for other in range(3) if other != axis]
    # Flipped, so that the axes point up.
    return values.take(middle[axis], axis)[tuple(rest)][::-1]
