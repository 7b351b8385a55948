"""Stages of the BCDI technique: one module each, with the function of the same name."""
