"""The section of the configuration: names in step with the modules, and what must fit together."""

import typing
from pathlib import Path

import numpy as np
import pytest

from cathodeflow import bcdi
from cathodeflow.bcdi import network_options, simulation_options
from cathodeflow.bcdi.crystals import HABITS
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.geometry import Geometry, q_vector, reciprocal_basis, restored
from cathodeflow.bcdi.losses import LOSSES
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.scans import simulated_files
from cathodeflow.config import samples, stage_flags, validate
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import Starts, write_starts
from cathodeflow.io.reconstructions import read_cxi

HEAD = "sample\trole\tframes\tdark\tspec\tscan\tgeometry\n"
SHEET = HEAD + "one\tphase\tsimulated\t\t\t\t\n"


def section(folder: Path, sheet: str = SHEET, **more: object) -> dict[str, object]:
    (folder / "s.tsv").write_text(sheet)
    return {"bcdi": {"samples": str(folder / "s.tsv"), **more}}


def test_names_are_those_of_the_modules():
    assert typing.get_args(simulation_options.Habit) == tuple(HABITS)
    assert typing.get_args(simulation_options.Kind) == tuple(KINDS)
    assert typing.get_args(simulation_options.Regime) == tuple(REGIMES)
    assert typing.get_args(network_options.Loss) == tuple(LOSSES)
    assert set(Geometry._fields) < set(Strain.model_fields)


@pytest.mark.parametrize(
    ("more", "where", "found"),
    [
        ({"phase": {"recipe": "20*ER+HOI"}}, "bcdi.phase.recipe", "HOI"),
        ({"refine": {"recipe": "0*ER"}}, "bcdi.refine.recipe", "0"),
        ({"train": {"least_photons": 0.3}}, "bcdi.train.least_photons", "bcdi.train.min_photon_fraction"),
        ({"train": {"readers": 2}}, "bcdi.train.readers", "bcdi.train.num_workers"),
        ({"phase": {"free_share": 0}}, "bcdi.phase.free_share", "bcdi.phase.free_fraction"),
        ({"strain": {"level": 0.3}}, "bcdi.strain.level", "bcdi.figures.isosurface"),
        ({"prepare": {"size": [32, 32, 31]}}, "bcdi.prepare.size", "31"),
        ({"prepare": {"rows": [40, 20]}}, "bcdi.prepare.rows", "40"),
        ({"infer": {"model": "no.pt"}}, "bcdi.infer.model", "no such file"),
        ({"evaluate": {"iterations": [0]}}, "bcdi.evaluate.iterations", "0"),
        ({"simulate": {"photons": [1e4]}}, "bcdi.simulate.photons", "10000"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, more, where, found):
    with pytest.raises(InputError) as error:
        samples(validate(section(tmp_path, **more)))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 and where in lines[0] and found in lines[0], lines


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("model\tphase\tsimulated\t\t\t\t", "'model'"),
        ("one\tphase\tno_folder\t\t\t\t", "no_folder"),
        ("one\tphase\tsimulated\tdark.tif\t\t\t", "dark of a simulated scan"),
        ("one\tphase\ta.tif\t\t\t3\t", "scan without spec"),
        ("one\tphase\ta{b}.tif\t\t\t\t", "a{b}.tif"),
        ("one\tguess\ta.tif\t\t\t\t", "guess"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path, monkeypatch, row, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").touch()
    with pytest.raises(InputError) as error:
        samples(validate(section(tmp_path, HEAD + row + "\n")))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 and "s.tsv" in lines[0] and found in lines[0], lines


def test_sides_suit_the_network_where_one_is_trained(tmp_path):
    network = SHEET.replace("phase", "predict")
    for more in ({"simulate": {"size": 40}}, {"prepare": {"size": [64, 64, 40]}}, {"prepare": {"divisor": 8}}):
        assert samples(validate(section(tmp_path, **more)))
        with pytest.raises(InputError, match="multiples of 16"):
            samples(validate(section(tmp_path, network, **more)))
    assert samples(validate(section(tmp_path, network, simulate={"size": 40}, train={"widths": [4, 8, 16]})))


def test_seed_reaches_the_stages_with_random_numbers_alone(tmp_path):
    config = validate({**section(tmp_path), "seed": 9})
    for stage in ("simulate", "simulate_scan", "phase", "train", "evaluate"):
        assert "--seed 9" in stage_flags(config, f"bcdi.{stage}")
    for stage in ("prepare", "infer", "refine", "strain", "metrics"):
        assert "seed" not in stage_flags(config, f"bcdi.{stage}")


GEOMETRY = (
    "energy_kev: 9\ndistance_m: 0.5\npixel_um: 55\ndelta_deg: 30\ngamma_deg: 10\ntheta_deg: 0\nchi_deg: 90\n"
    "phi_deg: 0\nrocking_axis: theta\n"
)


def test_geometry_is_of_the_file_unless_an_option_says_otherwise(tmp_path, caplog):
    side = 8
    inside = (abs(np.indices((side,) * 3) - side // 2) < 3).all(0)
    starts = Starts(inside[None].astype(np.complex64), inside[None], np.zeros((1, 1), np.float32),
                    np.zeros(1, np.float32), np.zeros((1, 3), np.float32), (1, 1, 1))  # fmt: skip
    write_starts(tmp_path / "o.h5", starts)
    path = tmp_path / "g.yaml"

    def found(text, **options):
        path.write_text(text)
        outputs = {name: tmp_path / name for name in ("vti", "statistics")}
        bcdi.strain(tmp_path / "o.h5", geometry=path, out=tmp_path / "o.cxi", **outputs, options=Strain(**options))
        return read_cxi(tmp_path / "o.cxi").geometry

    assert not found(GEOMETRY) and "rocking_step_deg" in caplog.text
    expected = Geometry(10, 0.5, 55, 30, 10, 0, 90, 0, "theta", 0.05)
    written = restored(found(GEOMETRY, rocking_step_deg=0.05, energy_kev=10))
    np.testing.assert_allclose(q_vector(written), q_vector(expected), rtol=1e-9)
    np.testing.assert_allclose(reciprocal_basis(written), reciprocal_basis(expected), rtol=1e-5, atol=1e-9)
    angles = (
        "beamline: P10\nangles: {om: 15, delta: 30}\nsteps: {om: 0.01}\nenergy_kev: 9\ndistance_m: 1.8\npixel_um: 75\n"
    )
    assert found(angles)["beamline"] == "P10"
    with pytest.raises(InputError, match=r"g\.yaml: energy_kev"):
        found("energy_kev: -9\n")
    with pytest.raises(InputError, match=r"g\.yaml: energy: found an unknown key"):
        found("energy: 9\n")


def test_files_of_a_simulated_scan_are_named_by_its_options():
    files = simulated_files("raw", 12)
    assert len(files["frames"]) == 12 and files["dark"] == "raw/dark.tif"
