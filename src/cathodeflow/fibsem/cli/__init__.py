"""Commands of the FIB-SEM stages: they read and write, the stages' modules do the work."""

from cathodeflow.fibsem.cli.network import predict_global, train_global
from cathodeflow.fibsem.cli.pixels import train_idk, train_local
from cathodeflow.fibsem.cli.predict import predict
from cathodeflow.fibsem.cli.prepare import augment, simulate, volume
from cathodeflow.fibsem.cli.shared import group
from cathodeflow.fibsem.cli.test import metrics, test

__all__ = [
    "augment",
    "group",
    "metrics",
    "predict",
    "predict_global",
    "simulate",
    "test",
    "train_global",
    "train_idk",
    "train_local",
    "volume",
]
