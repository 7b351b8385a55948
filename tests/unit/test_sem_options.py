"""Options of the SEM section: every form that YAML may have, versions, and keys of earlier versions."""

from typing import Any

import pytest
from click.testing import CliRunner

from cathodeflow.commands import command
from cathodeflow.errors import InputError
from cathodeflow.options import from_config, to_flags
from cathodeflow.sem.network_options import Augment, Train
from cathodeflow.sem.options import Section
from cathodeflow.sem.stages.predict import predict
from cathodeflow.sem.stages.train import train

AUGMENT = ("flip", "rotation", "brightness", "contrast", "gamma", "noise", "blur")
RENAMED = {
    "standardise": "normalization",
    "first_side": "progressive_size",
    "first_share": "progressive_fraction",
    "average": "ema_decay",
    "turn": "augment.rotate90",
    **{name: f"augment.{name}" for name in AUGMENT},
}


def section(**values: Any) -> Section:
    return from_config(Section, {"samples": "sem.tsv", **values}, "sem")


def test_lists_and_whole_numbers_of_yaml_are_accepted() -> None:
    options = section(
        index={"compositions": ["NCA", "811"], "states": ["fresh", "aged"], "bar_rows": None},
        crops={"pixels": None, "pixel_nm": 25, "overlap": 0},
        train={"patience": None, "learning_rate": 1, "augment": {"gamma": 2}},
    )
    assert options.index.compositions == ("NCA", "811") and options.index.states == ("fresh", "aged")
    assert options.crops.pixels is None and options.crops.pixel_nm == 25 and options.train.patience is None
    assert options.train.augment.gamma == 2


def test_a_version_changes_single_options_also_of_a_group() -> None:
    base = {"epochs": 3, "patience": 5, "augment": {"blur": 0.5, "flip": False}}
    versions = {"same": None, "sharp": {"augment": {"blur": 0}}, "patient": {"patience": None, "seed": 4}}
    networks = section(train=base, versions=versions).networks
    assert list(networks) == ["same", "sharp", "patient"]
    assert networks["same"] == Train(epochs=3, patience=5, augment=Augment(blur=0.5, flip=False))
    assert networks["sharp"] == Train(epochs=3, patience=5, augment=Augment(blur=0, flip=False))
    assert networks["patient"] == Train(epochs=3, patience=None, seed=4, augment=Augment(blur=0.5, flip=False))
    assert "--augment-blur 0.0 " in to_flags(networks["sharp"]) and "--no-augment-flip" in to_flags(networks["sharp"])


@pytest.mark.parametrize("name", ["index", "figures_model"])
def test_a_version_may_not_be_named_like_other_files(name: str) -> None:
    with pytest.raises(InputError, match=rf"another name: '{name}'"):
        section(versions={name: None})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_keys_of_earlier_versions_are_refused_with_the_new_name(old: str, new: str) -> None:
    for values, where in (({"train": {old: 1}}, "train"), ({"versions": {"a": {old: 1}}}, "versions.a")):
        with pytest.raises(InputError, match=rf"{where}\.{old} was renamed to {where}\.{new}$"):
            section(**values)
    result = CliRunner().invoke(command(train), ["crops.zarr", "--out", "m.pt", f"--{old.replace('_', '-')}", "1"])
    flag = "--" + new.replace("_", "-").replace(".", "-")
    assert result.exit_code == 2 and f"was renamed to {flag}" in result.output, result.output


def test_the_old_name_of_the_threshold_is_refused_too() -> None:
    with pytest.raises(InputError, match=r"predict\.foreign was renamed to predict\.ood_quantile"):
        section(predict={"foreign": 0.9})
    result = CliRunner().invoke(command(predict), ["images", "--out", "p.csv", "--foreign", "0.9"])
    assert result.exit_code == 2 and "--foreign was renamed to --ood-quantile" in result.output
