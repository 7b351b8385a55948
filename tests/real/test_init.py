"""`cathodeflow init` on every folder of the measured data: the right technique, and a configuration that `check` accepts."""

import os
from pathlib import Path

import pytest

from cathodeflow.checking import check_config
from cathodeflow.config import load, samples
from cathodeflow.errors import InputError
from cathodeflow.init.writing import initialise

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")).resolve()

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")

# Folder, technique, samples with their columns, and what is said.
FOLDERS = [
    ("sem_ncm", "sem", {"sem_ncm": {"role": "train", "images": "sem_ncm"}}, "811_formation (40)"),
    (
        "bragg_ruby",
        "bragg",
        {"bragg_ruby": {"role": "train", "geometry": "bragg_ruby/dexelas_id3a_20200130.yml"}},
        "1440 images in 1 file, 3888 x 3072 px, uint16, npz",
    ),
    (
        "bcdi",
        "bcdi",
        {
            "aps34idc_S0054": {
                "frames": "bcdi/aps34idc_S0054",
                "dark": "bcdi/dark.tif",
                "whitefield": "bcdi/whitefield.tif",
                "spec": "bcdi/example.spec",
                "scan": 54,
            }
        },
        "9 keV, detector at 0.5 m",
    ),
    ("bcdi/aps34idc_S0054", "bcdi", {"aps34idc_S0054": {"role": "phase", "spec": None}}, "201 images in 201 files"),
    (
        "fibsem",
        "fibsem",
        {
            "superalloy_sem": {"role": "train", "labels": "fibsem/superalloy_sem/labels"},
            "coating_sem": {"role": "train", "labels": "fibsem/coating_sem/labels"},
        },
        "labels with the values 0, 255: init",
    ),
    ("fibsem/superalloy_sem", "fibsem", {"superalloy_sem": {"role": "train"}}, "14 label images"),
    ("fibsem/coating_sem", "fibsem", {"coating_sem": {"role": "train"}}, "8 label images"),
    ("fibsem/volumes", "fibsem", {"rendered": {"images": "simulated"}}, "with the values 0, 1, 2"),
]


@pytest.mark.parametrize(("name", "technique", "expected", "text"), FOLDERS, ids=[name for name, *_ in FOLDERS])
def test_every_folder_gives_a_configuration_that_check_accepts(
    name: str, technique: str, expected: dict[str, dict[str, object]], text: str, tmp_path: Path
) -> None:
    written = initialise(str(DATA / name), str(tmp_path), None)
    (line,) = [line for line in check_config(written.config) if "no problem found" in line]
    assert f": {technique}: {len(expected)} sample" in line
    sheet = samples(load(written.config))[technique]
    assert set(sheet) == set(expected)
    for sample, columns in expected.items():
        for column, value in columns.items():
            given = getattr(sheet[sample], column)
            assert given == value or given == str(DATA / str(value)), (sample, column)
    assert text in "\n".join(written.lines)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sem_ncm/523", "no data set to train a network on"),
        ("fibsem/battery_xct", "1 labelled slices"),
    ],
)
def test_a_folder_that_lacks_something_says_what_to_fill_in(name: str, line: str, tmp_path: Path) -> None:
    written = initialise(str(DATA / name), str(tmp_path), None)
    with pytest.raises(InputError, match=line):
        check_config(written.config)


def test_labels_and_weights_alone_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no raw data \(.*pth: a model or weights.*peaks-exp4train-psz11.hdf5: found"):
        initialise(str(DATA / "bragg_upstream"), str(tmp_path), None)
    assert not list(tmp_path.iterdir())
