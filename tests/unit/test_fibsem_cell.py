"""Cell parameters from measured properties: the BPX file, its errors, and what is refused."""

import json

import bpx
import numpy as np
import pandas as pd
import pytest

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.fibsem.nmc_cell import NMC_CELL

ROWS = [
    ("volume_fraction", "pore", "", 0.30, "1", 0.02),
    ("volume_fraction", "active", "", 0.60, "1", 0.02),
    ("specific_surface_area", "active", "", 0.40, "1/um", 0.04),
    ("contact_area", "pore-active", "", 0.20, "1/um", 0.02),
    ("tortuosity_factor", "pore", "0", 4.0, "1", 0.4),
    ("tortuosity_factor", "pore", "1", 2.0, "1", 0.2),
    ("tortuosity_factor", "pore", "2", 2.0, "1", 0.2),
]
COLUMNS = ["property", "phase", "direction", "value", "unit", "standard_error"]


def table(path, **changed):
    rows = pd.DataFrame(ROWS, columns=COLUMNS).assign(note="")
    for name, value in changed.items():
        rows.loc[rows["property"] == name, ["value", "note"]] = [value, "does not percolate" if value == np.inf else ""]
    rows.to_csv(path, index=False)
    return path


def run(tmp_path, source, **options):
    out = tmp_path / "bpx.json"
    fibsem.cell(source, out=out, options=fibsem.Cell(discharge="never", **options))
    return bpx.parse_bpx_file(str(out)), json.loads(out.read_text())


def test_measured_parameters_and_their_errors_are_in_the_bpx_file(tmp_path):
    parsed, content = run(tmp_path, table(tmp_path / "properties.csv"), direction=1)
    own = parsed.parameterisation.positive_electrode
    assert own.porosity == pytest.approx(0.30)
    assert own.transport_efficiency == pytest.approx(0.30 / 2)
    assert own.surface_area_per_unit_volume == pytest.approx(4e5)
    # Spheres with the measured surface have the measured fraction.
    assert own.particle_radius * own.surface_area_per_unit_volume / 3 == pytest.approx(0.60)
    errors = content["Parameterisation"]["User-defined"]
    assert errors["Positive electrode: Porosity, standard error"] == pytest.approx(0.02, rel=0.1)
    # Porosity and tortuosity are independent: relative errors of 7 % and 10 %.
    efficiency = errors["Positive electrode: Transport efficiency, standard error"] / own.transport_efficiency
    assert efficiency == pytest.approx(np.hypot(0.02 / 0.30, 0.1), rel=0.1)
    # Everything else is that of the template.
    negative = NMC_CELL["Parameterisation"]["Negative electrode"]
    assert content["Parameterisation"]["Negative electrode"] == pytest.approx(negative)


def test_direction_and_surface_are_chosen(tmp_path):
    source = table(tmp_path / "properties.csv")
    mean, _ = run(tmp_path, source)
    across, _ = run(tmp_path, source, direction=0, surface="pores")
    assert mean.parameterisation.positive_electrode.transport_efficiency == pytest.approx(0.3 * (1 / 4 + 1) / 3)
    assert across.parameterisation.positive_electrode.transport_efficiency == pytest.approx(0.3 / 4)
    assert across.parameterisation.positive_electrode.surface_area_per_unit_volume == pytest.approx(2e5)


@pytest.mark.parametrize(
    ("changed", "options", "text"),
    [
        ({"tortuosity_factor": np.inf}, {}, "tortuosity_factor of pore: does not percolate"),
        ({}, {"active": "nmc"}, "no volume_fraction of nmc"),
        ({}, {"discharge": "always"}, "PyBaMM is not installed"),
    ],
)
def test_what_a_cell_cannot_be_made_of_is_refused_in_a_line(tmp_path, changed, options, text, monkeypatch):
    monkeypatch.setattr("cathodeflow.fibsem.discharge.has_pybamm", lambda: False)
    source = table(tmp_path / "properties.csv", **changed)
    with pytest.raises(InputError, match=text):
        fibsem.cell(source, out=tmp_path / "bpx.json", options=fibsem.Cell(**{"discharge": "never"} | options))
    assert not (tmp_path / "bpx.json").exists()


def test_lengths_in_voxels_and_templates_of_other_kinds_are_refused(tmp_path):
    source = table(tmp_path / "properties.csv")
    source.write_text(source.read_text().replace("1/um", "1/voxel"))
    with pytest.raises(InputError, match="measure with a voxel size"):
        fibsem.cell(source, out=tmp_path / "bpx.json")
    template = tmp_path / "template.json"
    template.write_text('{"Header": {"BPX": "1.0.0", "Model": "DFN"}, "Parameterisation": {}}')
    options = fibsem.Cell(template=str(template))
    with pytest.raises(InputError, match="no positive electrode"):
        fibsem.cell(table(tmp_path / "properties.csv"), out=tmp_path / "bpx.json", options=options)
    bad = json.loads(json.dumps(NMC_CELL))
    del bad["Parameterisation"]["Electrolyte"]
    template.write_text(json.dumps(bad))
    with pytest.raises(InputError, match="Electrolyte"):
        fibsem.cell(table(tmp_path / "properties.csv"), out=tmp_path / "bpx.json", options=options)


def test_discharge_curves_show_the_error(tmp_path):
    pytest.importorskip("pybamm")
    options = fibsem.Cell(samples=2, c_rates=(1.0,), model="SPMe")
    source, curves = table(tmp_path / "properties.csv"), tmp_path / "curves.csv"
    metrics = fibsem.cell(source, out=tmp_path / "bpx.json", curves=curves, options=options)
    found = pd.read_csv(curves)
    assert set(found["error"]) == {"none", "both"} and found["voltage"].between(2.4, 4.3).all()
    assert metrics["capacity_1c_error_both"] > 0
