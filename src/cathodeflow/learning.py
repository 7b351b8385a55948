"""Device, precision, threads and memory of networks."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cathodeflow.cluster import Processes, chosen
from cathodeflow.errors import InputError

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def resolve_device(device: str) -> torch.device:
    """Choose between "cpu" and "cuda"; "auto" is CUDA where there is a GPU.

    Raises
    ------
    InputError
        CUDA is requested, but there is no GPU that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "cuda, but no GPU that torch can use", "cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve "auto" to "bf16-mixed" if the hardware supports bfloat16, else to "32-true".

    Raises
    ------
    InputError
        float16 is requested on a CPU.
    """
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("precision", "16-mixed on a CPU", "bf16-mixed, 32-true or auto")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    # Without hardware support, bfloat16 is slower than float32.
    checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
    return "bf16-mixed" if any(check() for check in checks) else "32-true"


def held(tensors: Sequence[Tensor], device: torch.device, *, fraction: float = 0.5) -> list[Tensor]:
    """Copy the data of a training to the device if they need at most this fraction of its free memory.

    Batches are then not copied one by one. On a CPU, if the data do not fit, or if several
    processes train (each has its own GPU, which is not known yet), the tensors are returned unchanged.

    Parameters
    ----------
    tensors : sequence of Tensor
        A tensor that occurs twice is copied once.
    device : torch.device
    fraction : float
        The rest is reserved for the network and its batches.

    Returns
    -------
    list of Tensor
        All on the device, or all unchanged.
    """
    processes = chosen(Processes)
    if device.type != "cuda" or processes.devices * processes.num_nodes > 1:
        return list(tensors)
    different = {id(tensor): tensor for tensor in tensors if tensor.device.type != "cuda"}
    free = torch.cuda.mem_get_info(device)[0]
    if sum(tensor.numel() * tensor.element_size() for tensor in different.values()) > fraction * free:
        return list(tensors)
    copies = {number: tensor.to(device) for number, tensor in different.items()}
    return [copies.get(id(tensor), tensor) for tensor in tensors]


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the CPU threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_memory() -> None:
    """Let glibc keep the memory of freed tensors for later ones.

    By default, the memory of tensors above 32 MB is returned to the system at once and requested again, page by page,
    in every step. Training with such tensors is up to 1.5 times as fast if the memory is kept; the process then holds
    its peak memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
