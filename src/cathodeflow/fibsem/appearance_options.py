"""Options of the random changes of training images, and of intensities that differ from those of the training."""

from typing import Literal

from cathodeflow.options import Options, option

MatchIntensity = Literal["auto", "never", "always"]


class WindowChanges(Options):
    """Random changes of the training windows."""

    flip: bool = option(True, "Augment with random reflections along rows and columns.")
    brightness: float = option(
        0.1,
        "Augment with random changes of the brightness up to this many standard deviations of the intensity.",
        ge=0,
        le=5,
    )
    contrast: float = option(0.05, "Augment with random changes of the contrast by up to this fraction.", ge=0, lt=1)


class ImageChanges(WindowChanges):
    """Random changes of the training images."""

    noise: float = option(
        0.1,
        "Augment with white noise; its standard deviation is random, up to this fraction of that of the intensity.",
        ge=0,
        le=5,
    )
    blur: float = option(
        0.5, "Augment with Gaussian blur; its standard deviation is random, up to this value.", unit="px", ge=0, le=10
    )
