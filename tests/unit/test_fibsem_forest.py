"""Random forest on Gaussian derivatives: features against SciPy, trees against scikit-learn, and the whole path."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.forest import as_network
from cathodeflow.fibsem.forest_features import PER_SCALE, gaussian_features, n_features
from cathodeflow.fibsem.global_training import LabelledSlices
from tests.unit.test_fibsem_global_training import labelled, train_network
from tests.unit.test_fibsem_unet import predict_slices

FOREST = {"architecture": "forest", "seed": 3}
SMALL_FOREST = {"trees": 20, "pixels_per_image": 300}


def features_of(image, scale):
    found = gaussian_features(torch.from_numpy(image)[None, None], [scale])[0].numpy()
    return dict(zip(("intensity", *PER_SCALE), found, strict=True))


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_features_are_the_derivatives_of_scipy(scale):
    image = np.random.default_rng(0).random((40, 31)).astype(np.float32) + 5

    def filtered(order, x=image):
        return ndimage.gaussian_filter(x, scale, order=order, mode="nearest", truncate=3.0) * scale ** sum(order)

    down2, across2, mixed = (filtered(order).astype(float) for order in ((2, 0), (0, 2), (1, 1)))
    hessian = np.linalg.eigvalsh(np.moveaxis(np.array([[down2, mixed], [mixed, across2]]), (0, 1), (-2, -1)))
    wide = image.astype(float)
    expected = {
        "intensity": image,
        "smoothed": filtered((0, 0)),
        "gradient": np.hypot(filtered((1, 0)), filtered((0, 1))),
        "laplacian": down2 + across2,
        "hessian_low": hessian[..., 0],
        "hessian_high": hessian[..., 1],
        "deviation": np.sqrt(filtered((0, 0), wide**2) - filtered((0, 0), wide) ** 2),
    }
    found = features_of(image, scale)
    for name, values in expected.items():
        # SciPy subtracts the mean of the kernel of the second derivative nowhere; both leave its small sum.
        np.testing.assert_allclose(found[name], values, atol=2e-4, err_msg=name)


def test_features_turn_with_the_slice():
    image = np.random.default_rng(1).random((24, 24)).astype(np.float32)
    turned = features_of(np.rot90(image).copy(), 1.5)
    for name, values in features_of(image, 1.5).items():
        np.testing.assert_allclose(np.rot90(values), turned[name], atol=1e-5, err_msg=name)


def test_trees_predict_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    scales = (1.0, 2.0)
    x = rng.normal(size=(600, n_features(1, scales))).astype(np.float32)
    # Label 1 is absent; many equal values put thresholds between neighbouring floats.
    x[:, 0] = np.round(x[:, 0], 1)
    y = np.where(x[:, 0] + x[:, 3] > 0, 2, 0)
    trees = RandomForestClassifier(20, min_samples_leaf=2, random_state=0).fit(x, y)
    forest = as_network(trees, 3, context=1, scales=scales)
    found = forest.probabilities(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found[:, [0, 2]], trees.predict_proba(x), atol=1e-6)
    assert not found[:, 1].any()


def test_a_forest_is_trained_stored_and_applied_like_a_network(tmp_path):
    train, validation, test = (labelled(seed, context=3) for seed in range(3))
    trained, again = (train_network(train, validation, context=3, forest=SMALL_FOREST, **FOREST) for _ in range(2))
    assert trained.training == again.training
    history = trained.training.history
    assert [record["trees"] for record in history][-1] == 20
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]
    save_bundle(tmp_path / "f.pt", {"network": trained.model}, {})
    read = load_bundle(tmp_path / "f.pt")[0]["network"]
    assert not read.stochastic
    x = test.slices[test.neighbours][:2]
    found = predict_slices(read, x, passes=5)
    assert torch.equal(found.logits, predict_slices(trained.model, x, passes=1).logits)
    assert (found.logits.argmax(1) == test.labels[:2]).float().mean() > 0.8
    assert found.logits.softmax(1).sum(1) == pytest.approx(torch.ones(2, 32, 32), abs=1e-5)


def test_pixels_without_a_label_and_class_weights(tmp_path):
    train, validation = labelled(0), labelled(1)
    hidden = train.labels.clone()
    hidden[:, :, 10:] = 255
    # What is under the hidden pixels does not matter.
    part = LabelledSlices(train.slices, hidden, train.neighbours)
    plain = train_network(part, validation, forest=SMALL_FOREST, **FOREST).model
    weighted = train_network(part, validation, weight=[1.0, 1.0, 20.0], forest=SMALL_FOREST, **FOREST).model
    x = validation.slices[:, None].float()
    shares = [(network(x).argmax(1) == 2).float().mean() for network in (plain, weighted)]
    assert shares[1] > shares[0] + 0.01
