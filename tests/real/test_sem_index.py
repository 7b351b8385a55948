"""The table of images on measured micrographs of twelve classes of cathodes."""

import os
from pathlib import Path

import pandas as pd
import pytest

from cathodeflow.sem.classes import list_images
from cathodeflow.sem.image_options import Index
from cathodeflow.sem.image_table import build_index

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "sem_ncm"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    """Table of all images."""
    return build_index(list_images(str(DATA)), Index())


def test_all_images_of_all_classes_are_there(index: pd.DataFrame) -> None:
    files = [path for path in DATA.glob("*/*") if path.suffix == ".jpg"]
    assert sorted(index["image"]) == sorted(map(str, files))
    assert index["label"].nunique() == 12 and index["duplicate_of"].isna().all()


def test_the_bar_is_found_in_every_image(index: pd.DataFrame) -> None:
    assert index["bar_rows"].isin((64, 65)).all()


def test_settings_are_known_where_there_is_a_sidecar(index: pd.DataFrame) -> None:
    has = index["image"].map(lambda image: Path(f"{image}.txt").is_file())
    assert index["time"].notna().equals(has)
    assert (index["magnification"][has] == 500).all() and (index["voltage_kv"][has] == 20).all()
    settings = index.loc[has, ["detector", "brightness", "contrast", "focus", "maker"]]
    assert settings.notna().all(axis=None)
    pristine = index["time"][has & (index["state"] == "pristine")]
    assert pristine.dt.date.astype(str).unique().tolist() == ["2019-09-02"]
