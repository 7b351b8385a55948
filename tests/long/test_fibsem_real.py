"""The chain of FIB-SEM on measured grey images of other materials, with three classes and other sizes."""

import os
from pathlib import Path

import pandas as pd
import pytest

from ..conftest import ROOT, Project

DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "fibsem"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")

# Images are no neighbours of each other: no context, no gap.
CONFIG = """\
seed: 1
device: cpu
fibsem:
  samples: images.tsv
  networks: {{unet: {{dropout: 0.0, class_weights: none, passes: 1}}, ugsm: {{}}}}
  methods: {{matphase: ugsm}}
  volume: {{classes: {classes}}}
  augment: {{copies: 1, gap: 0}}
  train_global: {{widths: [8, 16, 32], epochs: {epochs}, batch_size: 2, crop: 192, learning_rate: 4.0e-3, passes: 4, threads: 2}}
  train_idk: {{epochs: 3, pixels_per_epoch: 60000}}
  train_local: {{epochs: 4, pixels_per_epoch: 60000}}
  metrics: {{bootstrap_samples: 200}}
"""


@pytest.mark.parametrize(
    ("name", "classes", "epochs", "least"),
    [
        ("superalloy_sem", ["matrix", "precipitate", "small precipitate"], 40, 0.55),
        ("coating_sem", ["coating", "oxide", "crack"], 60, 0.45),
    ],
)
def test_images_of_other_materials_are_learnt(
    tmp_path: Path, name: str, classes: list[str], epochs: int, least: float
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(classes=classes, epochs=epochs))
    (tmp_path / "images.tsv").write_text(
        f"sample\trole\timages\tlabels\nmeasured\ttrain\t{DATA / name}/images\t{DATA / name}/labels\n"
    )
    project = Project(tmp_path, ROOT)
    project.snakemake()
    table = pd.read_csv(tmp_path / "results/fibsem/measured/metrics.csv").set_index("model")
    assert table.index.tolist() == ["unet", "ugsm", "ugsm_prior", "ugsm_mlp", "matphase"]
    assert table["miu"].max() > least and table[f"f1_{classes[0]}"].max() > 0.85
    assert project.planned() == {}
