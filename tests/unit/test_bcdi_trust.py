"""How far a reconstruction can be trusted: what is right has a high probability, what is wrong a low one."""

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.breeding import bred
from cathodeflow.bcdi.evidence import alike, evidence, outline
from cathodeflow.bcdi.operators import amplitude
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.search import search
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.bcdi.trust import probability_of_each, probability_right
from cathodeflow.bcdi.uncertainty import redrawn, strain_errors

MASK = torch.ones(32, 32, 32, dtype=torch.bool)


def simulated(kind="smooth", photons=1e7):
    one = crystal(np.random.default_rng(2), size=32, habit="polyhedron", kind=kind, regime="medium", oversampling=3.0,
                  aspect=1.2, rounding=0.1, correlation=0.4)  # fmt: skip
    true = torch.from_numpy(one.amplitude * np.exp(1j * one.phase)).to(torch.complex64)
    true *= photons**0.5 / torch.linalg.vector_norm(true)
    return true, torch.poisson(amplitude(true).square(), generator=torch.Generator().manual_seed(1)).sqrt()


def judged(objects, measured):
    errors = torch.linalg.vector_norm((amplitude(objects) - measured).flatten(1), dim=1) / measured.norm()
    nothing = torch.full((len(objects),), float("nan"))
    return probability_right(evidence(objects, errors, nothing, torch.zeros(len(objects), 3), measured, mask=MASK))


def test_the_truth_is_trusted_and_a_mixture_with_its_twin_is_not():
    true, measured = simulated()
    mixed = 0.7 * (true + true.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2)).conj())
    for objects in (torch.stack([true, true, mixed]), mixed[None], true[None]):
        for one, probability in zip(objects, judged(objects, measured), strict=True):
            assert probability < 0.2 if torch.equal(one, mixed) else probability > 0.8


def test_more_starts_are_phased_only_until_one_is_right():
    _, measured = simulated()
    options = Phase(recipe="40*HIO+10*ER", starts=1, max_starts=3, until=0.001, device="cpu", threads=1)
    assert len(search(measured, options, mask=MASK)[1]) == 1
    found, order = search(measured, options.model_copy(update={"until": 0.9999999}), mask=MASK)
    assert sorted(order) == [0, 1, 2] and len(found.objects) == 3


def test_bred_starts_are_phased_from_what_two_objects_have_in_common():
    true, measured = simulated()
    other = true * (torch.arange(32) < 18)
    moved = 1j * other.flip(0, 1, 2).roll((3, 1, 1), (0, 1, 2)).conj()
    child, own = bred(true, torch.stack([moved, true]))
    assert torch.allclose(own, true, atol=1e-3 * true.abs().max())
    kept = other.abs() > 0.5 * true.abs().max()
    overlap = (child[kept].conj() * true[kept]).sum().abs() / (child[kept].norm() * true[kept].norm())
    assert overlap > 0.9
    assert child[..., 20:].norm() < 0.4 * true[..., 20:].norm()
    # The second round has its first two starts bred, with supports that are looser one after the other.
    options = Phase(recipe="300*ER", starts=2, max_starts=6, until=0.9999999, device="cpu", threads=1)
    found, order = search(measured, options, mask=MASK)
    assert sorted(order) == list(range(6)) and found.errors[:, -1].isfinite().all()
    assert found.errors.isfinite().sum(1).tolist() == [300, 300, 280, 280, 300, 300]
    first, second = found.supports[2:4].sum((1, 2, 3))
    assert found.supports[:2].sum((1, 2, 3)).max() < first < second
    probability = probability_of_each(found, measured, MASK)[order]
    assert (probability[:-1] >= probability[1:] - 0.01).all()


def test_a_worse_start_does_not_enter_the_errors():
    true, _ = simulated()
    assert alike(torch.stack([true, true, true]), torch.tensor([0.1, 0.101, 0.2])) == [0, 1]
    assert outline(true * 0).largest_part == 0 and outline(true.roll(14, 0)) == outline(true)


def test_errors_of_the_strain_grow_as_counts_fall():
    medians = []
    for photons in (1e8, 1e6):
        true, measured = simulated(photons=photons)
        drawn = redrawn(true, measured, torch.zeros(3), Phase(device="cpu"), mask=MASK, count=2, seed=0)
        support = (true.abs() > 0.3 * true.abs().max()).numpy()
        errors = strain_errors(true, true[None], drawn, support, np.eye(3), np.array([0.0, 0.0, 1.0]), erosion=1)
        assert np.isfinite(errors).any() and not np.isfinite(errors[~support]).any()
        medians.append(np.nanmedian(errors))
    # Ten times the noise.
    assert 4 < medians[1] / medians[0] < 25


def test_single_rows_need_no_other_start():
    table = pd.DataFrame([[0.0, 0.0, 0.0, 0.05, 1.3, 1.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.05]])
    from cathodeflow.bcdi.evidence import FEATURES

    table.columns = list(FEATURES)
    assert 0.5 < probability_right(table)[0] <= 1
