"""Published BraggNN weights (not part of this repository) work here, and ours have their names and shapes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.positions import build_locator
from cathodeflow.bragg.training_patches import prepare_patches
from cathodeflow.io.models import load_model

DATA = Path(os.environ.get("CATHODEFLOW_DATA", Path(__file__).parents[3] / "shared" / "data")) / "bragg_upstream"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}; set CATHODEFLOW_DATA")


@pytest.mark.parametrize("name", ["fc16_8_4_2-sz11.pth", "fc16_8_4_2-sz11-aug0.pth"])
def test_published_weights_locate_simulated_peaks(name):
    weights, metadata = load_model(DATA / name)
    ours = BraggNN(11, (16, 8, 4, 2)).state_dict()
    assert {n: w.shape for n, w in weights.items()} == {n: w.shape for n, w in ours.items()}
    assert metadata == {}
    model = from_weights(weights, patch_size=11, where=name)

    random = np.random.default_rng(0)
    count = 300
    rows, cols = 5 + random.uniform(-0.5, 0.5, (2, count))
    r, c = np.mgrid[:11, :11]
    peaks = np.exp(-((r - rows[:, None, None]) ** 2 + (c - cols[:, None, None]) ** 2) / (2 * 1.3**2))
    frames = random.poisson(1000 * peaks).astype(np.float32)
    patches = np.concatenate([prepare_patches(frame, [5], [5], patch_size=11, min_value=20)[0] for frame in frames])
    for engine in ("torch", "onnx"):
        found = build_locator(model, Locate(engine=engine, uncertainty=False))(patches)
        # Their bias on peaks they were not trained for is up to 0.3 px; exchanged axes would correlate with 0.
        assert np.corrcoef(found.row, rows)[0, 1] > 0.9 and np.corrcoef(found.col, cols)[0, 1] > 0.9
        assert np.median(np.hypot(found.row - rows, found.col - cols)) < 0.35
    with torch.no_grad():
        assert abs(float(model(torch.zeros(1, 1, 11, 11)).mean()) - 0.5) < 0.5
