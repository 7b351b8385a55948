"""Properties of labelled volumes: known shapes, invariants, TauFactor, blocks that change nothing, bad input."""

import json
import math
import re
from itertools import product
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cathodeflow import fibsem
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.fibsem.label_volumes import given_voxel
from cathodeflow.fibsem.microstructure.blocks import as_labels
from cathodeflow.fibsem.microstructure.chords import chord_lengths
from cathodeflow.fibsem.microstructure.compute import compute_properties, sub_volumes
from cathodeflow.fibsem.microstructure.connectivity import components
from cathodeflow.fibsem.microstructure.correlation import two_point_correlation
from cathodeflow.fibsem.microstructure.particles import divide, particle_sizes
from cathodeflow.fibsem.microstructure.property_table import Property, Voxel
from cathodeflow.fibsem.microstructure.surfaces import interface_areas
from cathodeflow.fibsem.microstructure.thickness import local_thickness
from cathodeflow.fibsem.microstructure.transport import transport
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.stages.properties import longest_run
from cathodeflow.fibsem.two_point import covariance, integral_range

CLASSES = ("pore", "active", "binder")
Labels = NDArray[np.uint8]


def electrode(shape: tuple[int, int, int] = (40, 36, 44), seed: int = 0) -> Labels:
    """Three phases with rounded boundaries; binder in thin films between the others."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3, mode="wrap")
    noise /= noise.std()
    return np.select([noise < -0.25, noise > 0.1], [0, 1], 2).astype(np.uint8)


def grid(shape: tuple[int, ...], size: tuple[float, ...]) -> list[NDArray[np.float64]]:
    return np.meshgrid(*((np.arange(n) + 0.5) * step for n, step in zip(shape, size, strict=True)), indexing="ij")


def values(properties: list[Property]) -> dict[tuple[str, str, int | None], Property]:
    return {(one.property, one.phase, one.direction): one for one in properties}


def measured(labels: object, *groups: str, voxel: Voxel | None = None, **options: object) -> dict:
    return values(compute_properties(labels, CLASSES, voxel, Properties(groups=groups, **options)))


@pytest.mark.parametrize(("radius", "size"), [(6.3, (1, 1, 1)), (15, (1, 1, 1)), (1.5, (0.1, 0.1, 0.1)),
                                              (1.5, (0.2, 0.1, 0.1))])  # fmt: skip
def test_surface_of_a_sphere(radius: float, size: tuple[float, float, float]) -> None:
    shape = tuple(int(2 * radius / step) + 10 for step in size)
    z, y, x = grid(shape, size)
    centre = [n * step / 2 + 0.2 * step for n, step in zip(shape, size, strict=True)]
    ball = ((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2).astype(np.uint8)
    volume = math.prod(shape) * math.prod(size)
    found = interface_areas(as_labels(ball), size, 2)[0, 1] * volume
    # Counting faces gives 1.5 times the area, marching cubes of the voxels 1.09 times.
    assert found == pytest.approx(4 * math.pi * radius**2, rel=0.012)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_surface_of_slabs_and_cylinders_along_each_axis(axis: int) -> None:
    size = (0.3, 0.2, 0.1)
    z = np.zeros((24, 26, 28), np.uint8)
    np.moveaxis(z, axis, 0)[8:13] = 1
    found = interface_areas(as_labels(z), size, 2)[0, 1]
    assert found == pytest.approx(2 / (z.shape[axis] * size[axis]), rel=1e-6)
    rod = np.zeros((40, 40, 40), np.uint8)
    first, second = (np.arange(40) - 19.3)[:, None], (np.arange(40) - 20.1)[None]
    np.moveaxis(rod, axis, 2)[first**2 + second**2 < 12.4**2] = 1
    found = interface_areas(as_labels(rod), (1, 1, 1), 2)[0, 1] * 40**3
    assert found == pytest.approx(2 * math.pi * 12.4 * 40, rel=0.015)


def test_surface_of_tilted_planes_and_of_a_disc_in_one_slice() -> None:
    z, y, x = grid((40, 40, 40), (1, 1, 1))
    for normal in ((1, 1, 1), (3, 1, 0), (5, 2, 1)):
        # A ball of a tilted slab: only its two flat sides, and few voxels of the rim, are inside.
        n = np.array(normal) / np.linalg.norm(normal)
        height = (z - 20) * n[0] + (y - 20) * n[1] + (x - 20) * n[2]
        found = interface_areas(as_labels((height > 0.3).astype(np.uint8)), (1, 1, 1), 2)[0, 1] * 40**3
        lines = 400
        first, second = np.meshgrid(*[(np.arange(lines) + 0.5) / lines * 40 - 20] * 2, indexing="ij")
        k = int(np.argmax(np.abs(n)))
        others = [axis for axis in range(3) if axis != k]
        inside = np.abs((0.3 - first * n[others[0]] - second * n[others[1]]) / n[k]) < 20
        assert found == pytest.approx(inside.mean() * 1600 / abs(n[k]), rel=0.025)
    disc = ((y[0] - 20.2) ** 2 + (x[0] - 19.9) ** 2 < 13.3**2).astype(np.uint8)
    row = values(compute_properties(disc, ("a", "b"), Voxel((1, 1, 1), "um"), Properties(groups=("surfaces",))))
    found = row["specific_surface_area", "b", None]
    assert found.value * 1600 == pytest.approx(2 * math.pi * 13.3, rel=0.01) and "one slice" in found.note


def test_contact_areas_of_a_film_of_one_voxel_add_up_to_the_surfaces() -> None:
    layers = np.zeros((20, 16, 16), np.uint8)
    layers[9], layers[10:] = 2, 1
    found = measured(layers, "surfaces", voxel=Voxel((0.5, 1, 1), "um"))
    area = {pair: found["contact_area", pair, None].value * 10 for pair in ("pore-active", "pore-binder",
                                                                            "active-binder")}  # fmt: skip
    assert area == pytest.approx({"pore-active": 0, "pore-binder": 1, "active-binder": 1})
    assert found["specific_surface_area", "binder", None].value * 10 == pytest.approx(2)
    assert found["contact_area", "pore-binder", None].unit == "1/um"


def test_blocks_change_nothing() -> None:
    labels = electrode()
    labels[3:5, 7:9, 30:] = 255
    whole = labels_of = as_labels(labels)
    parts = da.from_array(labels, chunks=(11, 36, 17))
    assert parts.npartitions == 12 and labels_of.npartitions == 1
    np.testing.assert_allclose(
        interface_areas(parts, (2, 1, 1), 3), interface_areas(whole, (2, 1, 1), 3), rtol=1e-12, atol=1e-15
    )
    for axis, phase in product(range(3), range(3)):
        np.testing.assert_array_equal(
            two_point_correlation(parts, axis, 3, 15), two_point_correlation(whole, axis, 3, 15)
        )
        one, other = chord_lengths(parts, axis, 3), chord_lengths(whole, axis, 3)
        np.testing.assert_array_equal(one.histogram, other.histogram)
        assert one.mean.tolist() == other.mean.tolist()
        found, expected = components(parts, phase), components(whole, phase)
        assert sorted(found.sizes.tolist()) == sorted(expected.sizes.tolist())
        assert found.percolating_fraction(axis) == expected.percolating_fraction(axis)
    sizes = np.bincount(ndimage.label(labels == 2)[0].ravel())[1:]
    assert sorted(components(parts, 2).sizes.tolist()) == sorted(sizes.tolist())
    fractions = measured(parts, "fractions")
    assert fractions["volume_fraction", "pore", None].value == (labels == 0).sum() / (labels != 255).sum()
    assert "have no label" in fractions["volume_fraction", "pore", None].note


def test_two_point_correlation_and_chords_by_their_definitions() -> None:
    labels = electrode((20, 12, 14))
    pairs = two_point_correlation(as_labels(labels), 1, 3, 6)
    for lag, phase in ((0, 0), (3, 1), (6, 2)):
        own = labels == phase
        assert pairs[phase, lag] == (own[:, lag:] & own[:, : 12 - lag]).mean()
    lines = np.array([[[0, 0, 1, 1, 1, 2, 1, 0]]], np.uint8)
    found = chord_lengths(as_labels(lines), 2, 3)
    assert found.histogram[1].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert found.mean.tolist() == [3, 2, 1]


def test_the_integral_range_gives_the_spread_of_the_fraction_between_volumes() -> None:
    """Of simulated volumes: variance of the volume fraction = f (1 - f) A / V."""
    side, fractions, ranges = 48, [], []
    for seed in range(24):
        noise = np.random.default_rng(seed).standard_normal((side + 16,) * 3)
        mask = (ndimage.gaussian_filter(noise, 2.0)[8:-8, 8:-8, 8:-8] > 0).astype(np.uint8)
        fractions.append(mask.mean())
        ranges.append(integral_range(covariance(mask == 1)))
    expected = math.sqrt(0.25 * float(np.median(ranges)) / side**3)
    assert np.std(fractions) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_transport_is_that_of_taufactor(size: tuple[float, float, float]) -> None:
    mask = electrode((30, 26, 28)) != 1
    for axis in range(3):
        ours = transport(mask, axis, size, convergence=1e-3, solver="compiled")
        theirs = transport(mask, axis, size, convergence=1e-3, solver="taufactor")
        assert ours.note == theirs.note == ""
        assert ours.diffusivity == pytest.approx(theirs.diffusivity, rel=2e-3)
        assert ours.tortuosity == pytest.approx(mask.mean() / ours.diffusivity)
    import taufactor

    solver = taufactor.Solver(mask.astype(np.uint8), device="cpu")
    solver.solve(verbose=False, conv_crit=1e-3)
    if size == (1, 1, 1):
        assert transport(mask, 0, size, convergence=1e-3, solver="compiled").tortuosity == pytest.approx(
            float(solver.tau), rel=2e-3
        )


def test_transport_of_layers_is_exact_and_tells_what_does_not_percolate() -> None:
    layers = np.zeros((12, 10, 14), np.uint8)
    layers[:, 4:6], layers[:, 6:] = 2, 1
    found = measured(layers, "transport", "connectivity")
    for axis in (0, 2):
        assert found["tortuosity_factor", "active", axis].value == pytest.approx(1, abs=1e-4)
        assert found["effective_diffusivity", "active", axis].value == pytest.approx(0.4, abs=1e-4)
    blocked = found["tortuosity_factor", "active", 1]
    assert blocked.value == math.inf and blocked.note == "does not percolate"
    assert found["effective_diffusivity", "active", 1].value == 0
    assert found["percolating_fraction", "active", 1].value == 0
    assert found["connected_fraction", "active", None].value == 1


def test_large_volumes_are_solved_in_parts_with_the_spread_between_them() -> None:
    labels = electrode((48, 40, 40))
    whole = measured(labels, "transport")["tortuosity_factor", "pore", 0]
    parts = measured(labels, "transport", transport_voxels=20_000)["tortuosity_factor", "pore", 0]
    assert not whole.note and parts.value == pytest.approx(whole.value, rel=0.25)
    assert re.match(r"mean of 4 sub-volumes of 24 x 20 x 40 voxels; standard deviation between them: ", parts.note)
    places = sub_volumes((48, 40, 40), 20_000, 8)
    seen = np.zeros((48, 40, 40), int)
    for place in places:
        seen[place] += 1
    assert seen.min() == seen.max() == 1


def test_particles_are_divided_at_necks_and_measured() -> None:
    z, y, x = grid((60, 60, 80), (1, 1, 1))
    centres = [(22, 22, 22, 10), (22, 22, 39, 9), (40, 40, 60, 12.5)]
    mask = np.zeros(z.shape, np.bool_)
    for a, b, c, radius in centres:
        mask |= (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < radius**2
    mask[:4, :4] = True
    found = particle_sizes(divide(mask, (0.5, 0.5, 0.5), 0.5), (0.5, 0.5, 0.5))
    assert found.number >= 4 and sorted(found.diameters) == pytest.approx([9, 10, 12.5], rel=0.03)
    # The probability that a particle of 10 voxels lies whole in a volume of 20 is about a half along each axis.
    assert found.weights.min() > 1


@pytest.mark.parametrize("voxels", [1, 2, 3, 4, 7])
def test_thickness_of_films(voxels: int) -> None:
    film = np.zeros((20, 14, 14), np.bool_)
    film[6 : 6 + voxels] = True
    assert local_thickness(film, (0.2, 0.1, 0.1)) == pytest.approx(0.2 * voxels, rel=1e-5)
    assert local_thickness(film.transpose(1, 2, 0), (1, 1, 1)) == pytest.approx(voxels, rel=1e-5)


def test_thickness_of_a_tilted_film() -> None:
    z, y, _ = grid((30, 30, 30), (1, 1, 1))
    height = ((z - 15) * 2 + (y - 15)) / math.sqrt(5)
    assert local_thickness(np.abs(height) < 2.5, (1, 1, 1)).mean() == pytest.approx(5, abs=0.5)


def test_an_absent_phase_and_one_slice_are_said_in_the_notes() -> None:
    labels = electrode((1, 40, 40))
    labels[labels == 2] = 0
    found = values(compute_properties(labels[0], CLASSES))
    assert found["volume_fraction", "binder", None].value == 0
    for name in ("volume_fraction", "specific_surface_area", "connected_fraction", "film_thickness_mean"):
        assert found[name, "binder", None].note == "phase absent"
    assert math.isnan(found["tortuosity_factor", "binder", 1].value)
    across = found["tortuosity_factor", "pore", 0]
    assert math.isnan(across.value) and across.note == "one voxel along this direction"
    assert {one.unit for one in found.values()} == {"1", "voxel", "1/voxel"}
    with pytest.raises(InputError, match="no voxel of a class"):
        compute_properties(np.full((2, 3, 4), 255), CLASSES)


def test_the_command_writes_the_tables_in_micrometres(tmp_path: Path) -> None:
    labels = electrode((24, 22, 26))
    tifffile.imwrite(tmp_path / "labels.tif", np.array([0, 127, 255], np.uint8)[labels])
    words = f"fibsem properties {tmp_path}/labels.tif --classes pore,active,binder --label-values 0,127,255"
    words += f" --voxel 0.2 100nm 0.1um --out {tmp_path}/found"
    cli.main(words.split(), standalone_mode=False)
    table = pd.read_csv(tmp_path / "found" / "properties.csv", keep_default_na=False)
    assert list(table.columns) == ["property", "phase", "direction", "value", "unit", "standard_error", "low_68",
                                   "high_68", "low_95", "high_95", "note"]  # fmt: skip
    assert set(table["direction"].astype(str)) == {"", "0", "1", "2"}
    rows = table.set_index(["property", "phase", "direction"])
    assert float(rows.loc[("volume_fraction", "pore", ""), "value"]) == pytest.approx((labels == 0).mean(), rel=1e-5)
    expected = interface_areas(as_labels(labels), (0.2, 0.1, 0.1), 3)
    assert float(rows.loc[("contact_area", "pore-active", ""), "value"]) == pytest.approx(expected[0, 1], rel=1e-4)
    data = json.loads((tmp_path / "found" / "properties.json").read_text())
    assert data["voxel"] == [0.2, 0.1, 0.1] and data["unit"] == "um" and data["versions"]["taufactor"]
    assert len(data["properties"]) == len(table) and data["settings"]["classes"] == list(CLASSES)
    page = (tmp_path / "found" / "surface.html").read_text()
    assert "active and binder" in page and "http" not in page.replace("http://www.w3.org", "")
    slices = pd.read_csv(tmp_path / "found" / "properties_slices.csv")
    assert slices["fraction_active"].to_numpy() == pytest.approx((labels == 1).mean((1, 2)), rel=1e-4)
    assert {"properties.png", "sizes.png", "properties_curves.csv"} <= {p.name for p in (tmp_path / "found").iterdir()}


def test_bad_values_and_voxel_sizes_are_one_line(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "labels.tif", np.array([[[0, 1], [7, 2]]] * 2, np.uint8))
    with pytest.raises(InputError, match=r"labels\.tif.*found the values 7, expected only 0, 1, 2"):
        fibsem.properties(tmp_path / "labels.tif", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for given in (("0.1", "0.1", "0.1"), ("0.1", "0.1", "0.1px"), ("0", "1", "1um"), ("a", "1", "1um")):
        with pytest.raises(InputError, match="--voxel: found"):
            given_voxel(given)


def test_the_longest_run_of_test_slices_is_measured() -> None:
    table = pd.DataFrame({"slice": [9, 4, 5, 4, 6, 8], "copy": [0, 0, 0, 1, 0, 0]})
    assert longest_run(table) == [1, 2, 4]


def crofton(mask: NDArray[np.bool_]) -> float:
    """Surface per volume by Crofton's formula: changes of the mask along 13 directions, weighted by their solid angle."""
    # Voronoi cells of the directions to the neighbours of a voxel on the sphere: edges, face and space diagonals.
    weights, found = {1: 0.045778, 2: 0.036981, 3: 0.035196}, 0.0
    for step in product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):
            before = mask[tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, mask.shape, strict=True))]
            after = mask[tuple(slice(max(0, d), n + min(0, d)) for d, n in zip(step, mask.shape, strict=True))]
            square = sum(d * d for d in step)
            found += 2 * weights[square] * (before != after).mean() / math.sqrt(square)
    return 2 * found


def test_surfaces_of_a_random_structure_are_those_of_crofton() -> None:
    """Also those of films of one to three voxels, which packages that smooth the mask lose."""
    labels = electrode((64, 64, 64))
    found = measured(labels, "surfaces")
    for index, phase in enumerate(CLASSES):
        area = found["specific_surface_area", phase, None].value
        assert area == pytest.approx(crofton(labels == index), rel=0.08)


def test_fractions_and_transport_are_those_of_porespy() -> None:
    porespy = pytest.importorskip("porespy")
    pytest.importorskip("openpnm")
    labels = electrode((40, 40, 40))
    found = measured(labels, "fractions", "transport")
    for index, phase in enumerate(CLASSES):
        mask = labels == index
        fraction = porespy.metrics.phase_fraction(mask)[True]
        assert found["volume_fraction", phase, None].value == pytest.approx(fraction, rel=1e-12)
        if phase == "binder":
            # porespy fixes the concentrations in the first and the last voxels, not on the sides of the volume, which
            # changes the transport through thin films by a tenth.
            continue
        theirs = float(porespy.simulations.tortuosity_fd(mask, 0).tortuosity)
        assert found["tortuosity_factor", phase, 0].value == pytest.approx(theirs, rel=0.07)


def test_methods_that_do_not_percolate_are_marked_without_covering_each_other() -> None:
    from matplotlib.collections import PathCollection

    from cathodeflow.fibsem.property_plots import properties_figure

    rows = [
        {"method": method, "property": "tortuosity_factor", "phase": "pore", "direction": direction, "value": value,
         "unit": "1", "low_95": math.nan, "high_95": math.nan}
        for direction, values in (("0", (2.0, math.inf)), ("1", (math.inf, math.inf)))
        for method, value in zip(("reference", "unet"), values, strict=True)
    ]  # fmt: skip
    figure = properties_figure(pd.DataFrame(rows), ["pore", "active"])
    (panel,) = (axes for axes in figure.axes if axes.get_title(loc="left") == "Tortuosity factor")
    assert [text.get_text() for text in panel.texts] == ["does not percolate"]
    points = [part for part in panel.collections if isinstance(part, PathCollection)]
    hollow = [part for part in points if not len(part.get_facecolor()) and len(part.get_offsets())]
    assert len(hollow) == 1
    assert hollow[0].get_offsets()[0][1] == pytest.approx(0.175)
