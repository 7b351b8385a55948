"""Stage: simulate the slices of a volume."""

import logging

import numpy as np

from cathodeflow.errors import InputError
from cathodeflow.fibsem.appearance import render_slice
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import generate
from cathodeflow.io.simulated import write_tiff
from cathodeflow.io.slices import open_stack, read_labels
from cathodeflow.stage import Metrics, OutputFolder, stage

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.simulate")
def simulate(folder: OutputFolder, *, number: int = 0, options: Simulate) -> Metrics:
    """Simulate slices with known labels and write them to FOLDER.

    Parameters
    ----------
    folder : path
        Folder for the images, in `slices` and `labels`.
    number : int
        Number of the volume; each number gives another electrode.

    Raises
    ------
    InputError
        The label volume to render is smaller than the slices.
    """
    shape, seed = (options.n_slices, options.rows, options.cols), (options.seed or 0) + 1000 * number
    if options.labels is None:
        labels = generate(shape, options, seed=seed)
    else:
        read = read_labels(open_stack(options.labels))
        labels = np.stack([image[: shape[1], : shape[2]] for _, image in zip(range(shape[0]), read, strict=False)])
        if labels.shape != shape:
            raise InputError(options.labels, f"labels of {labels.shape}", f"at least {shape} (slice, row, col)")
    slices, label_files = options.files(folder)
    for index in range(shape[0]):
        write_tiff(slices[index], render_slice(labels, index, options, seed=seed))
        write_tiff(label_files[index], labels[index].astype(np.uint8))
    log.info("%d slices of %d x %d pixels", *shape)
    return Metrics({"slices": shape[0]})
