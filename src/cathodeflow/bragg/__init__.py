"""Bragg peaks on X-ray detector frames: find them, fit them, and locate them with a neural network."""

from cathodeflow.stage import exported

__getattr__, __dir__ = exported(__name__)
