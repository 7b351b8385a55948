from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cathodeflow.io.instrument_settings import parse_sidecar
from cathodeflow.io.micrographs import read_micrograph, sidecar_text
from cathodeflow.io.simulated import write_micrograph
from cathodeflow.sem.image_options import Simulate
from cathodeflow.sem.info_bar import find_info_bar
from cathodeflow.sem.rendering import Appearance, render
from cathodeflow.sem.simulation import CLASSES, FOREIGN, simulate_micrographs, simulate_unlabelled

SIZE = {"rows": 240, "cols": 320, "bar_rows": 16}


@pytest.fixture(scope="module")
def micrographs():
    return list(simulate_micrographs(Simulate(n_images=6, seed=1, **SIZE)))


def few(n_images=1, seed=1, **size):
    """Fewer images per class than a configuration may ask for."""
    options = Simulate(seed=seed, **{"rows": 96, "cols": 96, "bar_rows": 16} | size)
    return list(simulate_micrographs(options.model_copy(update={"n_images": n_images})))


def particles(micrograph):
    """The image without its bar, at mean 0 and deviation 1."""
    image = micrograph.image[: SIZE["rows"]].astype(float)
    return (image - image.mean()) / image.std()


def spectrum(image):
    """Power by wavelength, which grey levels hardly change."""
    power = np.abs(np.fft.fft2(image * np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1])))) ** 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij"))
    bins = np.digitize(frequency, np.geomspace(0.012, 0.45, 14))
    return np.log([power[bins == number].mean() for number in range(1, 14)])


def nearest(features, labels, tested):
    """Share of the tested whose nearest neighbour among the others is of their class."""
    features, labels = np.array(features), np.array(labels)
    apart = np.abs(features[tested][:, None] - features[~tested][None]).sum(axis=-1)
    return np.mean(labels[~tested][apart.argmin(axis=1)] == labels[tested])


def test_every_class_has_its_images_in_order(micrographs):
    assert len(CLASSES) == len(set(CLASSES)) == 12
    assert [m.label for m in micrographs] == [label for label in CLASSES for _ in range(6)]
    assert [m.name for m in micrographs[:2]] == ["333/333_000", "333/333_001"]
    assert {m.image.shape for m in micrographs} == {(256, 320)} and {m.image.dtype for m in micrographs} == {
        np.dtype("u1")
    }


def test_images_repeat_and_do_not_depend_on_how_many_there_are():
    two, again, four, other = few(2), few(2), few(4), few(2, seed=2)
    for k, micrograph in enumerate(two):
        np.testing.assert_array_equal(micrograph.image, again[k].image)
        assert micrograph.sidecar == again[k].sidecar
        longer = four[4 * (k // 2) + k % 2]
        assert longer.name == micrograph.name
        np.testing.assert_array_equal(micrograph.image[:96], longer.image[:96])
        # Another seed has other particles, not only other grey levels.
        a, b = (gaussian_filter(m.image[:96].astype(float), 2).ravel() for m in (micrograph, other[k]))
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.5
    assert len({m.image[:96].tobytes() for m in two}) == 24


def test_particles_tell_the_class_and_grey_levels_alone_do_not(micrographs):
    labels = [m.label for m in micrographs]
    tested = np.tile(np.arange(6) >= 4, 12)
    grey = [np.histogram(m.image[:240], bins=32, range=(0, 256))[0] for m in micrographs]
    waves = [spectrum(particles(m)) for m in micrographs]
    sessions = np.array([m.truth["session"] for m in micrographs])
    for session in ("first", "second", "third"):
        mine = np.flatnonzero(sessions == session)
        by_grey, by_waves = (
            nearest([features[k] for k in mine], [labels[k] for k in mine], tested[mine]) for features in (grey, waves)
        )
        # Wavelengths alone do not tell a film from a smooth surface, but far more than brightness and contrast do.
        assert by_waves > max(0.6, by_grey + 0.3), session


def test_sessions_differ_in_brightness_and_contrast(micrographs):
    grey = pd.DataFrame(
        {
            "session": [m.truth["session"] for m in micrographs],
            "label": [m.label for m in micrographs],
            "mean": [m.image[:240].mean() for m in micrographs],
            "deviation": [m.image[:240].std() for m in micrographs],
        }
    )
    means = grey.groupby("session")[["mean", "deviation"]].mean()
    assert means["mean"].sort_values().index.tolist() == ["third", "first", "second"]
    assert means["deviation"].sort_values().index.tolist() == ["second", "first", "third"]
    # Each class is imaged in one session, as real ones are, and most sessions hold several classes.
    assert (grey.groupby("label")["session"].nunique() == 1).all()
    assert grey.groupby("session")["label"].nunique().to_dict() == {"first": 4, "second": 6, "third": 2}
    # Images of a session vary more than its classes do.
    first = grey[grey["session"] == "first"]
    assert first.groupby("label")["mean"].mean().std() < first.groupby("label")["mean"].std().mean()


def test_only_cycled_particles_are_cracked_and_sizes_follow_the_composition(micrographs):
    truth = pd.DataFrame([m.truth | {"label": m.label} for m in micrographs]).groupby("label").mean(numeric_only=True)
    cracked = truth["cracked"] / truth["particles"]
    assert (cracked[[label for label in CLASSES if "cycled" not in label]] == 0).all()
    assert cracked[[label for label in CLASSES if "cycled" in label]].between(0.4, 0.7).all()
    for state in ("", "_formation", "_cycled"):
        sizes = [truth["mean_diameter"][composition + state] for composition in ("811", "523", "333", "622")]
        assert sizes == sorted(sizes) and sizes[-1] > 1.7 * sizes[0]


def test_particles_are_seen_as_large_as_they_are():
    """The first minimum of the autocorrelation of a packing lies between its particles and their neighbours."""
    for diameter in (14, 20, 28):
        rng = np.random.default_rng(0)
        scene = render(Appearance(diameter, 0.02), rows=400, cols=400, focus_blur=0.5, noise=0.1, rng=rng)
        power = np.abs(np.fft.fft2(scene.emission)) ** 2
        correlation = np.fft.ifft2(power).real
        distance = np.round(np.hypot(*np.meshgrid(*(np.minimum(np.arange(400), 400 - np.arange(400)),) * 2))).astype(
            int
        )
        radial = np.bincount(distance.ravel(), correlation.ravel()) / np.bincount(distance.ravel())
        minimum = np.argmin(radial[: 2 * diameter])
        assert minimum == pytest.approx(0.85 * diameter, rel=0.1), diameter
        assert scene.mean_diameter == pytest.approx(diameter, rel=0.05)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("bar_rows", [0, 16, 40])
def test_files_are_read_with_bar_and_settings(tmp_path, suffix, bar_rows):
    times = []
    for micrograph in few(1, bar_rows=bar_rows, rows=200, cols=260):
        path = str(tmp_path / f"{micrograph.name}.{suffix}")
        write_micrograph(path, micrograph.image, sidecar=micrograph.sidecar)
        image = read_micrograph(path)
        difference = np.abs(image[:200].astype(int) - micrograph.image[:200])
        assert difference.max() == 0 if suffix == "tif" else difference.mean() < 6
        assert find_info_bar(image) == bar_rows
        settings = parse_sidecar(sidecar_text(path) or "")
        assert (settings["magnification"], settings["voltage_kv"]) == (1000, 20)
        assert {"brightness", "contrast", "focus"} <= set(settings)
        times.append((settings["time"], micrograph.truth["session"]))
    table = pd.DataFrame(times, columns=["time", "session"])
    assert all(mine["time"].is_monotonic_increasing for _, mine in table.groupby("session"))
    days = table.groupby("session")["time"].min().sort_values()
    assert (days.diff().dropna() > pd.Timedelta(days=30)).all()


def test_the_twelve_hours_of_the_sidecar_agree_with_its_time():
    for micrograph in few(1):
        lines = dict(line.split(" : ", 1) for line in micrograph.sidecar.splitlines() if " : " in line)
        day = pd.to_datetime(lines["Date"], format="%Y-%m-%d %p %I:%M:%S")
        assert f"{day:%H:%M:%S}" == lines["Time"][:8]


def test_the_bar_shows_when_the_image_was_taken():
    first, second = (m.image[96:] for m in few(2, cols=300)[:2])
    assert first.shape == (16, 300) and first.max() > 200 and (first == 0).mean() > 0.7
    assert (first != second).any()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_bytes_repeat(tmp_path, suffix):
    micrograph = few(1)[0]
    paths = [tmp_path / name / f"a.{suffix}" for name in "xy"]
    for path in paths:
        write_micrograph(path, micrograph.image, sidecar=micrograph.sidecar)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert Path(f"{paths[0]}.txt").read_text("utf-8") == micrograph.sidecar
    if suffix == "jpg":
        assert Image.open(paths[0]).mode == "RGB"


def test_foreign_particles_are_unlike_those_of_any_class(micrographs):
    foreign = list(simulate_unlabelled(Simulate(n_images=8, seed=1, **SIZE)))
    assert [m.name for m in foreign[:2]] == ["additive_000", "additive_001"]
    assert [m.label == FOREIGN for m in foreign] == [False, False, False, True] * 2
    assert {m.label for m in foreign} - {FOREIGN} <= set(CLASSES)
    assert not {m.truth["session"] for m in foreign} & {m.truth["session"] for m in micrographs}
    known = np.array([spectrum(particles(m)) for m in micrographs])
    apart = [np.abs(spectrum(particles(m)) - known).sum(axis=1).min() for m in foreign]
    is_foreign = np.array([m.label == FOREIGN for m in foreign])
    assert min(np.array(apart)[is_foreign]) > 1.3 * max(np.array(apart)[~is_foreign])
