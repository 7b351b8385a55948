"""Facets of simulated crystals with known normals, areas and indices; line profiles; resolution by direction."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cathodeflow import bcdi
from cathodeflow.bcdi.crystals import truncated_octahedron
from cathodeflow.bcdi.directional_resolution import directional_curves
from cathodeflow.bcdi.facet_indices import facet_directions, indexed_facets
from cathodeflow.bcdi.facet_options import Facets
from cathodeflow.bcdi.facet_search import find_facets, particle_surface, polyhedron_areas
from cathodeflow.bcdi.facet_table import facet_table
from cathodeflow.bcdi.geometry import q_vector
from cathodeflow.bcdi.line_profiles import edge_widths, line_profiles
from cathodeflow.bcdi.operators import fourier, inverse_fourier
from cathodeflow.bcdi.polyhedra import amplitude, grid, transformed
from cathodeflow.bcdi.rocking import GEOMETRY
from cathodeflow.cell_options import Cell
from cathodeflow.errors import InputError
from cathodeflow.io.reconstructions import Reconstruction, write_cxi
from cathodeflow.io.tables import read_csv

GOLD = Cell(a=4.078, c=None, space_group="F m -3 m")
OPTIONS = Facets(reflection=(1, 1, 1), cell=GOLD)
VOXEL = 9.0
Q = q_vector(GEOMETRY)


def rotation_to_q(turn):
    """Rotation (3, 3) of row vectors that brings [1 1 1] to Q, and then turns about Q by an angle [degrees]."""
    first = Rotation.align_vectors([Q / np.linalg.norm(Q)], [np.ones(3) / np.sqrt(3)])[0]
    return (Rotation.from_rotvec(np.deg2rad(turn) * Q / np.linalg.norm(Q)) * first).as_matrix().T


def crystal(turn, rounding=6.0):
    """Truncated octahedron of gold (8 facets {111}, 6 {100}), oriented as its reflection 111 asks for."""
    shape = truncated_octahedron(ratio=1.1)
    shape = shape._replace(distances=100 * shape.distances)
    return shape, transformed(shape, rotation_to_q(turn))._replace(rounding=rounding)


@pytest.fixture(scope="module")
def measured():
    shape, turned = crystal(33.0)
    volume = amplitude(turned, grid((33, 33, 33), axes=VOXEL * np.eye(3)[::-1]))
    surface = particle_surface(volume, VOXEL, level=0.5, smoothing=1.0)
    return shape, turned, volume, surface, find_facets(surface, OPTIONS, voxel_nm=VOXEL)


def nearest(planes, polyhedron):
    cosine = planes.normals @ polyhedron.normals.T
    return cosine.argmax(axis=1), np.degrees(np.arccos(np.clip(cosine.max(axis=1), -1, 1)))


def test_normals_distances_and_areas_are_those_of_the_crystal(measured):
    _, turned, _, surface, planes = measured
    facet, angles = nearest(planes, turned)
    assert sorted(facet) == list(range(14)) and angles.max() < 0.5
    assert np.abs(planes.distances - turned.distances[facet]).max() < 0.1 * VOXEL
    areas, volume = polyhedron_areas(turned.normals, turned.distances, np.zeros(3))
    assert np.allclose(planes.areas, areas[facet], rtol=0.02) and planes.volume == pytest.approx(volume, rel=0.02)
    # Rounded edges are no part of the flat area, and every triangle is counted once.
    assert (planes.flat_areas < planes.areas).all() and planes.flat_areas.sum() < surface.areas.sum()


def test_miller_indices_are_right_for_every_facet_whatever_the_rotation_about_q(measured):
    shape, turned, _, _, planes = measured
    found = indexed_facets(planes.normals, planes.areas, Q, OPTIONS)
    facet, _ = nearest(planes, turned)
    directions = np.array([[int(index) for index in hkl.split()] for hkl in found.hkl], float)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    true = shape.normals[facet]
    # Indices up to a symmetry of the crystal that keeps 111: all angles between facets, and the angle to 111.
    assert np.abs(directions @ directions.T - true @ true.T).max() < 1e-9
    assert np.abs(directions.sum(axis=1) - true.sum(axis=1)).max() < 1e-9
    assert [set(np.array(found.families)[facet < 8]), set(np.array(found.families)[facet >= 8])] == [
        {"1 1 1"},
        {"1 0 0"},
    ]
    assert found.misfits.max() < 0.5 and found.agreement > 0.98


def test_directions_are_those_of_the_cell():
    directions, _ = facet_directions(Facets(families=("1 0 4", "0 0 1"), cell=Cell(a=2.87, c=14.2)))
    at = {tuple(hkl): vector for hkl, vector in zip(directions.hkl.tolist(), directions.vectors, strict=True)}
    # In trigonal crystals {104} has six faces (a rhombohedron), {001} two.
    assert sorted(directions.families) == 2 * ["0 0 1"] + 6 * ["1 0 4"]
    expected = np.degrees(np.arctan2(2 / np.sqrt(3) / 2.87, 4 / 14.2))
    found = np.degrees(np.arccos(at[1, 0, 4] @ at[0, 0, 1]))
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_a_reflection_or_far_from_all_directions_there_are_no_indices(measured):
    planes = measured[-1]
    assert set(indexed_facets(planes.normals, planes.areas, Q, Facets(cell=GOLD)).hkl) == {""}
    only = OPTIONS.model_copy(update={"families": ("1 1 1",)})
    found = indexed_facets(planes.normals, planes.areas, Q, only)
    assert sorted(found.families) == 6 * [""] + 8 * ["1 1 1"] and np.isnan(found.misfits).sum() == 6


def test_strain_of_a_facet_is_that_of_the_voxels_below_it(measured):
    _, _, volume, surface, planes = measured
    index = np.stack(np.meshgrid(*(np.arange(33) - 16,) * 3, indexing="ij"), axis=-1)[..., ::-1] * VOXEL
    along = np.array([0.6, 0.0, 0.8])
    strain = np.where(volume > 0.9, 1e-5 * index @ along, np.nan)
    indexed = indexed_facets(planes.normals, planes.areas, Q, OPTIONS)
    table = facet_table(planes, surface, indexed, Q, strain, 2 * strain, voxel_nm=VOXEL, depth=3.0)
    below = 1e-5 * (planes.normals @ along) * (planes.distances - 2 * VOXEL)
    assert np.abs(table["strain_mean"] - below).max() < 6e-5 and table["voxels"].min() > 20
    assert np.corrcoef(table["strain_mean"], below)[0, 1] > 0.999
    assert np.allclose(table["displacement_nm"], 2 * table["strain_mean"])
    first = table.iloc[table["angle_to_q_deg"].argmin()]
    assert first["hkl"] == "1 1 1" and first["angle_to_q_deg"] < 0.5


def test_edges_are_as_wide_as_the_blur():
    index = np.stack(np.meshgrid(*(np.arange(41) - 20,) * 3, indexing="ij"), axis=-1)
    sharp = (np.abs(index) <= (16, 14, 15)).all(axis=-1).astype(float)
    blurred = gaussian_filter(sharp, (1.2, 0.8, 1.6))
    axes = {"x": np.eye(3)[0], "y": np.eye(3)[1], "z": np.eye(3)[2]}
    profiles = line_profiles(blurred, sharp > 0, {"strain": index[..., 2] * 1e-4}, axes, voxel_nm=5.0)
    # 25 to 75 % of an error function: 1.349 standard deviations.
    widths = edge_widths(profiles)
    assert widths == pytest.approx({"x": 1.349 * 8, "y": 1.349 * 4, "z": 1.349 * 6}, rel=0.1)
    along = profiles[(profiles["direction"] == "x") & profiles["strain"].notna()]
    assert len(along) > 60
    assert np.allclose(along["strain"], along["position_nm"] / 5 * 1e-4)


def test_prtf_and_fsc_fall_where_the_starts_differ_and_only_in_that_direction():
    torch.manual_seed(0)
    side, cut = 24, 6
    place = torch.arange(side) - side // 2
    ball = place[:, None, None] ** 2 + place[:, None] ** 2 + place**2 < 36
    spectrum = fourier((ball * torch.randn(side, side, side)).to(torch.complex64))
    # The phases differ between the starts beyond a frequency along the first axis, z of the laboratory.
    beyond = (place.abs() > cut)[:, None, None]
    turns = [torch.polar(torch.ones(side, side, side), 6.3 * torch.rand(side, side, side)) for _ in range(6)]
    starts = torch.stack([inverse_fourier(torch.where(beyond, spectrum * turn, spectrum)) for turn in turns])
    # A frequency of 0.001/nm for each voxel of the pattern.
    reciprocal = 2 * np.pi * 1e-3 * np.eye(3)[::-1]
    axes = {"x": np.eye(3)[0], "z": np.eye(3)[2]}
    curves = directional_curves(starts, spectrum.abs(), reciprocal, axes, cone_deg=25, threshold=0.1)
    for kind in ("PRTF", "FSC of the best two"):
        along, across = curves[kind, "z"], curves[kind, "x"]
        low, high = along.frequency < 1e-3 * (cut - 0.5), along.frequency > 1e-3 * (cut + 3)
        assert along.value[low].min() > 0.95 and along.value[high].max() < 0.6
        assert across.value[across.frequency < 11e-3].min() > 0.95
    # Random phases of six starts leave 1 / sqrt(6) of the PRTF, which is above 1/e; the FSC has no such floor.
    assert 1e3 / (cut + 3) < curves["FSC of the best two", "z"].resolution_nm < 1e3 / (cut - 1)


def test_the_stage_writes_tables_and_a_figure(measured, tmp_path):
    _, _, volume, _, _ = measured
    inside = volume > 0.2
    strain = np.where(volume > 0.9, 1e-4, np.nan).astype(np.float32)
    fields = [("strain along Q", "1", strain), ("displacement along Q", "nm", strain)]
    made = Reconstruction(
        (volume * inside).astype(np.complex64), inside, (VOXEL,) * 3, fields=fields, geometry=GEOMETRY._asdict()
    )
    write_cxi(tmp_path / "r.cxi", made)
    names = {"out": "facets.csv", "profiles": "profiles.csv", "directions": "directions.csv"}
    outputs = {name: tmp_path / file for name, file in names.items()}
    merits = bcdi.facets(tmp_path / "r.cxi", **outputs, options=OPTIONS)
    assert merits["facets"] == merits["indexed_facets"] == 14 and merits["volume_ratio"] == pytest.approx(1, abs=0.05)
    table = read_csv(tmp_path / "facets.csv")
    assert isinstance(table, pd.DataFrame) and table["strain_mean"].to_numpy() == pytest.approx(1e-4)
    tables = {name: tmp_path / names[name] for name in ("profiles", "directions")}
    bcdi.facet_figures(tmp_path / "facets.csv", **tables, reconstruction=tmp_path / "r.cxi", out=tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 20_000
    write_cxi(tmp_path / "s.cxi", made._replace(geometry={}, frame="scan"))
    with pytest.raises(InputError, match="no geometry"):
        bcdi.facets(tmp_path / "s.cxi", **outputs, options=OPTIONS)
