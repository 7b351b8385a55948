"""Bragg coherent diffraction imaging: 3D shape and strain of a single particle."""

from cathodeflow.stage import exported

__getattr__, __dir__ = exported(__name__)
