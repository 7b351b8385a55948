"""The configuration: generated reference, schema, environments and shared settings stay in step with the classes."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from cathodeflow.cli import cli
from cathodeflow.config import config_class, samples, stage_flags, stage_options, stages, techniques, validate
from cathodeflow.errors import InputError
from cathodeflow.io.text import read_yaml
from cathodeflow.options import leaves
from cathodeflow.reference import markdown

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "config" / "config.yaml"


def test_reference_is_in_step() -> None:
    assert (ROOT / "config" / "README.md").read_text() == markdown(), "run `make reference`"


def test_reference_names_every_option_with_its_meaning() -> None:
    text = markdown()
    for section in techniques().values():
        for key, field in leaves(section):
            option = key.rpartition(".")[2]
            assert re.search(rf"^\| `[a-z.]*{option}` \|.*\| {re.escape(field.description)} \|$", text, re.MULTILINE), (
                key
            )


def test_reference_gives_type_and_choices_of_lists() -> None:
    text = markdown()
    assert "| `fibsem.paper_tables` | integers |  | any of 1, 2, 3, 5 |" in text
    assert "| `splits` | texts |  | any of grouped, paper |" in text


def test_demo_configuration_is_valid_and_fits_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    values = yaml.safe_load(DEMO.read_text())
    assert samples(validate(values))["bragg"]
    Draft202012Validator(config_class().model_json_schema()).validate(values)
    values["bragg"]["fit"] = {"patch_size": "large"}
    assert not Draft202012Validator(config_class().model_json_schema()).is_valid(values)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_configurations_that_we_give_are_valid(path: Path) -> None:
    assert techniques().keys() & validate(yaml.safe_load(path.read_text()), str(path)).model_fields_set


@pytest.mark.parametrize("stage", stages())
def test_flags_of_a_stage_give_its_options_back(stage: str) -> None:
    technique, name = stage.split(".")
    config = validate({technique: {"samples": "s.tsv"}})
    flags = shlex.split(stage_flags(config, stage))
    # In this process: a command imports what its stage needs, some of it for seconds.
    result = CliRunner().invoke(cli, [technique, name.replace("_", "-"), "--help"], catch_exceptions=False)
    assert result.exit_code == 0
    for flag in flags:
        if flag.startswith("--"):
            assert flag.split("=")[0] in result.output


def test_a_stage_takes_seed_and_device_of_the_workflow_unless_it_has_its_own() -> None:
    config = validate({"seed": 7, "device": "cpu", "bragg": {"samples": "s.tsv", "simulate": {"seed": 3}}})
    assert stage_options(config, "bragg.simulate").seed == 3  # type: ignore[attr-defined]
    train = stage_options(config, "bragg.train")
    assert (train.seed, train.device) == (7, "cpu")  # type: ignore[attr-defined]
    # A stage without random numbers does not change with the seed.
    other = validate({"seed": 8, "device": "cpu", "bragg": {"samples": "s.tsv"}})
    assert stage_flags(config, "bragg.fit") == stage_flags(other, "bragg.fit")
    assert stage_flags(config, "bragg.train") != stage_flags(other, "bragg.train")


def test_every_technique_is_wired_up() -> None:
    for technique in techniques():
        assert (ROOT / "workflow" / "rules" / f"{technique}.smk").is_file()
    with pytest.raises(InputError, match=r"c\.yaml: brag: found an unknown key, expected 'bragg'"):
        validate({"brag": {}}, "c.yaml")


def test_conda_environment_lists_what_the_package_needs() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    environment = yaml.safe_load((ROOT / "envs" / "cathodeflow.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == wanted


def test_lock_has_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "bootstrap.lock"):
        lines = (ROOT / "envs" / name).read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("--")]
        pinned = [index for index, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]
        assert pinned and all("==" in lines[index] and "--hash=sha256:" in lines[index + 1] for index in pinned)


def test_schema_command_prints_json() -> None:
    output = subprocess.run([sys.executable, "-m", "cathodeflow", "schema"], capture_output=True, text=True, check=True)
    assert json.loads(output.stdout)["properties"]["seed"]["type"] == "integer"


def test_help_imports_nothing_heavy() -> None:
    heavy = "'torch', 'mlflow', 'dask', 'numba', 'pandas', 'matplotlib', 'h5py', 'onnxruntime', 'scipy'"
    code = (
        "import sys; from cathodeflow.cli import cli; cli(['bragg', '--help'], standalone_mode=False); "
        f"print([m for m in ({heavy}) if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = output.stdout.splitlines()
    assert any(line.split()[:3] == ["find-peaks", "Find", "the"] for line in lines) and lines[-1] == "[]"


def test_libraries_that_make_results_stale_are_installed_ones() -> None:
    demo = yaml.safe_load(DEMO.read_text())
    config = validate({**demo, "reruns": {"libraries": ["torch", "scikit-learn"]}}, "c.yaml")
    assert config.reruns.libraries == ("torch", "scikit-learn")
    with pytest.raises(InputError, match=r"c\.yaml: reruns\.libraries: found 'torhc', expected an installed package"):
        validate({**demo, "reruns": {"libraries": ["torhc"]}}, "c.yaml")
    with pytest.raises(InputError, match=r"found '', expected an installed package"):
        validate({**demo, "reruns": {"libraries": [""]}}, "c.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "bragg:\n  train:\n    epochs: 2\n  train:\n    epochs: 5\n",
            "c.yaml line 4: found 'train' a second time, expected every key once",
        ),
        ("seed: 1\nseed: 1\n", "c.yaml line 2: found 'seed' a second time, expected every key once"),
        ("# nothing yet\n", "c.yaml: found an empty file, expected a mapping of settings"),
        (
            "sem:\n\tseed: 1\n",
            "c.yaml line 2: found a tab, expected spaces, as YAML allows no tabs between keys and values",
        ),
        ("seed:\t1\n", "c.yaml line 1: found a tab, expected spaces, as YAML allows no tabs between keys and values"),
        ("sem:\n\u00a0 seed: 1\n", "c.yaml line 2: found a non-breaking space, expected plain spaces before a key"),
        (
            "a: {b: 1\n",
            "c.yaml line 2: found expected ',' or '}', but got '<stream end>' in a flow mapping that begins in "
            "line 1, expected a YAML file",
        ),
        (
            'a: "C:\\data"\n',
            """c.yaml line 1: found 'a: "C:\\data"', expected single quotes around a text with backslashes""",
        ),
        (
            "a: *.tif\n",
            "c.yaml line 1: found 'a: *.tif', expected quotes around a text that begins with * & @ % ` or !",
        ),
        ("seed: 1\n---\nseed: 2\n", "c.yaml line 2: found a second document after ---, expected one"),
    ],
)
def test_yaml_that_would_be_taken_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml("c.yaml")
    assert str(error.value) == message


@pytest.mark.parametrize(("encoding", "found"), [("utf-16", "UTF-16 text"), ("cp1252", "text in another encoding")])
def test_yaml_in_another_encoding_is_refused_as_snakemake_reads_utf8_only(
    tmp_path: Path, encoding: str, found: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("run_name: Käfer\r\n".encode(encoding))
    with pytest.raises(InputError) as error:
        read_yaml(str(path))
    assert str(error.value) == f"{path}: found {found}, expected a YAML file in UTF-8; save it so in the editor"
    path.write_bytes("run_name: Käfer\r\n".encode("utf-8-sig"))
    assert read_yaml(str(path)) == {"run_name": "Käfer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bragg:\nsamples: s.tsv\n", "samples: found an unknown key, expected it indented, in bcdi or bragg or fibsem or sem"),
        ("bragg:\n  samples:s.tsv\n", "bragg: found 'samples:s.tsv', expected a section: lines of `key: value`, indented, "
         "with a space after each colon"),
        ("sem: {samples: 's{1}.tsv'}\n", "sem.samples: found s{1}.tsv, expected a path without { and }"),
        ("sem: {samples: s.tsv, index: {mask: 'm{1}.png'}}\n", "sem.index.mask: found m{1}.png, expected a path without { "
         "and }"),
        ("run_name: no\nbragg: {samples: s.tsv}\n", "run_name: found False, expected text, in quotes"),
        ("bragg: {samples: s.tsv, train: {learning_rate: '0,003'}}\n", "bragg.train.learning_rate: found '0,003', expected a "
         "point before the decimals: 0.003"),
    ],
)  # fmt: skip
def test_keys_and_values_that_are_written_otherwise(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        validate(yaml.safe_load(text), "c.yaml")
    assert str(error.value) == f"c.yaml: {message}"


def test_what_people_write_for_numbers_truth_and_empty_sections() -> None:
    text = "reruns: {cache: 'No '}\nbragg:\n  samples: s.tsv\n  train: {epochs: 1e2, learning_rate: 3e-3}\n  fit:\n"
    config = validate(yaml.safe_load(text), "c.yaml")
    assert (config.reruns.cache, config.bragg.train.epochs, config.bragg.train.learning_rate) == (False, 100, 0.003)
    assert config.bragg.fit == validate({"bragg": {"samples": "s.tsv"}}).bragg.fit


def test_yaml_keys_of_a_merge_may_be_set_again(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert read_yaml(str(tmp_path / "c.yaml"))["b"] == {"x": 3, "y": 2}
