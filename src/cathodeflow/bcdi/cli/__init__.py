"""Commands of the stages of coherent diffraction imaging: they read and write, the stages' modules do the work."""

from cathodeflow.bcdi.cli.metrics import metrics
from cathodeflow.bcdi.cli.network import evaluate, infer, train
from cathodeflow.bcdi.cli.phasing import phase, refine
from cathodeflow.bcdi.cli.prepare import prepare
from cathodeflow.bcdi.cli.reconstruct import reconstruct
from cathodeflow.bcdi.cli.shared import group
from cathodeflow.bcdi.cli.simulate import simulate, simulate_scan
from cathodeflow.bcdi.cli.strain import strain

__all__ = [
    "evaluate",
    "group",
    "infer",
    "metrics",
    "phase",
    "prepare",
    "reconstruct",
    "refine",
    "simulate",
    "simulate_scan",
    "strain",
    "train",
]
