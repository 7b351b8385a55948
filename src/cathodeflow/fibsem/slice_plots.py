"""Figure of slices with reference, predictions, differences, entropy and IDK ("I don't know") pixels."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.plots import model_title
from cathodeflow.fibsem.surface_page import PHASE_COLOURS
from cathodeflow.plotting import COLOURS, MAP, TWO_COLUMNS, nothing_to_show, scale_bar, styled

Labels = NDArray[np.integer]
Floats = NDArray[np.floating]
Colours = NDArray[np.float64]

# Colours of a difference map: both correct, only the last, only the first, none.
_CASES = ("#F2F2F2", COLOURS[0], COLOURS[1], "#A0A0A0")
_IDK = COLOURS[1]
_PANEL = 1.5


def choose_slices(accuracy: ArrayLike) -> dict[str, int]:
    """Choose the slices with the lowest, the median and the highest accuracy; fewer if there are fewer slices.

    Examples
    --------
    >>> choose_slices([0.8, 0.9, 0.7, 0.6, 0.5])
    {'worst': 4, 'median': 2, 'best': 1}
    """
    order = np.argsort(np.asarray(accuracy), kind="stable").tolist()
    ranks = {"worst": 0, "best": len(order) - 1, "median": len(order) // 2}
    chosen: dict[str, int] = {}
    for name, rank in ranks.items():
        if order and order[rank] not in chosen.values():
            chosen[name] = order[rank]
    return {name: chosen[name] for name in ("worst", "median", "best") if name in chosen}


def difference_map(predictions: Sequence[Labels], truth: Labels | None = None) -> NDArray[np.uint8]:
    """Compare the first prediction with the last, pixel by pixel.

    Parameters
    ----------
    predictions : sequence of (row, col) int
    truth : (row, col) int, optional

    Returns
    -------
    (row, col) uint8
        0 both are correct, 1 only the last, 2 only the first, 3 none, 4 the reference has no label. Without reference:
        0 equal, 1 different.

    Examples
    --------
    >>> difference_map([np.array([[0, 0, 1, 1]]), np.array([[0, 2, 2, 0]])], np.array([[0, 2, 1, 2]]))
    array([[0, 1, 2, 3]], dtype=uint8)
    """
    first, last = predictions[0], predictions[-1]
    if truth is None:
        return (first != last).astype(np.uint8)
    compared = np.where(last == truth, first != truth, np.where(first == truth, 2, 3))
    return np.where(truth == UNLABELLED, 4, compared).astype(np.uint8)


@styled
def segmentation_figure(
    slices: Floats,
    predictions: Mapping[str, Labels],
    *,
    classes: Sequence[str],
    zoom_px: int,
    truth: Labels | None = None,
    entropy: Floats | None = None,
    idk: NDArray[np.bool_] | None = None,
    names: Sequence[str] | None = None,
    pixel_nm: float | None = None,
) -> Figure:
    """Draw slices with reference, predictions, difference of the first and the last prediction, entropy and IDK.

    Below each prediction is its accuracy, below the difference the gain of the last over the first prediction.

    Parameters
    ----------
    slices : (n, row, col)
        Intensities [grey].
    predictions : mapping
        By the name of the model, labels (n, row, col).
    classes : sequence of str
        Names of the labels.
    zoom_px : int
        Side of the square below each slice that is drawn enlarged, where predictions differ most [px]; 0 disables it.
        Slices that are not much larger have no such square.
    truth : (n, row, col) int, optional
    entropy : (n, row, col), optional
        [nat]
    idk : (n, row, col) bool, optional
        IDK pixels of the first model.
    names : sequence of str, optional
        Names of the slices.
    pixel_nm : float, optional
        Pixel size, for a scale bar [nm].
    """
    if not len(slices):
        figure = Figure(figsize=(TWO_COLUMNS, 2.0))
        nothing_to_show(figure.subplots(), "no slices to show")
        return figure
    n, rows, cols = slices.shape
    models = list(predictions.values())
    # A square that covers nearly the whole slice adds nothing.
    side = zoom_px if 1.5 * zoom_px <= min(rows, cols) else 0
    truths = [None] * n if truth is None else list(truth)
    differences = [difference_map([labels[i] for labels in models], truths[i]) for i in range(n)]
    panels: dict[str, Callable[[Axes, int], str]] = {"Slice": partial(_grey, slices)}
    if truth is not None:
        panels["Reference"] = partial(_phases, truth, None)
    panels |= {model_title(name): partial(_phases, labels, truth) for name, labels in predictions.items()}
    if truth is not None or len(models) > 1:
        panels["Difference" if len(models) > 1 else "Errors"] = partial(_difference, differences)
    if entropy is not None:
        panels["Entropy"] = partial(_entropy, entropy, len(classes))
    if idk is not None:
        panels["I don't know"] = partial(_idk, idk, slices)
    heights = [rows / cols, 1.0] if side else [rows / cols]
    figure = Figure(figsize=(_PANEL * len(panels) + 0.3, n * (_PANEL * sum(heights) + 0.32) + 0.75))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(n * len(heights), len(panels), squeeze=False, height_ratios=heights * n)
    for i in range(n):
        # If the predictions do not differ, the square is where the last one is most often wrong.
        wrong = np.isin(differences[i], (1, 2, 3))
        spots = np.isin(differences[i], (1, 2)) if len(models) > 1 else wrong
        corner = _busiest(spots if spots.any() else wrong, side) if side else None
        for line, axes_line in enumerate(grid[i * len(heights) : (i + 1) * len(heights)]):
            for axes, draw in zip(axes_line, panels.values(), strict=True):
                text = draw(axes, i)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set(visible=True, color="#888888", linewidth=0.5)
                if line == 0:
                    axes.set_xlabel(text, fontsize=7, labelpad=1.5)
                if corner and line == 0:
                    origin = (corner[1] - 0.5, corner[0] - 0.5)
                    axes.add_patch(Rectangle(origin, side, side, fill=False, edgecolor="#D81B60", linewidth=0.9))
                elif corner:
                    axes.set(xlim=(corner[1] - 0.5, corner[1] + side - 0.5))
                    axes.set(ylim=(corner[0] + side - 0.5, corner[0] - 0.5))
                    axes.spines[:].set(color="#D81B60", linewidth=0.9)
        if names is not None:
            grid[i * len(heights), 0].set_ylabel(names[i], fontsize=8)
    for axes, title in zip(grid[0], panels, strict=True):
        axes.set_title(title, fontsize=8.5, loc="center")
    if pixel_nm:
        scale_bar(grid[0, 0], rows, cols, pixel_nm)
    if entropy is not None:
        _entropy_bar(grid[-1, list(panels).index("Entropy")], len(classes), caption=not side)
    _legend(figure, classes, list(predictions), truth is not None)
    return figure


def _grey(slices: Floats, axes: Axes, i: int) -> str:
    low, high = np.quantile(slices[i], (0.002, 0.998))
    axes.imshow(slices[i], cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
    return ""


def _phases(labels: Labels, truth: Labels | None, axes: Axes, i: int) -> str:
    colours = _rgb(PHASE_COLOURS)[labels[i] % len(PHASE_COLOURS)]
    axes.imshow(np.where((labels[i] == UNLABELLED)[..., None], 1.0, colours))
    if truth is None:
        return ""
    return f"{100 * np.mean((labels[i] == truth[i])[truth[i] != UNLABELLED]):.1f} % correct"


def _difference(differences: Sequence[NDArray[np.uint8]], axes: Axes, i: int) -> str:
    axes.imshow(_rgb([*_CASES, "#ffffff"])[differences[i]])
    counts = np.bincount(differences[i].ravel(), minlength=4)[:4]
    fraction = counts / max(counts.sum(), 1)
    if fraction[1:3].any() and (fraction[2] or fraction[3]):
        return f"gain {100 * (fraction[1] - fraction[2]):.1f} %".replace("-", "−")
    return f"{100 * fraction[1:].sum():.1f} %"


def _entropy(entropy: Floats, k: int, axes: Axes, i: int) -> str:
    axes.imshow(entropy[i], cmap=MAP, vmin=0, vmax=np.log(k))
    return f"mean {float(np.mean(entropy[i])):.2f} nat"


def _idk(idk: NDArray[np.bool_], slices: Floats, axes: Axes, i: int) -> str:
    low, high = np.quantile(slices[i], (0.002, 0.998))
    grey = np.clip((slices[i] - low) / max(high - low, 1e-9), 0, 1)[..., None].repeat(3, axis=2)
    axes.imshow(np.where(idk[i][..., None], np.array(to_rgb(_IDK)), grey))
    return f"{100 * np.mean(idk[i]):.1f} %"


def _entropy_bar(axes: Axes, k: int, *, caption: bool) -> None:
    bar = axes.inset_axes((0.0, -0.24 if caption else -0.09, 1.0, 0.05))
    most = float(np.log(k))
    mappable = ScalarMappable(Normalize(0, most), colormaps[MAP])
    axes.figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[0, most / 2, most])
    # The outer labels are aligned with the ends of the bar, so that they do not move the next column.
    texts = bar.set_xticklabels(["0", f"{most / 2:.2f}", f"{most:.2f} nat"], fontsize=6.5)
    texts[0].set_horizontalalignment("left")
    texts[2].set_horizontalalignment("right")
    bar.tick_params(length=2, pad=1)


def _legend(figure: Figure, classes: Sequence[str], models: Sequence[str], known: bool) -> None:
    phases = [Patch(facecolor=colour, edgecolor="#888888", linewidth=0.5) for colour, _ in
              zip(cycle(PHASE_COLOURS), classes, strict=False)]  # fmt: skip
    entries = list(zip(phases, classes, strict=True))
    first, last = model_title(models[0]), model_title(models[-1])
    if not known:
        texts = ["predictions equal", "predictions differ"] if len(models) > 1 else []
    elif len(models) > 1:
        texts = ["both correct", f"only {last} correct", f"only {first} correct", "both wrong"]
    else:
        texts = ["correct", "", "", "wrong"]
    cases = zip(_CASES, texts, strict=False)
    entries += [(Patch(facecolor=colour, edgecolor="#888888", linewidth=0.5), text) for colour, text in cases if text]
    figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=len(entries), columnspacing=1.2)


def _busiest(spots: NDArray[np.bool_], side: int) -> tuple[int, int]:
    """Corner (row, col) of the square with the most spots."""
    mean = uniform_filter(spots.astype(np.float64), side, mode="constant")
    # The square of the filter begins side // 2 before a pixel.
    inside = mean[side // 2 : spots.shape[0] - (side - 1) // 2, side // 2 : spots.shape[1] - (side - 1) // 2]
    row, col = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row), int(col)


def _rgb(colours: Sequence[str]) -> Colours:
    return np.array([to_rgb(colour) for colour in colours])
