"""Scanning electron micrographs of cathodes: classify composition and state with a neural network."""

from cathodeflow.stage import exported

__getattr__, __dir__ = exported(__name__)
