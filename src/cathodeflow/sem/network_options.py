"""Options of the training of the network."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from cathodeflow.options import Options, option
from cathodeflow.sem.robust_options import Robust
from cathodeflow.training.base_options import OptimizerName, TrainingOptions


class Augment(Options):
    """Random changes of training crops."""

    flip: bool = option(True, "Random reflections.")
    rotate90: bool = option(
        True, "Random rotations by 90 degrees. Disable if the scan direction of the microscope shows in the images."
    )
    rotation: float = option(
        0.0, "Maximum angle of an additional random rotation; 0 disables it.", unit="degree", ge=0, le=180
    )
    brightness: float = option(
        0.0, "Maximum change of brightness, as a fraction of the intensity range; 0 disables it.", ge=0, le=1
    )
    contrast: float = option(0.0, "Maximum relative change of contrast; 0 disables it.", ge=0, lt=1)
    gamma: float = option(1.6, "Maximum gamma; the minimum is its reciprocal. 1 disables it.", ge=1, le=5)
    noise: float = option(
        0.0,
        "Maximum standard deviation of added Gaussian noise, as a fraction of the intensity range; 0 disables it.",
        ge=0,
        le=1,
    )
    blur: float = option(1.0, "Maximum standard deviation of a Gaussian blur; 0 disables it.", unit="px", ge=0, le=10)


class Train(TrainingOptions):
    """Crops -> a network that classifies composition and state.

    The defaults are for CPUs and small data sets. As published: `backbone: tf_efficientnet_b7.aa_in1k`,
    `weights: imagenet`, `normalization: none`, all of `augment` disabled, `optimizer: adam`, `learning_rate: 0.0001`,
    `schedule: constant`, `warm_up: 0`, `weight_decay: 0`, `label_smoothing: 0`, `dropout: 0.5`,
    `drop_connect: 0.2`, `batch_size: 4`, `epochs: 40`, `patience: null`, `ema_decay: 0`, `mixup: 0`,
    `progressive_fraction: 0`, with 1600 crops per class of `pixels: null`, `side: 224` and the split `image`:
    `config/sem-paper.yaml`.
    """

    backbone: str = option(
        "resnet18_half", "Name of a timm architecture, or `resnet18_half`: ResNet-18 with half the channels."
    )
    weights: str = option(
        "none",
        "Initial weights: `none` for random ones, a file, or `imagenet` for pretrained weights, from an installed "
        "package (tf_efficientnet_lite0) or from timm.",
    )
    heads: Literal["joint", "axes"] = option(
        "joint", "`joint`: one output per class; `axes`: one output per composition and one per state."
    )
    dropout: float = option(0.1, "Dropout before the last layer.", ge=0, lt=1)
    drop_connect: float = option(
        0.0,
        "Drop-connect (stochastic depth): probability that the last block of a timm network is skipped in training, "
        "falling linearly to 0 at the first one.",
        ge=0,
        lt=1,
    )
    frozen: bool = option(
        False,
        "Train only the last layer, and keep the pretrained weights of all others: for few images; takes "
        "a fifth of the time.",
    )
    normalization: Literal["crop", "histogram", "octaves", "imagenet", "none"] = option(
        "crop",
        "Input normalization. `crop`: each crop to mean 0 and standard deviation 1, which removes brightness and "
        "contrast; `histogram`: each crop to the same histogram, which removes gamma and clipping too; `octaves`: each "
        "octave of spatial frequencies to the same standard deviation, which removes focus and noise level too; "
        "`imagenet`: by mean and standard deviation of ImageNet; `none`: only scaled to 0..1.",
    )
    loss: Literal["cross_entropy", "focal"] = option("cross_entropy", "Loss function.")
    label_smoothing: float = option(0.05, "Fraction of each label spread over all classes.", ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = option(
        "none", "`balanced`: weight classes by the reciprocal of their number of training crops."
    )
    optimizer: OptimizerName = option("adamw", "Optimizer; `sgd` uses Nesterov momentum of 0.9.")
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    weight_decay: float = option(
        0.05, "Weight decay; biases and normalization parameters are exempt. 0 disables it.", ge=0
    )
    warm_up: int = option(1, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    epochs: int = option(12, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    patience: int | None = option(
        16,
        "Early stopping: epochs without improvement on the validation set; null (as a flag: none) runs "
        "all epochs, as published.",
        ge=1,
    )
    monitor: Literal["macro_f1", "loss"] = option(
        "macro_f1", "Validation metric that selects the best epoch and decides early stopping."
    )
    progressive_size: int = option(
        128, "Input size in the first epochs (progressive resizing): windows of the crops.", unit="px", ge=16
    )
    progressive_fraction: float = option(
        0.67, "Fraction of the epochs at the reduced input size; 0 disables progressive resizing.", ge=0, lt=1
    )
    augment: Augment = option(Augment(), "Augmentation.")
    robust: Robust = option(Robust(), "Training for other sessions of the microscope.")
    mixup: float = option(0.2, "Mixup alpha; 0 disables mixup.", ge=0, le=10)
    ema_decay: float = option(
        0.998, "Decay of the exponential moving average (EMA) of the weights; 0 disables it.", ge=0, lt=1
    )
    memory_gb: float = option(
        4.0,
        "Keep the crops in memory if they need less than this; otherwise stream them from disk.",
        unit="GB",
        ge=0,
    )
    threads: int = option(2, "CPU threads; their number changes the last bits of the result.", ge=1)

    renamed: ClassVar[dict[str, str]] = {
        "standardise": "normalization",
        "first_side": "progressive_size",
        "first_share": "progressive_fraction",
        "average": "ema_decay",
        "turn": "augment.rotate90",
        **{
            name: f"augment.{name}" for name in ("flip", "rotation", "brightness", "contrast", "gamma", "noise", "blur")
        },
    }

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.backbone == "resnet18_half" and self.weights == "imagenet":
            raise ValueError("a backbone of timm where weights are imagenet: resnet18_half has none")
        if self.backbone == "resnet18_half" and self.drop_connect:
            raise ValueError("a backbone of timm where there is drop_connect: resnet18_half has none")
        if self.frozen and self.weights == "none":
            raise ValueError("pretrained weights where frozen is set: random ones are of no use")
        if self.robust.group_weight and self.mixup:
            raise ValueError("mixup: 0 where robust.group_weight is set: a mixed crop is of two groups")
        return self
