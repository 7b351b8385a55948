"""Bragg peaks on X-ray detector frames: found, fitted, and located by a network."""
