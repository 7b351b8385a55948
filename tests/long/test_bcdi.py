"""Coherent diffraction: the demo as it is, with a network that is worth its training."""

import json
import math
from pathlib import Path

import pandas as pd

from ..conftest import run_snakemake

NETWORK = "results/bcdi/model"
