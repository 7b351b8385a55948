"""The section of the configuration: networks that share options, and what must fit together."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cathodeflow.commands import Technique
from cathodeflow.config import samples, stage_flags, validate
from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Slices

SHEET = "sample\trole\timages\tlabels\none\ttrain\tsimulated\t\n"


def section(folder: Path, **more: object) -> dict[str, object]:
    (folder / "s.tsv").write_text(SHEET)
    return {"fibsem": {"samples": str(folder / "s.tsv"), **more}}


def test_networks_have_the_options_that_they_do_not_change(tmp_path):
    config = validate(section(tmp_path, train_global={"epochs": 7, "widths": [4, 8]}))
    networks = config.fibsem.networks
    assert list(networks) == ["unet", "ugsm", "forest", "context"] and {one.epochs for one in networks.values()} == {7}
    assert networks["ugsm"].dropout == 0.5 and networks["ugsm"].class_weights == "balanced"
    assert (
        networks["unet"].dropout == 0 and networks["unet"].class_weights == "none" and networks["unet"].widths == (4, 8)
    )
    assert networks["context"].context == 3 and networks["context"].tta
    own = validate(section(tmp_path, networks={"wide": {"widths": [32]}}, methods={}, train_global={"epochs": 7}))
    assert own.fibsem.networks["wide"].widths == (32,) and own.fibsem.networks["wide"].epochs == 7


def test_the_defaults_are_those_of_the_paper(tmp_path):
    config = validate(section(tmp_path))
    ugsm, idk, local = config.fibsem.networks["ugsm"], config.fibsem.train_idk, config.fibsem.train_local
    assert (ugsm.epochs, ugsm.batch_size, ugsm.dropout, ugsm.dropout_where, ugsm.passes) == (100, 20, 0.5, "blocks", 20)
    assert (idk.epochs, idk.batch_size, local.epochs, local.batch_size, local.side) == (15, 1024, 15, 1024, 11)
    assert (local.inputs, local.padding, local.dropout) == ("all", "zeros", 0.2)
    assert (config.fibsem.augment.paper_test, config.fibsem.augment.paper_unseen) == (50, 40)


@pytest.mark.parametrize(
    ("more", "where", "found"),
    [
        ({"methods": {"mine": "net"}}, "fibsem.methods.mine", "net"),
        ({"methods": {"ugsm": "unet"}}, "fibsem.networks", "ugsm"),
        ({"methods": {"model": "unet"}}, "fibsem.methods", "model"),
        ({"predict": {"method": "magic"}}, "fibsem.predict.method", "magic"),
        ({"simulate": {"labels": "no.tif"}}, "fibsem.simulate.labels", "no such file"),
        ({"train_local": {"side": 12}}, "fibsem.train_local.side", "12"),
        ({"networks": {"unet": {"wdths": [4]}}}, "fibsem.networks", "unknown key"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, more, where, found):
    with pytest.raises(InputError) as error:
        samples(validate(section(tmp_path, **more)))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 and where in lines[0] and found in lines[0], lines


def test_slices_to_learn_from_have_labels(tmp_path):
    (tmp_path / "a.tif").touch()
    values = section(tmp_path)
    (tmp_path / "s.tsv").write_text(f"sample\trole\timages\none\ttrain\t{tmp_path}/a.tif\n")
    with pytest.raises(InputError, match="without labels"):
        samples(validate(values))
    (tmp_path / "s.tsv").write_text(f"sample\trole\timages\none\tpredict\t{tmp_path}/a.tif\n")
    with pytest.raises(InputError, match="no volume to train"):
        samples(validate(values))
    assert not Slices(sample="one", images="raw").simulated


def test_a_stage_has_its_options_alone(tmp_path):
    config = validate({**section(tmp_path, augment={"splits": ["grouped", "paper"]}), "seed": 5})
    assert "--splits grouped,paper" in stage_flags(config, "fibsem.augment")
    assert "--seed 5" in stage_flags(config, "fibsem.train_local")


RENAMED = {
    "volume.largest_drift": "volume.max_drift",
    "augment.level": "augment.normalize_slices",
    "train_global.flips": "train_global.augment.flip",
    "train_global.test_flips": "train_global.tta",
    "train_local.average": "train_local.ema_decay",
    "train_local.edges": "train_local.padding",
    "train_local.start_share": "train_local.curriculum.start_fraction",
    "train_local.full_at": "train_local.curriculum.full_at",
    "train_local.pacing": "train_local.curriculum.pacing",
    "train_local.stages": "train_local.curriculum.stages",
    "train_local.flips": "train_local.augment.flip",
    "predict.grey": "predict.match_intensity",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_keys_are_refused_with_their_new_names(tmp_path, old, new):
    stage, key = old.split(".")
    with pytest.raises(InputError) as error:
        validate(section(tmp_path, **{stage: {key: 1}}))
    # What is wrong in `train_global` is wrong in every network that takes its options.
    assert {line.split(" was renamed to ")[1] for line in str(error.value).splitlines()} >= {f"fibsem.{new}"}
    flag = "--" + key.replace("_", "-")
    run = CliRunner().invoke(Technique("cathodeflow.fibsem"), [stage.replace("_", "-"), flag, "1"])
    assert (
        run.exit_code == 2
        and f"{flag} was renamed to --{new.partition('.')[2].replace('_', '-').replace('.', '-')}" in run.output
    )
