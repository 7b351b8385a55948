"""The same micrograph saved twice is one image; different ones are not."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cathodeflow import sem
from cathodeflow.sem.twins import MIN_LIKENESS, fingerprint, likeness, needed_likeness


def micrograph(seed: int, *, shading: float = 60.0) -> NDArray[np.uint8]:
    """Particles under the uneven brightness that all images of a session have."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=(240, 320)), 5)
    grey = 110 + 25 * blobs / blobs.std() + shading * np.linspace(-1, 1, 320) ** 2 + rng.normal(0, 6, blobs.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


def as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


SAVED = {
    "jpeg": lambda image: as_jpeg(image, 50),
    "16 bits": lambda image: image.astype(np.uint16) * 180 + 900,
    "two rows less": lambda image: image[2:],
    "smaller": lambda image: np.asarray(Image.fromarray(image).resize((256, 192))),
    "more contrast": lambda image: np.clip(1.4 * image.astype(float) - 60, 0, 255).astype(np.uint8),
    "all": lambda image: as_jpeg(image[:-2], 40).astype(np.uint16) * 3,
}


@pytest.mark.parametrize("how", SAVED)
def test_a_fingerprint_stays_however_the_image_is_saved(how: str) -> None:
    for seed in range(6):
        first, second = micrograph(seed), SAVED[how](micrograph(seed))
        alike = likeness([fingerprint(first), fingerprint(second)])[0, 1]
        assert alike >= needed_likeness(np.array(first.shape), np.array([second.shape]))[0]


def test_different_images_of_one_session_agree_by_chance_alone() -> None:
    alike = likeness([fingerprint(micrograph(seed)) for seed in range(60)])[np.triu_indices(60, 1)]
    assert alike.max() < MIN_LIKENESS - 0.08 and abs(alike.mean() - 0.5) < 0.02


def test_two_exposures_of_one_place_between_which_the_stage_moved_are_no_twins() -> None:
    """Of measured images such neighbours are the most alike."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        field = 110 + 300 * ndimage.gaussian_filter(rng.normal(size=(500, 660)), 5)
        first, second = (field[at : at + 480, at : at + 640] + rng.normal(0, 6, (480, 640)) for at in (0, 7))
        alike = likeness([fingerprint(first), fingerprint(second)])[0, 1]
        assert 0.6 < alike < needed_likeness(np.array([480, 640]), np.array([[480, 640]]))[0]


def test_uniform_images_have_no_fingerprint() -> None:
    assert fingerprint(np.full((50, 60), 7, np.uint16)) is None and fingerprint(np.zeros((9, 9))) is None


@pytest.mark.parametrize("by", ["image", "time-block"])
def test_no_test_image_has_its_twin_in_training(tmp_path: Path, by: str) -> None:
    for number, label in enumerate(("333", "811")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for image in range(12):
            grey = micrograph(100 * number + image)
            Image.fromarray(grey).save(tmp_path / "set" / label / f"im{image:02d}.tif")
            Image.fromarray(grey[: 240 - 2 * (image % 2)]).save(tmp_path / "set" / label / f"im{image:02d}.jpg")
    listed = sem.index(tmp_path / "set", out=tmp_path / "index.parquet", sample="s")
    assert (listed["images"], listed["duplicates"]) == (48, 24)
    sem.split([tmp_path / "index.parquet"], out=tmp_path / "split.parquet", options=sem.Split(by=by, seed=1))
    table = pd.read_parquet(tmp_path / "split.parquet")
    stem = table["name"].str.rsplit(".", n=1).str[0]
    assert (table[table["split"] != "left out"].groupby(stem)["split"].size() == 1).all()
    twins = table[table["duplicate_of"].notna()]
    assert (twins["duplicate_of"].str.rsplit(".", n=1).str[0] == stem[twins.index]).all()
    assert twins["likeness"].between(MIN_LIKENESS, 1).all() and table["likeness"].notna().sum() == 24


def test_twins_of_two_data_sets_are_used_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for label in ("333", "811"):
            (tmp_path / name / label).mkdir(parents=True)
            for image in range(3 if name == "a" else 2):
                grey = micrograph(image + 50 * (label == "811"))
                Image.fromarray(grey).save(tmp_path / name / label / f"{image}.{'tif' if name == 'a' else 'jpg'}")
        options = sem.Index(min_images=1)
        sem.index(tmp_path / name, out=tmp_path / f"{name}.parquet", sample=name, options=options)
    found = sem.split([tmp_path / "a.parquet", tmp_path / "b.parquet"], out=tmp_path / "split.parquet")
    assert found == {"train": 2, "validation": 2, "test": 2, "left_out": 4}
