"""Options for training on few labelled slices."""

from cathodeflow.options import option
from cathodeflow.training.base_options import TrainingOptions


class FewLabels(TrainingOptions):
    """Options of global networks for few labelled slices."""

    reduction: int = option(
        1,
        "Factor by which slices are reduced before they enter a network of segmentation-models-pytorch, whose logits "
        "are enlarged again. Increase it if phases are recognised by surroundings larger than `crop` and the field of "
        "view of the network, such as the layers of a coating; structures smaller than this factor are lost.",
        unit="px",
        ge=1,
        le=16,
    )
    few_labels: int = option(
        8,
        "Up to this many labelled slices for training and validation together, every network is also trained without "
        "each of `folds` folds, and `predict.method: auto` chooses by the predictions of all these slices "
        "(cross-validation). 0: always by the validation set alone.",
        ge=0,
    )
