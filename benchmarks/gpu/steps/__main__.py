"""Run one step: python -m steps NAME --results FILE [--seconds N] [--reduced]."""

import argparse
import importlib
from pathlib import Path


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--reduced", action="store_true")
    given = parser.parse_args()
    # Here, so that processes which the step starts, and which read this module first, do not load torch.
    import torch

    from steps.measuring import Step

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        if not given.reduced:
            parser.error("no graphics card that torch can use; --reduced runs on a CPU")
        # Threads that share cores with others wait for each other; small sizes gain nothing by them.
        torch.set_num_threads(1)
    step = Step(given.name, given.results, device, reduced=given.reduced, seconds=given.seconds)
    importlib.import_module(f"steps.{given.name}").run(step)


if __name__ == "__main__":
    main()
