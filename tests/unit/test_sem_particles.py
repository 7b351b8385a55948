"""Particles in micrographs: outlines, sizes, shapes, the correction for cut ones, distributions and their intervals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from cathodeflow import sem
from cathodeflow.errors import InputError
from cathodeflow.io.tables import read_csv, read_table
from cathodeflow.sem.options import Section
from cathodeflow.sem.particle_distributions import distributions, weighted_quantiles
from cathodeflow.sem.particle_measures import edge_weights, measure_particles, outline_points
from cathodeflow.sem.particle_options import Particles
from cathodeflow.sem.particle_outlines import outline_particles, typical_diameter
from cathodeflow.sem.rendering import render
from cathodeflow.sem.simulation import appearance_of

OPTIONS = Particles(resamples=200, threads=1)


class Layer(NamedTuple):
    """Simulated particles: image, number of the particle that each pixel shows, and their diameters [px]."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    diameters: NDArray[np.float64]
    touching: float


def layer(rows: int, cols: int, diameter: float, seed: int, *, count: int = 400, nearest: float = 0.93) -> Layer:
    """Textured discs of several sizes on a dark ground, as near as `nearest` sums of radii, upper ones over lower."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:rows, :cols]
    labels = np.zeros((rows, cols), np.int32)
    kept: list[tuple[float, float, float]] = []
    for _ in range(count):
        row, col = rng.uniform(0, rows), rng.uniform(0, cols)
        radius = diameter / 2 * np.exp(0.2 * np.clip(rng.standard_normal(), -2, 2))
        if all(np.hypot(row - r, col - c) >= nearest * (radius + other) for r, c, other in kept):
            kept.append((row, col, radius))
            labels[np.hypot(down - row, across - col) < radius] = len(kept)
    places = np.array(kept)
    apart = np.hypot(*(places[:, None, :2] - places[None, :, :2]).transpose(2, 0, 1))
    sums = places[:, 2][:, None] + places[:, 2]
    touching = float(((apart < 1.05 * sums).sum(axis=1) > 1).mean())
    bright = np.concatenate([[45.0], rng.uniform(125, 175, len(kept))])[labels]
    texture = gaussian_filter(rng.standard_normal((rows, cols)), 1.5)
    inner = 1 - np.exp(-_depth(labels) / 1.5)
    values = gaussian_filter((bright - 45) * (0.55 + 0.45 * inner) + 45, 0.8)
    values += 12 * texture / texture.std() * (labels > 0) + rng.normal(0, 9, (rows, cols))
    values += np.linspace(-15, 15, cols)
    return Layer(np.clip(values, 0, 255).astype(np.uint8), labels, 2 * places[:, 2], touching)


def _depth(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Distance of each pixel to another particle or the ground."""
    from scipy.ndimage import distance_transform_edt

    edges = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            edges |= np.roll(labels, step, axis) != labels
    found: NDArray[np.float64] = distance_transform_edt(~edges)
    return found


def matched(found: NDArray[np.int32], truth: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Particles of the truth that the edge does not cut, and what was found at each: intersection over union > .5."""
    area, own = np.bincount(truth.ravel()), np.bincount(found.ravel())
    cut = np.unique(np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]]))
    wanted = np.setdiff1d(np.flatnonzero(area), [0, *cut])
    best = np.zeros(len(wanted), np.int64)
    for index, number in enumerate(wanted):
        common = np.bincount(found[truth == number], minlength=len(own))
        common[0] = 0
        other = int(common.argmax())
        if common[other] > 0.5 * (area[number] + own[other] - common[other]):
            best[index] = other
    return wanted, best


@pytest.fixture(scope="module")
def discs() -> Layer:
    return layer(300, 360, 26, seed=3)


def test_particles_that_touch_and_overlap_are_found_with_their_sizes(discs: Layer) -> None:
    assert discs.touching > 0.5
    diameter = typical_diameter(discs.image)
    found = outline_particles(discs.image, diameter, OPTIONS)
    wanted, best = matched(found.labels, discs.labels)
    assert len(wanted) > 60
    assert (best > 0).mean() > 0.95
    table = measure_particles(discs.image, found.labels).set_index("particle")
    measured = table.loc[best[best > 0], "diameter_px"].to_numpy()
    visible = np.sqrt(4 * np.bincount(discs.labels.ravel())[wanted[best > 0]] / np.pi)
    assert np.median(measured / visible) == pytest.approx(1, abs=0.05)
    assert np.median(measured) == pytest.approx(np.median(visible), rel=0.05)
    # Hardly anything else is taken for a particle.
    uncut = table[~table["cut"]]
    assert len(np.setdiff1d(uncut.index, best)) < 0.05 * len(uncut)


def test_particles_of_a_rendered_cathode_are_found_with_their_sizes() -> None:
    """The layer on top, as far as it is visible; two layers of lumpy particles, fragments and noise."""
    scene = render(appearance_of("333"), rows=240, cols=300, focus_blur=0.65, noise=0.22, rng=np.random.default_rng(5))
    image = np.clip(110 + 44 * scene.emission, 0, 255).astype(np.uint8)
    diameter = typical_diameter(image)
    assert diameter == pytest.approx(scene.mean_diameter, rel=0.15)
    found = outline_particles(image, diameter, OPTIONS)
    wanted, best = matched(found.labels, scene.labels)
    area = np.bincount(scene.labels.ravel())[wanted]
    seen = area > 0.8 * np.pi / 4 * scene.diameters[wanted - 1] ** 2
    assert seen.sum() > 40 and (best[seen] > 0).mean() > 0.9
    good = seen & (best > 0)
    ratio = np.sqrt(np.bincount(found.labels.ravel())[best[good]] / area[good])
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


def test_bare_foil_is_left_out(discs: Layer) -> None:
    image = discs.image.copy()
    image[:, 220:] = 200 + np.random.default_rng(0).normal(0, 3, (300, 140)).astype(np.int64)
    diameter = 26.0
    foil = outline_particles(image, diameter, OPTIONS)
    assert foil.flat[:, 240:].mean() > 0.95 and foil.flat[:, :180].mean() < 0.02
    assert not foil.labels[:, 240:].any() and foil.labels[:, :180].max() > 20
    assert not outline_particles(image, diameter, OPTIONS.model_copy(update={"flat": 0.0})).flat.any()


def ellipse(rows: int, cols: int, half: tuple[float, float], angle: float = 0.0) -> NDArray[np.bool_]:
    down, across = np.mgrid[:rows, :cols] - np.array([rows / 2, cols / 2]).reshape(2, 1, 1)
    along, aside = np.cos(angle) * down + np.sin(angle) * across, np.cos(angle) * across - np.sin(angle) * down
    return (along / half[0]) ** 2 + (aside / half[1]) ** 2 < 1


def test_shapes_are_those_of_ellipses_at_any_angle() -> None:
    grey = np.full((100, 100), 51, np.uint8)
    for angle in (0.0, 0.6):
        row = measure_particles(grey, ellipse(100, 100, (36, 18), angle).astype(np.int32)).iloc[0]
        assert row["diameter_px"] == pytest.approx(2 * np.sqrt(36 * 18), rel=0.01)
        assert row["aspect"] == pytest.approx(2, rel=0.02) and row["roundness"] == pytest.approx(0.5, rel=0.02)
        assert row["brightness"] == pytest.approx(0.2) and row["roughness"] < 0.02
        assert not row["cut"] and row["weight"] > 1
    down, across = np.mgrid[:100, :100] - 50
    wavy = np.hypot(down, across) < 30 * (1 + 0.1 * np.sin(9 * np.arctan2(down, across)))
    # The standard deviation of a sine is its amplitude divided by the root of 2.
    rough = measure_particles(grey, wavy.astype(np.int32))["roughness"].iloc[0]
    assert rough == pytest.approx(0.1 / np.sqrt(2), abs=0.02)


def test_the_crack_fraction_is_that_of_the_lines_and_texture_is_no_crack() -> None:
    rng = np.random.default_rng(1)
    mask = ellipse(80, 80, (30, 30))
    texture = gaussian_filter(rng.standard_normal(mask.shape), 1.5)
    plain = 140 + 10 * texture / texture.std()
    cracked = plain.copy()
    cracked[38:42, 12:68] = 60
    whole, crack = (
        measure_particles(values.astype(np.uint8), mask.astype(np.int32))["crack_fraction"].iloc[0]
        for values in (plain, cracked)
    )
    truth = (mask[38:42, 12:68]).sum() / mask.sum()
    assert whole < 0.01 and crack == pytest.approx(truth, rel=0.3)


def test_weights_correct_for_the_large_particles_that_the_edge_cuts() -> None:
    """Squares of 9 and 49 px, equally many, at random positions in a window of 100 px."""
    rng = np.random.default_rng(0)
    sizes = np.repeat([9, 49], 20000)
    first = rng.integers(-60, 160, (len(sizes), 2))
    whole = ((first >= 1) & (first + sizes[:, None] <= 99)).all(axis=1)
    weights = edge_weights(sizes[whole], sizes[whole], (100, 100))
    small = sizes[whole] == 9
    assert small.mean() > 0.7
    assert np.average(small, weights=weights) == pytest.approx(0.5, abs=0.02)
    # The total is the number per area: 20000 of each size in 220 x 220 px.
    assert weights.sum() == pytest.approx(40000 * 100 * 100 / 220**2, rel=0.05)
    assert np.isinf(edge_weights(99, 10, (100, 100)))


def test_outlines_are_closed_and_enclose_the_area() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[5:25, 10:40] = 2
    points = outline_points(labels)
    row, col = points["row"].to_numpy(), points["col"].to_numpy()
    assert set(points["particle"]) == {2} and row[0] == row[-1] and col[0] == col[-1]
    area = 0.5 * abs(np.sum(row[:-1] * col[1:] - row[1:] * col[:-1]))
    assert area == pytest.approx(600, rel=0.01) and row.min() == 4.5 and col.max() == 39.5


def of_images(spread: float, images: int, each: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        {"name": f"{n}", "label": "a", "weight": 1.0, "diameter_px": value, "diameter_um": np.nan}
        for n, centre in enumerate(rng.normal(20, spread, images))
        for value in rng.normal(centre, 2, each)
    ]
    others = {name: 1.0 for name in ("aspect", "roundness", "roughness", "crack_fraction", "brightness")}
    return pd.DataFrame(rows).assign(**others)


def test_intervals_are_over_images_and_cut_particles_do_not_count() -> None:
    table = of_images(1.5, 16)
    table.loc[0, ["weight", "diameter_px"]] = 0.0, 1e6
    found = distributions(table, resamples=500, confidence=0.95, seed=0)
    mean = found[(found["quantity"] == "diameter_px") & (found["statistic"] == "mean")].iloc[0]
    assert set(found["quantity"]) >= {"diameter_px", "aspect"} and "diameter_um" not in set(found["quantity"])
    assert mean["images"] == 16 and mean["particles"] == 479 and mean["value"] == pytest.approx(20, abs=1.5)
    # Standard error of the mean of 16 images, not of 480 particles, which would be .16.
    centres = table[table["weight"] > 0].groupby("name")["diameter_px"].mean()
    assert mean["high"] - mean["low"] == pytest.approx(3.92 * centres.std() / 4, rel=0.2)
    volume = found[found["statistic"] == "volume_d50"].iloc[0]["value"]
    assert volume > found[found["statistic"] == "d50"].iloc[0]["value"]
    alone = distributions(of_images(0, 1), resamples=100, confidence=0.95, seed=0)
    assert alone[["low", "high"]].isna().all().all()


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    values, times = np.array([1.0, 2.0, 5.0, 9.0]), np.array([400, 100, 300, 200])
    levels = [0.2, 0.45, 0.6, 0.95]
    repeated = np.quantile(np.repeat(values, times), levels, method="median_unbiased")
    assert repeated.tolist() == [1, 2, 5, 9]
    assert weighted_quantiles(values, times.astype(float), [0.2, 0.45, 0.65, 0.9]).tolist() == [1, 2, 5, 9]


def test_a_folder_of_images_gives_tables_and_figures(tmp_path: Path, discs: Layer) -> None:
    (tmp_path / "in").mkdir()
    for number, image in enumerate((discs.image[:200, :240], discs.image[200::-1, 240::-1])):
        path = tmp_path / "in" / f"{number}.png"
        bar = np.zeros((24, image.shape[1]), np.uint8)
        Image.fromarray(np.concatenate([image, bar])).save(path)
    (tmp_path / "in" / "0.txt").write_text("[SemImageFile]\nPixelSize=400\nMagnification=1000\n")
    names = ("distributions_table", "images_table")
    outputs = {"out": tmp_path / "p.csv", "outlines": tmp_path / "o.parquet"}
    outputs |= {name: tmp_path / f"{name}.csv" for name in names}
    merits = sem.particles(tmp_path / "in", **outputs, options=OPTIONS)
    table, images = read_csv(tmp_path / "p.csv"), read_csv(tmp_path / "images_table.csv")
    assert merits["images"] == 2 and merits["particles"] == len(table) == images["particles"].sum()
    assert merits["particles_cut"] == table["cut"].sum() > 5 and (table["weight"] > 0).sum() == (~table["cut"]).sum()
    assert images["row1"].tolist() == [200, 201] and merits["images_without_pixel_size"] == 1
    one, other = (table[table["name"].str.endswith(f"{n}.png")] for n in (0, 1))
    assert one["diameter_um"].to_numpy() == pytest.approx(0.4 * one["diameter_px"].to_numpy(), rel=1e-4)
    assert other["diameter_um"].isna().all() and len(one) == pytest.approx(len(other), rel=0.1)
    points = read_table(tmp_path / "o.parquet")
    assert len(points.groupby(["name", "particle"])) == len(table)
    tables = {name: tmp_path / f"{name}.csv" for name in names}
    sem.particle_figures(
        tmp_path / "p.csv", **tables, outlines=tmp_path / "o.parquet", out=tmp_path / "p.png", sheet=tmp_path / "s.png"
    )
    assert (tmp_path / "p.png").stat().st_size > 20000 and (tmp_path / "s.png").stat().st_size > 20000
    Image.fromarray(np.full((200, 200), 90, np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(InputError, match="intensities 90 to 90, expected particles"):
        sem.particles(tmp_path / "flat.png", **outputs, options=OPTIONS.model_copy(update={"bar_side": "none"}))


@pytest.mark.parametrize("given", [False, True])
def test_the_workflow_measures_particles_only_if_its_section_is_given(given: bool) -> None:
    """As workflow/rules/sem_particles.smk asks."""
    section = Section.model_validate({"samples": "s.tsv", **({"particles": {}} if given else {})})
    assert ("particles" in section.model_fields_set) == given
