"""The card that the tests of this folder compare with the CPU."""

import os

import pytest
import torch

#: Set to `cpu`, the tests compare the CPU with itself, which tells whether they run.
CHOICE = "CATHODEFLOW_GPU_TESTS"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The card; without one the test is left out."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get(CHOICE) == "cpu":
        return torch.device("cpu")
    pytest.skip(f"no graphics card that torch can use; {CHOICE}=cpu compares the CPU with itself")


@pytest.fixture(autouse=True)
def exact():
    """Multiply in float32, not in tf32 with its 10 bits, so that tolerances tell errors from rounding."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        yield
        torch.backends.cuda.matmul.allow_tf32 = before
