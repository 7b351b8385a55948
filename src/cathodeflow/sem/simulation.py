"""Simulated micrographs of cathodes of twelve classes, with information bar and sidecar, as an instrument writes them.

As in measured data sets, each class is imaged in a single session, and sessions differ in brightness and contrast;
within a session these vary in the same way for all classes.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cathodeflow.sem.data_sets import COMPOSITIONS, STATES
from cathodeflow.sem.image_options import Simulate
from cathodeflow.sem.rendering import Appearance, Scene, render
from cathodeflow.sem.seeds import generator

#: Size of a pixel [nm], magnification and voltage [kV], of all simulated images.
PIXEL_NM, MAGNIFICATION, VOLTAGE_KV = 400, 1000, 20
#: Label of images whose particles belong to no class.
FOREIGN = "foreign"
#: Classes in the order in which they are simulated.
CLASSES = tuple(name for composition in COMPOSITIONS for name in (composition, *(f"{composition}_{s}" for s in STATES)))

_APPEARANCES = {
    "333": Appearance(26, 0.08, elongation=1.12, lumps=0.06, grain=1.3, roughness=0.16, fragments=0.35),
    "523": Appearance(22, 0.32, elongation=1.25, lumps=0.13, grain=2.6, roughness=0.20, fragments=0.7),
    "622": Appearance(30, 0.24, elongation=1.6, lumps=0.10, grain=2.0, roughness=0.16, fragments=0.4),
    "811": Appearance(15, 0.15, elongation=1.1, lumps=0.06, grain=1.7, roughness=0.30, fragments=0.2),
}
_FOREIGN_APPEARANCE = Appearance(40, 0.45, elongation=5.0, lumps=0.03, grain=5.0, roughness=0.03, fragments=0.0)


class _Session(NamedTuple):
    """Start of the session; mean and standard deviation of the grey levels of its images."""

    start: datetime
    mean: float
    deviation: float


_SESSIONS = {
    "first": _Session(datetime(2019, 9, 2, 0, 9, 57), 105.0, 44.0),
    "second": _Session(datetime(2019, 12, 3, 14, 59, 58), 132.0, 27.0),
    "third": _Session(datetime(2022, 6, 16, 12, 51, 12), 84.0, 55.0),
    "later": _Session(datetime(2023, 3, 7, 9, 30, 5), 118.0, 36.0),
}


class Simulated(NamedTuple):
    """One image: its class, `<class>/<class>_<number>` (no suffix), the image (row, col), sidecar, and its content.

    `truth`: session; number of particles in view, their mean_diameter [px] and how many are cracked.
    """

    label: str
    name: str
    image: NDArray[np.uint8]
    sidecar: str
    truth: dict[str, Any]


def simulate_micrographs(options: Simulate) -> Iterator[Simulated]:
    """Simulate the images of all classes, one at a time, class by class.

    An image depends only on the seed, its class, its number and its size, not on the number of images; only its time
    depends on the images before it.

    Parameters
    ----------
    options : Simulate

    Yields
    ------
    Simulated
        With an image (rows + bar_rows, cols).
    """
    seed, since = options.seed or 0, dict[str, timedelta]()
    for label in CLASSES:
        session = _session_of(label)
        elapsed = since.get(session, timedelta())
        focus = int(generator(seed, "focus", label).integers(1850, 2150))
        for number in range(options.n_images):
            rng = generator(seed, "image", label, number)
            elapsed += timedelta(seconds=float(rng.uniform(20, 80)))
            scene = _scene(appearance_of(label), options, rng)
            yield _taken(scene, label, f"{label}/{label}_{number:03d}", session, elapsed, focus, options.bar_rows, rng)
        since[session] = elapsed + timedelta(minutes=15)


def simulate_unlabelled(options: Simulate) -> Iterator[Simulated]:
    """Simulate images of further cells: of random classes, and every fourth of particles that belong to no class.

    They are named `additive_<number>` and belong to a separate session. Parameters and results are those of
    `simulate_micrographs`; the label is `FOREIGN` where the particles belong to no class.
    """
    elapsed = timedelta()
    for number in range(options.n_images):
        rng = generator(options.seed or 0, "foreign", number)
        label = FOREIGN if number % 4 == 3 else str(rng.choice(CLASSES))
        appearance = _FOREIGN_APPEARANCE if label == FOREIGN else appearance_of(label)
        elapsed += timedelta(seconds=float(rng.uniform(20, 80)))
        focus = int(rng.integers(1850, 2150))
        scene = _scene(appearance, options, rng)
        yield _taken(scene, label, f"additive_{number:03d}", "later", elapsed, focus, options.bar_rows, rng)


def appearance_of(label: str) -> Appearance:
    """Return the appearance of a class: the particles of its composition, changed by its state.

    Formation covers them with a film, which smooths their surfaces and fills gaps; cycling cracks them and leaves
    fragments.
    """
    composition, _, state = label.partition("_")
    pristine = _APPEARANCES[composition]
    if state == "formation":
        return pristine._replace(roughness=0.35 * pristine.roughness, film=0.3)
    if state == "cycled":
        changed = pristine._replace(cracked=0.55, crack_width=1.3, fragments=pristine.fragments + 0.8, film=0.12)
        return changed._replace(roughness=0.7 * pristine.roughness)
    return pristine


def _session_of(label: str) -> str:
    composition, _, state = label.partition("_")
    return "first" if not state else "third" if composition == "523" else "second"


def _scene(appearance: Appearance, options: Simulate, rng: np.random.Generator) -> Scene:
    blur, noise = rng.uniform(0.5, 0.8), rng.uniform(0.18, 0.28)
    return render(appearance, rows=options.rows, cols=options.cols, focus_blur=blur, noise=noise, rng=rng)


def _taken(
    scene: Scene,
    label: str,
    name: str,
    session: str,
    elapsed: timedelta,
    focus: int,
    bar_rows: int,
    rng: np.random.Generator,
) -> Simulated:
    """Take an image of a scene with the settings of a session around that time."""
    start, mean, deviation = _SESSIONS[session]
    mean, deviation = mean + rng.normal(0, 9), deviation * np.exp(rng.normal(0, 0.12))
    image = _toned(scene.emission, mean, deviation, gamma=np.exp(rng.uniform(-0.3, 0.3)))
    if bar_rows:
        image = np.concatenate([image, information_bar(start + elapsed, bar_rows, image.shape[1])])
    sidecar = sidecar_text(
        name, start + elapsed, brightness=round(mean - 30), contrast=round(2 * deviation - 150), focus=focus
    )
    truth = scene._asdict() | {"session": session}
    for arrays in ("emission", "labels", "diameters"):
        del truth[arrays]
    return Simulated(label, name, image, sidecar, truth)


def _toned(emission: NDArray[np.float32], mean: float, deviation: float, gamma: float) -> NDArray[np.uint8]:
    """Scale an emission to a mean and standard deviation of grey levels, with a gamma curve."""
    low, high = np.quantile(emission, [0.001, 0.999])
    curved = np.clip((emission - low) / (high - low), 0, 1) ** gamma
    grey = (curved - curved.mean()) * (deviation / curved.std()) + mean
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def information_bar(when: datetime, bar_rows: int, cols: int) -> NDArray[np.uint8]:
    """Draw the information bar (bar_rows, cols): date, voltage, detector, magnification and a scale bar of 20 um."""
    bar = Image.new("L", (cols, bar_rows), 0)
    size = max(5, round(0.55 * bar_rows))
    text = f"{when:%Y.%m.%d %H:%M}   {VOLTAGE_KV} kV   SE   x{MAGNIFICATION}   20 um"
    draw = ImageDraw.Draw(bar)
    draw.text((3, bar_rows / 2), text, fill=235, font=ImageFont.load_default(size), anchor="lm")
    length = 20000 // PIXEL_NM
    draw.line([(cols - 4 - length, bar_rows // 2), (cols - 4, bar_rows // 2)], fill=235)
    return np.asarray(bar, dtype=np.uint8)


def sidecar_text(name: str, when: datetime, *, brightness: int, contrast: int, focus: int) -> str:
    """Return the sidecar of an image, in the format of the SNE series by SEC."""
    half = "AM" if when.hour < 12 else "PM"
    return f"""[Image Info]
Model : simulated
Date : {when:%Y-%m-%d} {half} {when:%I:%M:%S}
Time : {when:%H:%M:%S}.{when.microsecond:06d}
File Name : {name}
Acceleated Voltage :  {VOLTAGE_KV} kV
Magnification : x{MAGNIFICATION}
Detector Mode : SED
Vacuum Mode : High Vacuum
[Running Info]
Focus : {focus}
[   - Image Process]
Brightness : {brightness}
Contrast : {contrast}
[Config Info]
Alias :  {VOLTAGE_KV} kV
Pixel Size : {PIXEL_NM} nm
"""
