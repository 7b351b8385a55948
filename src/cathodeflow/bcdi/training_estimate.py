"""How long the phase-retrieval network will be trained, from two epochs on a few volumes of noise."""

import math
from collections.abc import Mapping

import numpy as np

from cathodeflow.bcdi.options import Section
from cathodeflow.bcdi.scans import Scan
from cathodeflow.bcdi.training import train_network
from cathodeflow.learning import resolve_device
from cathodeflow.training_time import Estimate, epoch_time

# Crystals per step that are measured on a CPU; a GPU is faster with full batches.
_CRYSTALS = 4


def estimate(section: Section, samples: Mapping[str, Scan], device: str) -> Estimate | None:
    """Estimate the time of the training; None if no scan needs a network, or one is given."""
    if section.infer.model is not None or not any("refine" in scan.routes for scan in samples.values()):
        return None
    options, size, crystals = section.train, section.simulate.size, section.simulate.crystals
    device = options.device or device
    on_cpu = resolve_device(device).type == "cpu"
    batch = min(options.batch_size, _CRYSTALS) if on_cpu else options.batch_size
    # As many training volumes as fill two batches, beside those that are held out for validation.
    count = math.ceil(2 * batch / (1 - options.validation))
    random = np.random.default_rng(0)
    inside = np.zeros((size,) * 3)
    inside[(slice(size // 4, -size // 4),) * 3] = 1
    objects = (inside * np.exp(1j * random.uniform(-1, 1, (count, size, size, size)))).astype(np.complex64)
    spectra = (np.fft.fftshift(np.fft.fftn(one, norm="ortho")) for one in objects)
    amplitudes = np.stack([np.abs(spectrum) for spectrum in spectra]).astype(np.float32)
    short = options.model_copy(update={"epochs": 2, "batch_size": batch, "patience": None, "device": device})
    seconds = epoch_time(lambda note: train_network(amplitudes, objects, short, on_epoch=note), threads=options.threads)
    what = f"{options.epochs} epochs of {crystals} crystals of {size} x {size} x {size} voxels"
    return Estimate(what, seconds / count * crystals * options.epochs)
