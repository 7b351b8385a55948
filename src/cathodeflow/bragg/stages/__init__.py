"""Stages of the Bragg technique: one module each, with the function of the same name."""
