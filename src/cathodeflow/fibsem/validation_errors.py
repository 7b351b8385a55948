"""Segmentation of slices by a method, in whole and in single passes, and the properties that are compared."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.error_options import Compared
from cathodeflow.fibsem.grey_matching import Matching
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.microstructure.compute import compute_properties
from cathodeflow.fibsem.microstructure.property_table import Property, Voxel
from cathodeflow.fibsem.microstructure.transport import transport
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.segmentation import segment
from cathodeflow.seeds import derived_seed

Labels = NDArray[np.uint8]

# Slices that are segmented at a time, and accuracy of the transport solver: errors are known to a few percent only.
_TOGETHER, _CONVERGENCE = 4, 0.02
# Random numbers of single passes differ from those of the segmentation.
_PASS_STREAM = 7919


class Model(NamedTuple):
    """A method with its networks.

    method : Method
    networks, metadata : mapping, of the bundle.
    """

    method: Method
    networks: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def stochastic(self) -> bool:
        """Whether passes differ."""
        return bool(self.networks[self.method.network].stochastic)


def segmented(volume: Any, model: Model, options: Predict, matching: Matching | None = None) -> Labels:
    """Segment slices (slice, row, col) by a method: labels of the same shape. `matching` as for `segment`."""
    found = segment(
        volume, model.method, model.networks, model.metadata, options, matching=matching, together=_TOGETHER
    )  # fmt: skip
    return np.concatenate([part.phases.labels.numpy() for part in found])


def single_passes(
    volume: Any, model: Model, options: Predict, passes: int, matching: Matching | None = None
) -> Iterator[Labels]:
    """Yield segmentations by single stochastic passes; none for a method without dropout."""
    network = model.method.network
    for number in range(passes if model.stochastic else 0):
        seed = derived_seed(model.metadata["seed"][network], _PASS_STREAM, number)
        once = {"passes": {network: 1}, "seed": {network: seed}}
        yield segmented(volume, model._replace(metadata={**model.metadata, **once}), options, matching)


def compared_properties(
    labels: Labels, classes: Sequence[str], voxel: Voxel, options: Compared, *, transport_too: bool = True
) -> list[Property]:
    """Compute the properties of labels (z, y, x) that are compared between segmentations.

    Parameters
    ----------
    labels : (z, y, x) uint8
    classes : sequence of str
    voxel : Voxel
    options : Compared
        `groups` and `transport_phases`.
    transport_too : bool
        Whether transport is computed, which takes by far the longest.
    """
    groups = tuple(name for name in options.groups if name != "transport")
    found = compute_properties(labels, classes, voxel, Properties(groups=groups)) if groups else []
    if "transport" not in options.groups or not transport_too:
        return found
    for name in options.transport_phases or classes[:1]:
        for axis in range(3):
            if labels.shape[axis] > 1:
                mask = labels == list(classes).index(name)
                one = transport(mask, axis, voxel.size, convergence=_CONVERGENCE, solver="compiled")
                found.append(Property("tortuosity_factor", name, axis, one.tortuosity, "1", note=one.note))
                found.append(Property("effective_diffusivity", name, axis, one.diffusivity, "1", note=one.note))
    return found
