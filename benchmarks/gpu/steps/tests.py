"""The tests marked `gpu`: each one's outcome is written as soon as it is known."""

import os
from collections import Counter

import pytest

from steps.measuring import Step


class Outcomes:
    """Plugin of pytest that writes outcomes into the results."""

    def __init__(self, step: Step) -> None:
        self.step, self.counts = step, Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write what was not passed, and count all."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.outcome != "passed":
                reason = str(report.longrepr).strip().splitlines()[-1] if report.longrepr else ""
                self.step.write(f"{report.outcome}: {report.nodeid.split('/')[-1]}: {reason}")
            elif sum(self.counts.values()) % 10 == 0:
                self.write()

    def write(self) -> None:
        """Write how many passed so far."""
        self.step.write(", ".join(f"{count} {outcome}" for outcome, count in sorted(self.counts.items())))


def run(step: Step) -> None:
    """Run the tests on the card; in reduced form on a CPU, some of each kind."""
    outcomes = Outcomes(step)
    if step.device.type == "cpu":
        os.environ["CATHODEFLOW_GPU_TESTS"] = "cpu"
    # The options of pyproject.toml need packages that these tests do not.
    words = ["tests/gpu", "-m", "gpu", "-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider"]
    if step.reduced:
        words += ["-k", "PixelNetwork or repeats_bit or crystals or share_a_card"]
    status = pytest.main(words, plugins=[outcomes])
    outcomes.write()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"pytest ended with {status!r}")
