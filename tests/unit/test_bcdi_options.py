"""The section of the configuration: names in step with the modules, and what must fit together."""

import typing
from pathlib import Path

import pytest

from cathodeflow.bcdi import options
from cathodeflow.bcdi.cli.shared import find_geometry
from cathodeflow.bcdi.crystals import HABITS
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.geometry import Geometry
from cathodeflow.bcdi.losses import LossName
from cathodeflow.bcdi.network import ARCHITECTURES
from cathodeflow.bcdi.options import Simulate, SimulateScan, Strain, Train
from cathodeflow.bcdi.simulate import Measurement, Population
from cathodeflow.config import samples, stage_flags, validate
from cathodeflow.errors import InputError

HEAD = "sample\trole\tframes\tdark\tspec\tscan\tgeometry\n"
SHEET = HEAD + "one\tphase\tsimulated\t\t\t\t\n"


def section(folder: Path, sheet: str = SHEET, **more: object) -> dict[str, object]:
    (folder / "s.tsv").write_text(sheet)
    return {"bcdi": {"samples": str(folder / "s.tsv"), **more}}


def test_names_are_those_of_the_modules():
    assert typing.get_args(options.Habit) == tuple(HABITS)
    assert typing.get_args(options.Kind) == tuple(KINDS)
    assert typing.get_args(options.Regime) == tuple(REGIMES)
    assert typing.get_args(options.Loss) == typing.get_args(LossName)
    assert typing.get_args(Train.model_fields["architecture"].annotation) == ARCHITECTURES
    assert set(Population._fields) | set(Measurement._fields) < set(Simulate.model_fields)
    assert set(Geometry._fields) < set(Strain.model_fields)


@pytest.mark.parametrize(
    ("more", "where", "found"),
    [
        ({"phase": {"recipe": "20*ER+HOI"}}, "bcdi.phase.recipe", "HOI"),
        ({"refine": {"recipe": "0*ER"}}, "bcdi.refine.recipe", "0"),
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
        ("one\tphase\ta.tif\t\ta.tif\t\t", "SPEC file or the number"),
        ("one\tphase\ta.tif\t\ta.tif\t3\ta.tif", "a SPEC file and a file of the geometry"),
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


def test_geometry_is_of_the_file_unless_an_option_says_otherwise(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "energy_kev: 9\ndistance_m: 0.5\npixel_um: 55\ndelta_deg: 30\ngamma_deg: 10\ntheta_deg: 0\nchi_deg: 90\n"
        "phi_deg: 0\nrocking_axis: theta\n"
    )
    geometry, missing = find_geometry(None, str(path), Strain())
    assert geometry is None and missing == ["rocking_step_deg"]
    geometry, missing = find_geometry(None, str(path), Strain(rocking_step_deg=0.01, energy_kev=10))
    assert geometry == Geometry(10, 0.5, 55, 30, 10, 0, 90, 0, "theta", 0.01) and not missing
    path.write_text("energy_kev: -9\n")
    with pytest.raises(InputError, match=r"g\.yaml: energy_kev"):
        find_geometry(None, str(path), Strain())
    path.write_text("energy: 9\n")
    with pytest.raises(InputError, match=r"g\.yaml: energy: found an unknown key"):
        find_geometry(None, str(path), Strain())


def test_files_of_a_simulated_scan_are_named_by_its_options():
    from cathodeflow.bcdi.data_sets import simulated_files

    files = simulated_files("raw", SimulateScan(frames=12))
    assert len(files["frames"]) == 12 and files["dark"] == "raw/dark.tif"
