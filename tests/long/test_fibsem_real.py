"""The chain of FIB-SEM on measured grey images of other materials, with three classes and other sizes."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ..conftest import ROOT, Project

DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "fibsem"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.mark.parametrize(
    ("name", "classes", "least"),
    [
        ("superalloy_sem", ["matrix", "precipitate", "small precipitate"], 0.75),
        ("coating_sem", ["coating", "oxide", "crack"], 0.45),
    ],
)
def test_images_of_other_materials_are_learnt(tmp_path: Path, name: str, classes: list[str], least: float) -> None:
    config = yaml.safe_load((ROOT / "config/fibsem-images.yaml").read_text())
    config["fibsem"] |= {"samples": "images.tsv", "volume": {"classes": classes}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (tmp_path / "images.tsv").write_text(
        f"sample\trole\timages\tlabels\nmeasured\ttrain\t{DATA / name}/images\t{DATA / name}/labels\n"
    )
    project = Project(tmp_path, ROOT)
    project.snakemake()
    table = pd.read_csv(tmp_path / "results/fibsem/measured/metrics.csv").set_index("model")
    networks = ["forest", "pretrained", "pretrained_reduced"]
    assert table.index.tolist() == ["unet", "ugsm", "ugsm_prior", "ugsm_mlp", "matphase", *networks]
    assert project.planned() == {}
    # What `auto` takes, not what happens to be best on the test images.
    folder = tmp_path / "results/fibsem/measured/grouped/seed0"
    best = json.loads((folder / "test_labels.zarr/zarr.json").read_text())["attributes"]["best"]
    assert table.loc[best, "miu"] > least and table.loc[best, f"f1_{classes[0]}"] > 0.85
