"""Options of the network: training, its success, predictions and their refinement."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from cathodeflow.bcdi.phase_options import LIKELIHOOD, Phase, ShrinkWrap, readable
from cathodeflow.bcdi.simulation_options import number_range
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device, TrainingOptions

Architecture = Literal["autophasenn", "candidates", "unrolled"]
Precision = Literal["auto", "bf16-mixed", "32-true"]
Loss = Literal["l1", "pearson", "poisson", "mix"]


class Augment(Options):
    """Augmentation of the training volumes; rotations of a pattern are those of its object."""

    rotate90: bool = option(
        True, "Exchange axes of equal length at random; together with `flip`: all rotations by 90 degrees."
    )
    flip: bool = option(True, "Mirror along each axis at random.")


class Train(TrainingOptions):
    """Simulated crystals -> phase-retrieval network, trained without ground truth unless `supervised` is above 0.

    As published: `architecture: autophasenn`, `loss: l1`, `threshold: [0.1, 0.1]`, `batch_size: 16`,
    `augment: {rotate90: false, flip: false}`.
    """

    renamed: ClassVar[dict[str, str]] = {
        "average": "ema_decay",
        "turns": "augment.rotate90 and augment.flip",
        "least_photons": "min_photon_fraction",
        "readers": "num_workers",
        "mean_share": "mean_fraction",
        "validation_share": "validation",
    }

    architecture: Architecture = option(
        "unrolled",
        "Network: AutoPhaseNN as published (`autophasenn`), several `candidates` per pattern, or these with `unrolled` "
        "corrections by the measured modulus.",
    )
    widths: tuple[int, ...] = option((32, 64, 128, 256), "Channels at each resolution, finest first.", min_length=2)
    candidates: int = option(4, "Candidate objects per pattern; `autophasenn` predicts one.", ge=1)
    stages: int = option(2, "Number of correction stages of `unrolled`.", ge=1)
    initial: InputFile | None = option(
        None, "Pretrained model of the same architecture to start from. Default: random weights."
    )
    loss: Loss = option(
        "mix",
        "Loss between calculated and measured amplitudes: `l1`, `pearson` (1 - correlation), `poisson` "
        "(log-likelihood) or the mean of these three (`mix`).",
    )
    supervised: float = option(
        0.0, "Weight of the supervised loss term, 1 - correlation with the true object.", ge=0, le=1
    )
    mean_fraction: float = option(
        0.05,
        "Weight of the mean over the candidates in the loss; the best candidate has the remaining weight.",
        ge=0,
        le=1,
    )
    threshold: tuple[float, ...] = number_range(
        (0.07, 0.10),
        "Amplitude below which voxels are set to 0, in the first and the last epoch, linear in between; the maximum "
        "amplitude is 1.",
    )
    validation: float = option(0.1, "Fraction of the crystals used for validation.", gt=0, lt=1)
    augment: Augment = option(Augment(), "Augmentation of the training volumes.")
    min_photon_fraction: float = option(
        1.0,
        "Minimum fraction of photons that a training pattern keeps at random, as in a shorter exposure; 1 keeps all.",
        gt=0,
        le=1,
    )
    batch_size: int = option(16, "Crystals per training step.", ge=1)
    warm_up: int = option(
        1, "Warm-up of the cosine schedule: epochs in which the learning rate rises linearly to its peak.", ge=0
    )
    optimizer: Literal["adam", "adamw"] = option("adam", "Optimizer.")
    weight_decay: float = option(0.01, "Weight decay of `adamw`, of all parameters.", ge=0)
    clip_norm: float = option(1.0, "Maximum norm of the gradient.", gt=0)
    num_workers: int = option(2, "Threads that load and augment crystals.", ge=1)
    precision: Precision = option(
        "auto", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    threads: int = option(2, "CPU threads.", ge=1)

    @field_validator("threshold")
    @classmethod
    def _below_one(cls, threshold: tuple[float, ...]) -> tuple[float, ...]:
        if not 0 <= min(threshold) <= max(threshold) < 1:
            raise ValueError("two numbers, at least 0 and below 1")
        return threshold

    @field_validator("widths")
    @classmethod
    def _some_channels(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if min(widths) < 1:
            raise ValueError("numbers of channels, at least 1")
        return widths


class Evaluate(ShrinkWrap):
    """Trained network and unseen crystals -> success rate of phasing from its prediction and from random starts."""

    crystals: int = option(96, "Number of test crystals, none of which is used for training.", ge=2)
    iterations: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (10, 20, 50, 100, 200), "Numbers of iterations; each is a separate trial.", min_length=1
    )
    starts: int = option(
        1, "Random starts per trial, and candidates of the network; the one with the lowest error is scored.", ge=1
    )
    beta: float | None = option(None, "Relaxation of RAAR. Default: 1 minus the relative counting noise.", gt=0, le=1)
    side: int | None = option(
        None, "Side of the central crop that the network is applied to. Default: the whole pattern.", unit="px", ge=16
    )
    success: float = option(0.95, "Correlation with the truth above which a trial is a success.", gt=0, lt=1)
    confidence: float = option(0.95, "Confidence level of the intervals.", gt=0.5, lt=1)
    precision: Precision = option("auto", "Floating-point precision of the network.")
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed of the random starts. Default: the workflow seed.", ge=0)


class Infer(Options):
    """Amplitudes -> candidate objects, predicted by a network."""

    model: InputFile | None = option(None, "Trained model. Default: the model trained in this workflow.")
    side: int | None = option(
        None, "Side of the central crop that the network is applied to. Default: the whole pattern.", unit="px", ge=16
    )
    fine_tune: int = option(
        0, "Training steps on the pattern itself before the prediction; 0 disables fine-tuning.", ge=0
    )
    learning_rate: float = option(1e-4, "Learning rate of the fine-tuning.", gt=0)
    loss: Loss = option("mix", "Loss of the fine-tuning.")
    precision: Precision = option("auto", "Floating-point precision of the network.")
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")


class Refine(ShrinkWrap):
    """Candidate objects and amplitudes -> objects after a few iterations of phase retrieval, the best first."""

    candidates: int = option(4, "Maximum number of candidates that are refined.", ge=1)
    iterations: int = option(50, "Number of iterations: RAAR, and ER for the last fifth (at most 20 iterations).", ge=1)
    recipe: str | None = option(None, "Recipe in place of `iterations`, as in `phase`.")
    beta: float | None = option(
        None,
        "Feedback of HIO and relaxation of RAAR and DM. Default: 1 minus the relative counting noise.",
        gt=0,
        le=1,
    )
    likelihood: Literal["amplitude", "poisson"] = LIKELIHOOD
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")

    @field_validator("recipe")
    @classmethod
    def _readable(cls, recipe: str | None) -> str | None:
        return recipe if recipe is None else readable(recipe)


def phasing_options(options: Evaluate | Refine, **more: Any) -> Phase:
    """Options of the phase retrieval within another stage: the options that both share, and those given here.

    All pixels are phased; none is excluded to rank the starts.
    """
    shared = set(Phase.model_fields) & set(type(options).model_fields)
    return Phase(**options.model_dump(include=shared) | {"free_fraction": 0.0} | more)
