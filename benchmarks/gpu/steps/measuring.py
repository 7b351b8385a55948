"""What the steps share: their options, the results file, and measurements of rate, memory and waiting."""

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Of the step's time: after it, measurements that have not begun are left out.
_KEPT = 0.9


class Step:
    """A step in progress.

    Attributes
    ----------
    device : torch.device
        The card; a CPU only in reduced form.
    reduced : bool
        Small sizes, to test the step.
    """

    def __init__(self, name: str, results: Path, device: torch.device, *, reduced: bool, seconds: float) -> None:
        self.name, self.results, self.device, self.reduced = name, results, device, reduced
        self._end = time.monotonic() + _KEPT * seconds

    def left(self) -> float:
        """Seconds until the step should end."""
        return self._end - time.monotonic()

    def choose(self, full: Any, small: Any) -> Any:
        """Return the size on a card, or that of the reduced form."""
        return small if self.reduced else full

    def write(self, text: str) -> None:
        """Append a line to the results; it is on the disk when this returns."""
        with self.results.open("a") as file:
            file.write(f"{self.name}: {text}\n")
            file.flush()
            os.fsync(file.fileno())

    def measure(self, label: str, action: Callable[[], Any], items: float, unit: str, *, note: str = "") -> float:
        """Time an action and write its rate, the memory at its peak and the share of time the card waited.

        Parameters
        ----------
        label : str
        action : () -> anything
            What is timed, after one call that warms up.
        items : float
            How many the action works on.
        unit : str
            Of the items.

        Returns
        -------
        float
            Items per second; NaN where there was no time or memory left.
        """
        if self.left() <= 0:
            self.write(f"{label}: not reached")
            return float("nan")
        try:
            reset_peak(self.device)
            seconds = timed(action, self.device, repeats=self.choose(5, 1), most=min(self.left() / 4, 4.0))
            peak = peak_memory(self.device)
            waits = waiting(action, self.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self.write(f"{label}: out of memory")
            return float("nan")
        rate = items / seconds
        self.write(f"{label}: {rate:.4g} {unit}/s, {peak}, {waits}{note}")
        return rate


def synchronize(device: torch.device) -> None:
    """Wait until the card has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(action: Callable[[], Any], device: torch.device, *, repeats: int, most: float = 10.0) -> float:
    """Median time of an action [s], after a call that warms up; fewer repeats where they take longer than `most`."""
    action()
    synchronize(device)
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) + times[-1] < most):
        begin = time.perf_counter()
        action()
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def reset_peak(device: torch.device) -> None:
    """Begin to count the memory at its peak anew; that of a process on a CPU cannot be."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> str:
    """Say the memory at its peak."""
    if device.type == "cuda":
        return f"peak {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of the process"


def waiting(action: Callable[[], Any], device: torch.device) -> str:
    """Say in which share of an action's time nothing ran on the card (in reduced form: no operation on the CPU)."""
    on_card = device.type == "cuda"
    activity, kind = (ProfilerActivity.CUDA, DeviceType.CUDA) if on_card else (ProfilerActivity.CPU, DeviceType.CPU)
    with profile(activities=[activity]) as found:
        begin = time.perf_counter()
        action()
        synchronize(device)
        wall = time.perf_counter() - begin
    events = found.profiler.kineto_results.events()
    spans = [(one.start_ns(), one.start_ns() + one.duration_ns()) for one in events if one.device_type() == kind]
    if not spans:
        return "waiting not known: the profiler saw nothing"
    return f"card waits {100 * max(0.0, 1 - 1e-9 * covered(spans) / wall):.1f} %"


def covered(spans: list[tuple[int, int]]) -> int:
    """Length of the union of spans.

    Examples
    --------
    >>> covered([(0, 3), (2, 5), (7, 8), (7, 8)])
    6
    """
    total, reached = 0, min(start for start, _ in spans)
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
