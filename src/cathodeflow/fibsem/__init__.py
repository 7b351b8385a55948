"""Phases of electrodes from FIB-SEM slices, with uncertainty."""
