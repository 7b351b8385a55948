"""Commands of the SEM stages: they read and write, the stages' modules do the work."""

from cathodeflow.sem.cli.audit import audit
from cathodeflow.sem.cli.explain import explain
from cathodeflow.sem.cli.network import test, train
from cathodeflow.sem.cli.predict import predict
from cathodeflow.sem.cli.prepare import crops, index, simulate, split
from cathodeflow.sem.cli.shared import group

__all__ = ["audit", "crops", "explain", "group", "index", "predict", "simulate", "split", "test", "train"]
