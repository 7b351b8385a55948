"""`cathodeflow sem predict` on measured micrographs of sizes and bit depths that the network was not trained on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from PIL import Image

from ..conftest import ROOT, Project

DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "sem_ncm"
# Classes under own names, as of a material that nobody has listed: powder, and electrodes of two compositions.
CLASSES = {"powder": "333", "cell A_cycled": "622_cycled", "cell B_formation": "811_formation"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A network trained on every other image of three classes, as a user trains one."""
    folder = tmp_path_factory.mktemp("sem_real")
    # Some of the other images are a labelled data set that is tested on alone.
    for file, which in (("images.csv", slice(0, None, 2)), ("later.csv", slice(1, None, 12))):
        rows = [
            [path.resolve(), *name.split("_")]
            for name, folder_name in CLASSES.items()
            for path in sorted((DATA / folder_name).glob("*.jpg"))[which]
        ]
        pd.DataFrame(rows, columns=["image", "composition", "state"]).to_csv(folder / file, index=False)
    (folder / "sem.tsv").write_text("sample\trole\timages\nncm\ttrain\timages.csv\nlater\ttest\tlater.csv\n")
    section = {
        "samples": "sem.tsv",
        "crops": {"size": 600, "pixels": 448, "side": 112},
        # The last layer of a pretrained network alone, which takes seconds.
        "train": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "imagenet",
            "frozen": True,
            "epochs": 4,
            "learning_rate": 0.01,
            "progressive_fraction": 0,
        },
        "explain": {"whole": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"sem": section}))
    trained = Project(folder, ROOT)
    trained.snakemake("--until", "sem_audit_set")
    return trained


def predict(project: Project, folder: Path) -> pd.DataFrame:
    model = project.folder / "results/sem/model/model.pt"
    command = [sys.executable, "-m", "cathodeflow", "sem", "predict", str(folder), "--model", str(model)]
    subprocess.run([*command, "--out", str(folder / "predictions.csv")], cwd=project.folder, check=True)
    return pd.read_csv(folder / "predictions.csv").assign(file=lambda t: t["image"].map(lambda p: Path(p).name))


def test_what_the_file_is_like_does_not_matter(project: Project, tmp_path: Path) -> None:
    """The same particles as JPEG, 16-bit TIFF, RGBA PNG, without a bar and of another size get the same class."""
    expected = {}
    for name, folder_name in CLASSES.items():
        # Not one of those trained on.
        grey = np.asarray(Image.open(sorted((DATA / folder_name).glob("*.jpg"))[21]).convert("L"))
        files = {
            "whole.jpg": lambda path, g=grey: Image.fromarray(g).save(path, quality=95),
            "deep.tif": lambda path, g=grey: tifffile.imwrite(path, g.astype(np.uint16) * 200 + 700),
            "colour.png": lambda path, g=grey: Image.fromarray(g).convert("RGBA").save(path),
            "part.tif": lambda path, g=grey: tifffile.imwrite(path, g[100:800, 150:1190]),
        }
        for kind, write in files.items():
            file = tmp_path / f"{name}-{kind}"
            write(file)
            expected[file.name] = name
    table = predict(project, tmp_path).set_index("file")
    assert set(table.index) == set(expected) and table["problem"].isna().all()
    for file, name in expected.items():
        assert table["prediction"][file] == name, file
        assert table["bar_rows"][file] == (0 if file.endswith("part.tif") else 64), file
    for name in CLASSES:
        p = table.loc[[f"{name}-{kind}" for kind in ("whole.jpg", "deep.tif", "colour.png")], f"p_{name}"]
        assert np.ptp(p) < 0.05, name


def test_a_labelled_data_set_that_took_no_part_in_training_is_tested_and_audited(project: Project) -> None:
    folder = project.folder / "results/sem/later/model"
    images = pd.read_csv(folder / "predictions.csv", dtype=str)
    given = pd.read_csv(project.folder / "later.csv")
    assert len(images) == len(given) and set(images["label"]) == set(CLASSES)
    accuracy = (images["label"] == images["prediction"]).mean()
    audit = pd.read_csv(folder / "audit.csv").set_index(["method", "scope"])
    overall = audit.xs("all", level="scope")
    assert overall["accuracy"]["network"] == pytest.approx(accuracy) and accuracy > 0.8
    assert (overall["n"] == len(given)).all()
    # Trivial features are trained on the training images, and tested on these; nothing is tuned on these.
    assert {"grey histogram", "instrument settings", "information bar", "majority class"} <= set(overall.index)
    assert "network, histograms matched" not in overall.index
    classes = pd.read_csv(folder / "audit_classes.csv").set_index("label")
    # What a class has alone is told of the images for training too.
    split = pd.read_parquet(project.folder / "results/sem/pooled/split.parquet")
    trained_on = split["label"][split["split"].isin(["train", "validation"])]
    assert classes["images"].to_dict() == pd.concat([trained_on, images["label"]]).value_counts().to_dict()


def test_what_is_not_a_cathode_is_foreign(project: Project, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (900, 1200), np.uint8)).save(tmp_path / "noise.png")
    Image.fromarray(np.tile(np.arange(1200) // 5, (900, 1)).astype(np.uint8)).save(tmp_path / "ramp.png")
    Image.open(sorted((DATA / CLASSES["powder"]).glob("*.jpg"))[21]).save(tmp_path / "cathode.jpg")
    table = predict(project, tmp_path).set_index("file")
    assert table["foreign"][["noise.png", "ramp.png"]].all()
    assert table.index[-1] == "cathode.jpg"
