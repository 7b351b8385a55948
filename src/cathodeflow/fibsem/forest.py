"""Random forest on Gaussian derivatives, as ilastik and Weka users have it; applied and stored like the networks."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.forest_features import gaussian_features, n_features
from cathodeflow.fibsem.global_network import GlobalNetwork

if TYPE_CHECKING:
    from cathodeflow.fibsem.network_options import TrainGlobal

# Lowest probability, so that logarithms are finite in half precision and the entropy changes by less than 0.01.
_FLOOR = 1e-4
# Pixels that go through all trees at a time.
_TOGETHER = 2**15
# Points of the training curve.
_STEPS = 10


class RandomForest(GlobalNetwork):
    """Random forest (Breiman, Mach. Learn. 45, 5, 2001) on `forest_features.gaussian_features` of normalised slices.

    Its trees are plain arrays, so that model files have no pickled objects, and are applied on the device of the
    slices. Logits are logarithms of the mean probabilities of all trees.

    Parameters
    ----------
    n_classes, context : int
        Of `GlobalNetwork`; each slice has features of its own.
    scales : sequence of float
        Of the features [px].
    n_trees, n_nodes, depth : int
        Trees, nodes of all trees, and splits of the longest path.
    """

    def __init__(
        self, n_classes: int, *, context: int, scales: Sequence[float], n_trees: int, n_nodes: int, depth: int
    ) -> None:
        super().__init__(
            {"n_classes": n_classes, "context": context, "scales": list(scales), "n_trees": n_trees,
             "n_nodes": n_nodes, "depth": depth}
        )  # fmt: skip
        self.register_buffer("roots", torch.zeros(n_trees, dtype=torch.int64))
        self.register_buffer("feature", torch.zeros(n_nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(n_nodes))
        # Children if the feature is above the threshold (0), or not (1); leaves are their own children.
        self.register_buffer("next_node", torch.zeros(n_nodes, 2, dtype=torch.int64))
        self.register_buffer("probability", torch.zeros(n_nodes, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Predict; as `UNet.forward`."""
        with torch.autocast(x.device.type, enabled=False):
            features = gaussian_features(self.prepared(x), self.architecture["scales"])
            n, _, rows, cols = features.shape
            table = features.permute(0, 2, 3, 1).reshape(n * rows * cols, -1)
            found = torch.cat([self.probabilities(part) for part in table.split(_TOGETHER)])
            logits = found.clamp_min(_FLOOR).log()
        return logits.reshape(n, rows, cols, -1).permute(0, 3, 1, 2)

    def probabilities(self, features: Tensor) -> Tensor:
        """Mean class probabilities (pixel, class) of all trees for features (pixel, feature)."""
        total = torch.zeros(len(features), self.architecture["n_classes"], device=features.device)
        for root in self.roots:
            total += self.probability[self._leaves(features, root)]
        return total / len(self.roots)

    def _leaves(self, features: Tensor, root: Tensor) -> Tensor:
        """Leaf (pixel,) of one tree that each pixel ends in."""
        width, values = features.shape[1], features.flatten()
        found = root.repeat(len(features))
        pixels, node = torch.arange(len(features), device=features.device), found
        for _ in range(self.architecture["depth"]):
            below = values[pixels * width + self.feature[node]] <= self.threshold[node]
            node = self.next_node[node, below.long()]
            found[pixels] = node
            # Most paths are much shorter than the longest.
            inner = self.next_node[node, 0] != node
            pixels, node = pixels[inner], node[inner]
        return found


class TrainingPixels(NamedTuple):
    """Features (pixel, feature) float32 and labels (pixel,) of some pixels."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def fit_forest(
    train: Iterator[tuple[Tensor, Tensor]],
    validation: Iterator[tuple[Tensor, Tensor]],
    options: "TrainGlobal",
    *,
    n_train: int,
    n_classes: int,
    unknown: int,
    moments: tuple[float, float],
    weight: Sequence[float] | None = None,
) -> tuple[RandomForest, list[dict[str, float]]]:
    """Train a forest.

    Parameters
    ----------
    train, validation : iterators
        Slices (1, context, row, col) with labels (1, row, col), one by one.
    n_train : int
        Number of the training slices.
    options : TrainGlobal
        `forest`, `context`, `threads` and `seed`; options of gradient descent are not used.
    n_classes, unknown : int
        Labels are 0..n_classes - 1, or `unknown`.
    moments : (float, float)
        Mean and standard deviation of the intensity of the training slices [grey].
    weight : sequence of float, optional
        Weight of the pixels of each class.

    Returns
    -------
    RandomForest
    list of dict
        The loss and accuracy of the first trees, and so on up to all of them, as an epoch each. Training values are
        low: trees memorise their pixels.

    Raises
    ------
    InputError
        No training pixel has a label, or the slices have no contrast.
    """
    # Takes a second to import.
    from sklearn.ensemble import RandomForestClassifier

    chosen, scales = options.forest, options.forest.scales
    empty = RandomForest(n_classes, context=options.context, scales=scales, n_trees=1, n_nodes=1, depth=0)
    empty.set_normalization(*moments)
    rng = np.random.default_rng(options.seed or 0)
    each = min(chosen.pixels_per_image, -(-chosen.pixels // n_train))
    sets = {
        name: _pixels(empty, images, each, unknown, rng)
        for name, images in (("train", train), ("validation", validation))
    }
    if not len(sets["train"].labels):
        raise InputError("training slices", "no labelled pixel", "at least one")
    weights = np.ones(n_classes) if weight is None else np.asarray(weight)
    trees = RandomForestClassifier(
        min_samples_leaf=chosen.min_leaf, max_depth=chosen.max_depth, warm_start=True, n_jobs=options.threads,
        random_state=options.seed or 0,
    )  # fmt: skip
    history: list[dict[str, float]] = []
    totals = {name: np.zeros((len(pixels.labels), n_classes)) for name, pixels in sets.items()}
    steps = sorted({-(-chosen.trees * step // _STEPS) for step in range(1, _STEPS + 1)})
    for epoch, count in enumerate(steps, 1):
        trees.n_estimators = count
        trees.fit(*sets["train"], sample_weight=weights[sets["train"].labels])
        record: dict[str, float] = {"epoch": epoch, "learning_rate": 0.0, "trees": count}
        done = int(history[-1]["trees"]) if history else 0
        for name, pixels in sets.items():
            # One after the other, in this order: sums in parallel differ in the last digit.
            for tree in trees.estimators_[done:] if len(pixels.labels) else ():
                totals[name][:, trees.classes_] += tree.predict_proba(pixels.features)
            scores = _scores(totals[name] / count, pixels.labels, weights)
            record |= {f"{name}_{key}": value for key, value in scores.items()}
        history.append(record)
    forest = as_network(trees, n_classes, context=options.context, scales=scales)
    forest.set_normalization(*moments)
    return forest, history


def as_network(trees: Any, n_classes: int, *, context: int, scales: Sequence[float]) -> RandomForest:
    """Convert a trained forest of scikit-learn, whose classes are some of 0..n_classes - 1."""
    parts = [tree.tree_ for tree in trees.estimators_]
    counts = [part.node_count for part in parts]
    roots = np.cumsum([0, *counts[:-1]])
    depth = max(part.max_depth for part in parts)
    forest = RandomForest(
        n_classes, context=context, scales=scales, n_trees=len(parts), n_nodes=sum(counts), depth=depth
    )
    for root, count, part in zip(roots, counts, parts, strict=True):
        own = slice(int(root), int(root + count))
        leaf = part.children_left < 0
        itself = np.arange(count)
        children = [np.where(leaf, itself, side) for side in (part.children_right, part.children_left)]
        # In float32 the largest number up to the threshold sends all float32 features the same way.
        threshold = part.threshold.astype(np.float32)
        threshold = np.where(threshold > part.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        values = np.zeros((count, n_classes))
        values[:, trees.classes_] = part.value[:, 0] / part.value[:, 0].sum(-1, keepdims=True)
        forest.feature[own] = torch.from_numpy(np.where(leaf, 0, part.feature))
        forest.threshold[own] = torch.from_numpy(threshold)
        forest.next_node[own] = torch.from_numpy(root + np.stack(children, -1))
        forest.probability[own] = torch.from_numpy(values)
    forest.roots.copy_(torch.from_numpy(roots))
    return forest.eval()


def _pixels(
    normalised: RandomForest, images: Iterator[tuple[Tensor, Tensor]], count: int, unknown: int,
    rng: np.random.Generator,
) -> TrainingPixels:  # fmt: skip
    """Features and labels of at most `count` labelled pixels of each image, drawn at random."""
    width = n_features(normalised.architecture["context"], normalised.architecture["scales"])
    features, labels = [np.empty((0, width), np.float32)], [np.empty(0, np.int64)]
    for x, y in images:
        flat = y.flatten().numpy()
        known = np.flatnonzero(flat != unknown)
        some = rng.choice(known, min(count, len(known)), replace=False)
        table = gaussian_features(normalised.prepared(x), normalised.architecture["scales"]).flatten(2)[0].T
        features.append(table[torch.from_numpy(some)].numpy())
        labels.append(flat[some].astype(np.int64))
    return TrainingPixels(np.concatenate(features), np.concatenate(labels))


def _scores(
    probability: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, float]:  # fmt: skip
    """Weighted cross-entropy, and accuracy; NaN without pixels."""
    logarithms, target = torch.from_numpy(np.log(probability.clip(_FLOOR))), torch.from_numpy(labels)
    loss = F.nll_loss(logarithms, target, weight=torch.from_numpy(weights))
    return {"loss": float(loss), "accuracy": float((logarithms.argmax(1) == target).float().mean())}
