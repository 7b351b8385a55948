"""Options of every training; the options class of a technique inherits them and may change defaults."""

from typing import Literal

from cathodeflow.options import Options, option

Device = Literal["auto", "cpu", "cuda"]
OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["cosine", "constant", "cyclic"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class TrainingOptions(Options):
    """Options of `cathodeflow.training.loop.fit`.

    Techniques inherit from it and repeat only fields with other defaults or choices.

    Examples
    --------
    >>> class Train(TrainingOptions):
    ...     epochs: int = option(12, "Maximum number of epochs.", ge=1)
    ...     label_smoothing: float = option(0.05, "Fraction of each label spread over all classes.", ge=0, lt=1)
    >>> options = Train(learning_rate=1e-3)
    >>> options.epochs, options.learning_rate, options.ema_decay
    (12, 0.001, 0.0)
    """

    epochs: int = option(100, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    patience: int | None = option(
        None,
        "Early stopping: epochs without improvement on the validation set. Default: training runs all epochs.",
        ge=1,
    )
    batch_size: int = option(32, "Samples per training step.", ge=1)
    learning_rate: float = option(1e-3, "Peak learning rate.", gt=0)
    schedule: ScheduleName = option(
        "cosine",
        "Learning-rate schedule: `cosine` falls to `final_rate`, `constant` stays at the peak, `cyclic` rises and "
        "falls in triangles of decreasing height. Warm-up precedes `cosine` and `constant`.",
    )
    warm_up: int = option(0, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    final_rate: float = option(
        0.01, "Final learning rate as a fraction of the peak learning rate (cosine schedule).", gt=0, le=1
    )
    optimizer: OptimizerName = option("adam", "Optimizer; `sgd` uses Nesterov momentum of 0.9.")
    weight_decay: float = option(
        0.0, "Weight decay; biases and normalization parameters are exempt. 0 disables it.", ge=0
    )
    clip_norm: float | None = option(None, "Maximum norm of the gradient. Default: gradients are not clipped.", gt=0)
    ema_decay: float = option(
        0.0, "Decay of the exponential moving average (EMA) of the weights; 0 disables it.", ge=0, lt=1
    )
    precision: Precision = option(
        "auto", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(
        None, "Random seed of initial weights, sample order and augmentation. Default: the workflow seed.", ge=0
    )
