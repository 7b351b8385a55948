"""Stages of FIB-SEM, one module each."""
