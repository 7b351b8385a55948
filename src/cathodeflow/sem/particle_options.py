"""Options of the particles that are outlined and measured in micrographs."""

from cathodeflow.options import Options, option
from cathodeflow.sem.use_options import Reading


class Particles(Reading):
    """Micrographs -> outlines of the particles, their sizes and shapes, and distributions of each class.

    Made for every labelled data set if the configuration has the section `sem.particles`, even an empty one (`{}`).
    The options for reading images apply only to images that are given without a table; a table of images says how they
    are read.
    """

    diameter_um: float | None = option(
        None,
        "Typical diameter of the particles, which sets the scale of smoothing and splitting, for images of known pixel "
        "size. Default: estimated for each class. Set it if particles are divided or joined.",
        unit="um",
        gt=0,
    )
    diameter_px: float | None = option(
        None,
        "Typical diameter of the particles in pixels, for images of unknown pixel size. Default: estimated for each "
        "class.",
        unit="px",
        ge=6,
    )
    smoothing: float = option(
        0.1,
        "Standard deviation of the Gaussian that smooths the texture of the surfaces, as a fraction of the typical "
        "diameter.",
        gt=0,
        le=0.5,
    )
    neck: float = option(
        0.85,
        "Touching particles are divided if the neck between them is narrower than this fraction of the smaller one's "
        "width. Decrease it if particles are divided.",
        gt=0,
        le=1,
    )
    valley: float = option(
        0.6,
        "Depth of a dark line that divides particles, as a fraction of the local standard deviation of the intensity. "
        "Increase it if particles are divided along their texture.",
        gt=0,
    )
    min_size: float = option(0.4, "Minimum diameter of a particle, as a fraction of the typical diameter.", gt=0, lt=1)
    max_size: float = option(4.0, "Maximum diameter of a particle, as a fraction of the typical diameter.", gt=1)
    min_solidity: float = option(
        0.8,
        "Minimum solidity of a particle: its area divided by that of its convex hull. Other regions, such as hidden "
        "particles and clusters, are rejected.",
        gt=0,
        lt=1,
    )
    flat: float = option(
        0.35,
        "Areas with a local contrast below this fraction of the image's median contrast, such as bare foil, are left "
        "out; 0: none.",
        ge=0,
        lt=1,
    )
    resamples: int = option(1000, "Number of bootstrap samples of the images, for the intervals.", ge=100, le=100000)
    confidence: float = option(0.95, "Confidence level of the intervals.", gt=0.5, lt=1)
    threads: int = option(2, "CPU threads, each of which measures an image.", ge=1)
    seed: int | None = option(None, "Random seed of the bootstrap. Default: the workflow seed.", ge=0)


class ParticleFigures(Options):
    """Outlines, sizes and distributions of particles -> two figures."""

    width: int = option(
        14, "Width of the parts of images on the contact sheet, in typical diameters of the particles.", ge=4, le=100
    )
