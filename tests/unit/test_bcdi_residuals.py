"""Residuals far above counting noise are said, and uneven rocking steps cost no correlation."""

import json

import numpy as np
import pytest
import torch

from cathodeflow import bcdi
from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.operators import amplitude
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.rocking_positions import even_scan, regridded
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.io.phasing import Pattern, Starts, write_pattern, write_starts
from cathodeflow.io.reconstructions import Reconstruction, write_cxi

N = 32
FREQUENCIES = np.arange(N) - N // 2


@pytest.fixture(scope="module")
def truth():
    one = crystal(np.random.default_rng(2), size=N, habit="polyhedron", kind="smooth", regime="medium",
                  oversampling=3.0, aspect=1.2, rounding=0.1, correlation=0.4)  # fmt: skip
    true = one.amplitude * np.exp(1j * one.phase)
    return torch.from_numpy(true * (1e7**0.5 / np.linalg.norm(true))).to(torch.complex64)


@pytest.mark.parametrize("right", [True, False])
def test_residuals_far_above_counting_noise_are_in_the_log_and_in_the_record(tmp_path, caplog, truth, right):
    measured = torch.poisson(amplitude(truth).square(), generator=torch.Generator().manual_seed(1)).sqrt()
    # Half of the crystal fits nearly all of the intensity, but not within its noise.
    kept = truth if right else truth * (torch.arange(N) < N // 2 + 2)
    write_pattern(tmp_path / "p.h5", Pattern(measured.numpy(), np.ones(truth.shape, bool), (1, 1, 1)))
    found = Starts(kept[None].numpy(), (kept[None] != 0).numpy(), np.full((1, 1), 0.1, np.float32),
                   np.full(1, np.nan, np.float32), np.zeros((1, 3), np.float32), (1, 1, 1))  # fmt: skip
    write_starts(tmp_path / "o.h5", found)
    write_cxi(tmp_path / "s.cxi", Reconstruction(kept.numpy(), (kept != 0).numpy()))
    merits = bcdi.metrics(
        tmp_path / "p.h5",
        tmp_path / "o.h5",
        tmp_path / "s.cxi",
        out=tmp_path / "m.csv",
        curves=tmp_path / "c.csv",
        record=tmp_path / "m.json",
    )
    kept_texts = json.loads((tmp_path / "m.json").read_text())["job"]["warnings"]
    if right:
        assert merits["chi_square"] < 2 and not kept_texts and not caplog.messages
    else:
        (text,) = kept_texts
        assert text in caplog.messages and f"chi-square {merits['chi_square']:.0f} per pixel" in text


def test_frames_at_uneven_angles_give_the_object_that_even_ones_give(truth):
    planes = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(truth.numpy(), axes=(1, 2)), norm="ortho"), axes=(1, 2))

    def frames(at):
        # The transform along the frames by its definition, at any place.
        waves = np.tensordot(np.exp(-2j * np.pi * np.outer(at - N // 2, FREQUENCIES) / N), planes, 1) / N**0.5
        return np.random.default_rng(0).poisson(np.abs(waves) ** 2).astype(np.float32)

    def correlation(counts, known):
        options = bcdi.Phase(starts=1, seed=0, device="cpu", threads=1)
        found = retrieve(torch.from_numpy(np.sqrt(counts)), options, mask=torch.from_numpy(known))
        return float(against_truth(found.objects, truth, threshold=0.1).correlation[0])

    # Steps of .55 to 1.45 of the mean, as from a motor that accelerates.
    angles = np.concatenate([[0], np.cumsum(np.linspace(0.55, 1.45, N - 1))])
    at = even_scan("scan", {"theta": 20 + 0.01 * angles}).at
    counts, all_known = frames(at), np.ones(truth.shape, bool)
    new, known, figures = regridded(counts, all_known, at)
    assert figures["largest_step"] == pytest.approx(1.45, abs=0.01) and known.all()
    assert correlation(counts, all_known) < 0.8
    assert correlation(new, known) > 0.999
