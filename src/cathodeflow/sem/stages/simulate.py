"""Stage: simulate the micrographs of a data set."""

import logging

from cathodeflow.io.simulated import write_micrograph
from cathodeflow.sem.data_sets import simulated_files, unlabelled_files
from cathodeflow.sem.image_options import Simulate
from cathodeflow.sem.simulation import simulate_micrographs, simulate_unlabelled
from cathodeflow.stage import Metrics, OutputFolder, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.simulate")
def simulate(folder: OutputFolder, *, labelled: bool = True, options: Simulate) -> Metrics:
    """Simulate micrographs with sidecar files and write them to FOLDER.

    Parameters
    ----------
    folder : path
        Folder for the images.
    labelled : bool
        Folders of all classes; otherwise one folder of images without labels, every fourth of which belongs to no
        class.
    """
    made = (simulate_micrographs if labelled else simulate_unlabelled)(options)
    # Every image is followed by its sidecar.
    files = (simulated_files if labelled else unlabelled_files)(folder, options)[::2]
    for path, image in zip(files, made, strict=True):
        write_micrograph(path, image.image, sidecar=image.sidecar)
    log.info("%d images simulated", len(files))
    return Metrics({"images": len(files)})
