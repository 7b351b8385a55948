"""Bragg coherent diffraction imaging: three-dimensional images of single particles."""
