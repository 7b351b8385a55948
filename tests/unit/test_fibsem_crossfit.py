import torch

from cathodeflow.fibsem.crossfit import matched_scales


def test_logits_of_all_networks_get_the_scale_of_the_first():
    random = torch.Generator().manual_seed(0)
    logits = {image: torch.randn(1, 3, 20, 30, generator=random) for image in range(40)}
    factors = {"network": 1.0, "fold0": 0.5, "fold1": 2.5}
    asked = []

    def answer(name, image):
        asked.append(image)
        # Constants common to all classes do not change a probability.
        return logits[image] * factors[name] + 7

    scale = matched_scales(answer, list(factors), list(range(40)))
    for name, factor in factors.items():
        assert abs(scale[name] * factor - 1) < 1e-4
    assert len(set(asked)) <= 16 and max(asked) > 30
    assert matched_scales(answer, ["network"], []) == {"network": 1.0}
    assert matched_scales(lambda name, image: torch.zeros(1, 3, 2, 2), ["network", "fold0"], [0])["fold0"] == 1.0
