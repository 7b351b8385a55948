"""Facets of a simulated crystal of gold after phasing: normals, areas and Miller indices against the truth.

    python benchmarks/bcdi_facets.py FOLDER

A truncated octahedron of 14 facets, with relaxed surfaces and edges rounded, is oriented as its reflection 111 asks
for, measured with counting noise, and phased from five random starts with the default recipe.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cathodeflow import bcdi
from cathodeflow.bcdi.crystals import truncated_octahedron
from cathodeflow.bcdi.diffraction import expected_intensity
from cathodeflow.bcdi.facet_options import Facets
from cathodeflow.bcdi.facet_search import polyhedron_areas
from cathodeflow.bcdi.fields import draw_displacement, scaled
from cathodeflow.bcdi.geometry import q_vector, real_basis, reciprocal_basis
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.polyhedra import Polyhedron, amplitude, grid, transformed
from cathodeflow.bcdi.rocking import GEOMETRY
from cathodeflow.cell_options import Cell
from cathodeflow.io.phasing import Pattern, write_pattern
from cathodeflow.io.tables import read_csv

SHAPE, SIZE_NM, PHOTONS = (48, 64, 64), 130.0, 2e7


def gold() -> Polyhedron:
    """Crystal whose direction 111 is that of the scattering vector."""
    q = q_vector(GEOMETRY)
    turn = Rotation.align_vectors([q / np.linalg.norm(q)], [np.ones(3) / np.sqrt(3)])[0]
    shape = truncated_octahedron(ratio=1.1)
    turned = transformed(shape, turn.as_matrix().T)
    return turned._replace(distances=SIZE_NM * turned.distances, rounding=0.05 * SIZE_NM)


def main() -> None:
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(1)
    geometry = GEOMETRY._replace(rocking_step_deg=0.014)
    crystal = gold()
    on = grid(SHAPE, axes=real_basis(reciprocal_basis(geometry), SHAPE))
    share = amplitude(crystal, on)
    field = draw_displacement(rng, "surface", polyhedron=crystal, q=q_vector(geometry), length=SIZE_NM)
    _, phase = scaled(field, on, inside=share >= 0.5, regime="medium", phase_range=2.0, rng=rng)
    intensity = expected_intensity(share, -phase, photons=PHOTONS, coherence=0, background=0.002)
    counts = rng.poisson(intensity)
    write_pattern(folder / "p.h5", Pattern(np.sqrt(counts).astype(np.float32), np.ones(SHAPE, bool), (1, 1, 1)))
    bcdi.phase(folder / "p.h5", out=folder / "o.h5", options=Phase(starts=5, seed=1, threads=1, device="cpu"))
    outputs = {"out": folder / "r.cxi", "vti": folder / "r.vti", "statistics": folder / "s.csv"}
    bcdi.strain(folder / "o.h5", **outputs, options=Strain(**geometry._asdict()))
    options = Facets(reflection=(1, 1, 1), cell=Cell(a=4.078, c=None, space_group="F m -3 m"))
    tables = {"profiles": folder / "profiles.csv", "directions": folder / "directions.csv"}
    measured = {"pattern": folder / "p.h5", "objects": folder / "o.h5"}
    merits = bcdi.facets(folder / "r.cxi", **measured, out=folder / "facets.csv", **tables, options=options)
    bcdi.facet_figures(folder / "facets.csv", reconstruction=folder / "r.cxi", **tables, out=folder / "facets.png")
    table = read_csv(folder / "facets.csv")
    normals = table[["normal_x", "normal_y", "normal_z"]].to_numpy(float)
    # An object and its twin fit the pattern equally well: the normals of the twin are inverted.
    areas, _ = polyhedron_areas(crystal.normals, crystal.distances, np.zeros(3))
    cosines = [side * normals @ crystal.normals.T for side in (1, -1)]
    cosine = max(cosines, key=lambda each: each.max(axis=1).sum())
    angles, nearest = np.degrees(np.arccos(np.clip(cosine.max(axis=1), -1, 1))), cosine.argmax(axis=1)
    families = np.where(nearest < 8, "1 1 1", "1 0 0")
    print(f"gold, 14 facets, {' x '.join(map(str, SHAPE))} voxels, {PHOTONS:g} photons, five starts")
    print(f"  facets found {len(set(nearest))}, with the right family {int((table['family'] == families).sum())}")
    print(f"  angle to the true normal: median {np.median(angles):.2f}, most {angles.max():.2f} degrees")
    ratio = table["area_nm2"] / areas[nearest]
    print(f"  area / true area: median {ratio.median():.3f}, {ratio.min():.3f} to {ratio.max():.3f}")
    print(f"  volume within the planes / that of the particle {merits['volume_ratio']:.3f}")
    for name in ("all", "x", "y", "z", "Q"):
        print(f"  PRTF resolution {name}: {merits[f'prtf_resolution_{name}_nm']:.1f} nm")


if __name__ == "__main__":
    main()
