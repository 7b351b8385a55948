"""Options of methods other than the U-Net."""

from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device


class Forest(Options):
    """Random forest on Gaussian derivatives of the slice (`architecture: forest`)."""

    trees: int = option(60, "Number of trees.", ge=1, le=2000)
    pixels_per_image: int = option(
        2500, "Maximum number of training pixels per image, drawn at random from the labelled ones.", ge=1
    )
    pixels: int = option(50_000, "Maximum number of training pixels of all images together.", ge=1)
    scales: tuple[float, ...] = option(
        (0.7, 1.6, 3.5, 7.0, 14.0), "Standard deviations of the Gaussian filters.", unit="px", min_length=1
    )
    max_depth: int = option(18, "Maximum number of splits from the root of a tree to a leaf.", ge=1, le=100)
    min_leaf: int = option(4, "Minimum number of training pixels per leaf; larger values make smaller files.", ge=1)


class Tables(Options):
    """Figures of merit and models of all runs -> tables of the MatPhase paper."""

    inference_slices: int = option(2, "Test slices on which the inference time of each method is measured.", ge=1)
    threads: int = option(1, "CPU threads for the inference time.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
