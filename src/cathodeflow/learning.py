"""Device, arithmetic and threads of networks, as the options name them."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cathodeflow.cluster import Processes, chosen
from cathodeflow.errors import InputError

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def resolve_device(device: str) -> torch.device:
    """Choose between "cpu" and "cuda"; "auto" is CUDA where there is a GPU.

    Raises
    ------
    InputError
        When CUDA is asked for and there is no GPU that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "cuda, but no GPU that torch can use", "cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into "bf16-mixed" where the device computes with bfloat16, else into "32-true".

    Raises
    ------
    InputError
        When float16 is asked for on a CPU.
    """
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("precision", "16-mixed on a CPU", "bf16-mixed, 32-true or auto")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    # Without instructions for it, bfloat16 is slower than float32.
    checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
    return "bf16-mixed" if any(check() for check in checks) else "32-true"


def held(tensors: Sequence[Tensor], device: torch.device, *, fraction: float = 0.5) -> list[Tensor]:
    """Copy the data of a training to the device, where it needs at most this fraction of the memory that is free there.

    Batches are then taken from there and not copied one by one. On a CPU, where they do not fit, or where several
    processes train (each has a GPU of its own, which it does not know yet), tensors stay.

    Parameters
    ----------
    tensors : sequence of Tensor
        A tensor that occurs twice is copied once.
    device : torch.device
    fraction : float
        The rest is left to the network and its batches.

    Returns
    -------
    list of Tensor
        All on the device, or all as they were.
    """
    processes = chosen(Processes)
    if device.type != "cuda" or processes.devices * processes.num_nodes > 1:
        return list(tensors)
    different = {id(one): one for one in tensors if one.device.type != "cuda"}
    free = torch.cuda.mem_get_info(device)[0]
    if sum(one.numel() * one.element_size() for one in different.values()) > fraction * free:
        return list(tensors)
    copies = {number: one.to(device) for number, one in different.items()}
    return [copies.get(id(one), one) for one in tensors]


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads on CPUs, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones, where glibc gives memory.

    By default, tensors above 32 MB are given back to the system at once and come anew, page by page and cleared, in
    every step. A training with such tensors runs up to one and a half times as fast without that; the process holds
    what it held at its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
