"""Stages of the SEM technique: one module each, with the function of the same name."""
