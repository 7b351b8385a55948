"""Both images are built from the lock file, with its hashes, and hold what the workflow needs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = {name: (ROOT / "envs" / name).read_text() for name in ("Dockerfile", "cathodeflow.def")}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_the_locked_packages_and_nothing_else(name: str) -> None:
    text = re.sub(r"\\\n\s*", " ", IMAGES[name])
    installs = re.findall(r"(?:python -m pip install|uv pip (?:sync|install)).*?(?=&&|\n)", text)
    assert [line.split()[-1] for line in installs] == ["envs/bootstrap.lock", "envs/requirements.lock", "."]
    assert all("--require-hashes" in line for line in installs[:2])
    assert "--no-deps" in installs[2] and "--no-build-isolation" in installs[2]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_every_part_of_the_workflow(name: str) -> None:
    for part in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "Snakefile",
        "src",
        "workflow",
        "profiles",
        "envs",
        "config",
    ):
        assert (ROOT / part).exists()
        assert re.search(rf"^(?:COPY .*\b|\s+){re.escape(part)}\b", IMAGES[name], re.MULTILINE), part
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(f"!{part}" in ignored for part in ("src", "workflow", "envs", "Snakefile"))


def test_both_images_begin_with_the_same_python() -> None:
    docker = re.search(r"^FROM (\S+)", IMAGES["Dockerfile"], re.MULTILINE)
    apptainer = re.search(r"^From: (\S+)", IMAGES["cathodeflow.def"], re.MULTILINE)
    assert docker and apptainer and docker.group(1) == apptainer.group(1)


def test_every_locked_package_has_a_hash() -> None:
    for lock in ("bootstrap", "requirements"):
        text = (ROOT / "envs" / f"{lock}.lock").read_text()
        entries = re.split(r"\n(?=[a-z0-9])", text.strip())
        assert entries and all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in text
