"""EfficientNet-B7, the published network for micrographs: crops a second in training and inference."""

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from cathodeflow.sem.model import SemNetwork, build_model
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.training import train_network
from steps.measuring import Step, peak_memory, reset_peak

B7 = "tf_efficientnet_b7"
CLASSES = [f"{composition}_{state}" for composition in range(6) for state in ("pristine", "cycled")]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(step: Step) -> None:
    """Measure bare passes and steps, then a training by the package on crops in memory."""
    name = step.choose(B7, "tf_efficientnet_b0")
    network = build_model(CLASSES, Train(backbone=name, normalization="none"))
    network.to(step.device, memory_format=torch.channels_last)
    for precision in ("bfloat16", "float32"):
        for batch in step.choose((256, 64), (2,)):
            inference(step, network, precision, batch)
        for batch in step.choose((64, 16), (2,)):
            training(step, network, precision, batch)
    del network
    package(step)


def crops_on_card(step: Step, batch: int) -> torch.Tensor:
    """Grey crops (n, 1, 224, 224) in 0..1, as published."""
    side = step.choose(224, 32)
    return torch.rand(batch, 1, side, side, device=step.device)


def label(network: SemNetwork, x: torch.Tensor, what: str) -> str:
    """Name what is measured."""
    return f"{network.architecture['backbone']}, {x.shape[-1]} px, {what}, batch {len(x)}"


def inference(step: Step, network: SemNetwork, precision: str, batch: int) -> None:
    """Crops that lie on the card, to logits."""
    network.eval()
    x = crops_on_card(step, batch)

    def forward() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(step.device.type, TYPES[precision], enabled=precision != "float32"),
        ):
            network(x)

    step.measure(label(network, x, f"inference, {precision}"), forward, batch, "crops")


def training(step: Step, network: SemNetwork, precision: str, batch: int) -> None:
    """Measure steps of Adam on crops that lie on the card."""
    network.train()
    x = crops_on_card(step, batch)
    labels = torch.arange(batch, device=step.device) % len(CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)

    def one() -> None:
        with torch.autocast(step.device.type, TYPES[precision], enabled=precision != "float32"):
            loss = cross_entropy(network(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step.measure(label(network, x, f"training, {precision}"), one, batch, "crops")


def package(step: Step) -> None:
    """Train an epoch as the workflow does, with augmentation and validation, and say the time it waits for crops."""
    count, side = step.choose((1024, 224), (48, 64))
    backbone = step.choose(B7, "resnet18_half")
    label = f"{backbone}, the workflow's training, {count} crops of {side} px"
    if step.left() <= 0:
        step.write(f"{label}: not reached")
        return
    crops = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    number = np.arange(count)
    table = pd.DataFrame(
        {
            "crop": number,
            "name": [f"image {one // 4}" for one in number],
            "label": [CLASSES[one % len(CLASSES)] for one in number],
            "split": np.where(number // len(CLASSES) % 4 == 3, "validation", "train"),
        }
    )
    reset_peak(step.device)
    options = Train(backbone=backbone, epochs=1, batch_size=step.choose(64, 8), progressive_fraction=0, warm_up=0,
                    seed=0, device=step.device.type)  # fmt: skip
    trained = train_network(crops, table, options, classes=CLASSES)
    step.write(f"{label}: waits for crops {100 * trained.waiting:.2f} % of the time, {peak_memory(step.device)}")
