"""Image data of battery electrodes, from raw files to measurements."""

__version__ = "0.1.0"
