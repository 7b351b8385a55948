"""Commands of the Bragg stages: they read and write, the stages' modules do the work."""

from cathodeflow.bragg.cli.compare import compare
from cathodeflow.bragg.cli.network import locate, train
from cathodeflow.bragg.cli.peaks import find_peaks, fit
from cathodeflow.bragg.cli.prepare import frames, patches, simulate
from cathodeflow.bragg.cli.shared import group

__all__ = ["compare", "find_peaks", "fit", "frames", "group", "locate", "patches", "simulate", "train"]
