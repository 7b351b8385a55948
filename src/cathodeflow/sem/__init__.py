"""Composition and state of cathodes from SEM micrographs."""
