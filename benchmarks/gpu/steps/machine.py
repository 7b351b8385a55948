"""The first lines of the results: which card, which versions, which commit."""

import datetime
import os
import platform
import subprocess

import torch

from steps.measuring import Step


def run(step: Step) -> None:
    """Write what the figures were measured on."""
    form = "reduced form, which only tests the steps: its figures mean nothing" if step.reduced else "figures of a card"
    step.write(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {form}")
    if step.device.type == "cuda":
        card = torch.cuda.get_device_properties(step.device)
        step.write(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors")
    else:
        step.write("no graphics card; everything runs on the CPU")
    step.write(f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    step.write(f"commit {commit.stdout.strip() or 'not known'}")
