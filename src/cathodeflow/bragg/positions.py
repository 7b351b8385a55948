"""Inference with BraggNN: on a GPU with torch, on CPUs with onnxruntime."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.model import BraggNN
from cathodeflow.bragg.options import Locate
from cathodeflow.bragg.training_patches import Float32, prepare_patches
from cathodeflow.bragg.uncertainty import counting_errors
from cathodeflow.errors import InputError

Floats = NDArray[np.floating]
_GPU_BATCH = 4096
_TOGETHER = 8192


class Located(NamedTuple):
    """Positions of peaks [px]; row_std, col_std are their standard errors from counting noise, or None.

    All are (n,); float32 in a patch, float64 in a frame, where float32 would round at 1e-4 px.
    """

    row: Floats
    col: Floats
    row_std: Floats | None = None
    col_std: Floats | None = None


class Locator(Protocol):
    """Function that locates the peaks of prepared patches."""

    def __call__(self, patches: Float32, counts: Float32 | None = None) -> Located:
        """Locate peaks.

        Parameters
        ----------
        patches : (n, patch_size, patch_size) float32
        counts : (n, 2) float32, optional
            Intensities that 0 and 1 correspond to in each patch [counts] (`training_patches.prepare_patches`);
            needed for standard errors.

        Returns
        -------
        Located
            In patch pixels.
        """


def build_locator(model: BraggNN, options: Locate, *, workers: int | None = None) -> Locator:
    """Build the function that locates the peaks of prepared patches.

    Parameters
    ----------
    model : BraggNN
    options : Locate
        Both engines agree within rounding (1e-4 px).
    workers : int, optional
        Threads of onnxruntime. Default: one per available core. The result does not depend on it.

    Returns
    -------
    Locator

    Raises
    ------
    InputError
        A GPU is requested and none is available.
    """
    device, batch_size = options.device or "auto", options.batch_size
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError("device", f"{device}, but no GPU that torch can use", "cpu or auto")
    size = batch_size if device == "cpu" else _GPU_BATCH
    if options.engine == "torch" or (options.engine == "auto" and device != "cpu"):
        run = _torch_runner(model, torch.device(device), size)
    else:
        run = _onnx_runner(model, batch_size, workers or len(os.sched_getaffinity(0)))

    def locator(patches: Float32, counts: Float32 | None = None) -> Located:
        inputs = np.ascontiguousarray(patches, dtype=np.float32)
        if len(inputs) == 0:
            nothing = np.empty(0, np.float32)
            return Located(nothing, nothing, nothing, nothing) if options.uncertainty else Located(nothing, nothing)
        if options.tta:
            row, col = _over_turns(lambda turned: run(turned) * np.float32(model.patch_size), inputs)
        else:
            col, row = (run(inputs) * np.float32(model.patch_size)).T
        if not options.uncertainty:
            return Located(row, col)
        if counts is None:
            raise ValueError("standard errors need the patches' counts")
        return Located(row, col, *counting_errors(model, inputs, counts, gain=options.gain, batch_size=size))

    return locator


def locate_frames(
    frames: Iterable[tuple[Floats, ArrayLike, ArrayLike]], locator: Locator, *, patch_size: int, min_value: float
) -> Located:
    """Locate the peaks around candidate pixels of many frames.

    The patches of several frames form one batch; only one frame is in memory at a time.

    Parameters
    ----------
    frames : iterable of (frame, rows, cols)
        A frame (row, col) and its candidate pixels, (n,) int each, inside the frame.
    locator : function
        `build_locator`.
    patch_size : int
        Side of the patches [px], as in training.
    min_value : float
        Threshold of the patches [counts], as in training.

    Returns
    -------
    Located
        Positions of all candidates in the given order, in frame pixels.
    """
    found: list[Located] = []
    corners: list[NDArray[np.float64]] = []
    nothing = np.empty((0, patch_size, patch_size), np.float32), np.empty((0, 2), np.float32)
    waiting = [nothing]

    def locate_waiting() -> None:
        patches, counts = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        found.append(locator(patches, counts))
        del waiting[1:]

    for frame, rows, cols in frames:
        waiting.append(prepare_patches(frame, rows, cols, patch_size=patch_size, min_value=min_value))
        corners.append(np.stack([rows, cols]).astype(np.float64) - patch_size // 2)
        if sum(len(patches) for patches, _ in waiting) >= _TOGETHER:
            locate_waiting()
    locate_waiting()
    corner_row, corner_col = np.concatenate([np.empty((2, 0)), *corners], axis=1)
    row, col, row_std, col_std = (
        None if columns[0] is None else np.concatenate(columns) for columns in zip(*found, strict=True)
    )
    return Located(corner_row + row, corner_col + col, row_std, col_std)


def _over_turns(run: Callable[[Float32], Float32], patches: Float32) -> tuple[Floats, Floats]:
    rows, cols = [], []
    last = patches.shape[1] - 1
    for transpose in (False, True):
        square = patches.transpose(0, 2, 1) if transpose else patches
        for row_step in (1, -1):
            for col_step in (1, -1):
                col, row = run(np.ascontiguousarray(square[:, ::row_step, ::col_step])).T
                row, col = row if row_step == 1 else last - row, col if col_step == 1 else last - col
                rows.append(col if transpose else row)
                cols.append(row if transpose else col)
    return np.mean(rows, 0), np.mean(cols, 0)


def _torch_runner(model: BraggNN, device: torch.device, batch_size: int) -> Callable[[Float32], Float32]:
    model = model.to(device).eval()

    def run(patches: Float32) -> Float32:
        with torch.inference_mode():
            parts = [model(part.to(device)) for part in torch.from_numpy(patches)[:, None].split(batch_size)]
            return cast(Float32, torch.cat(parts).cpu().numpy())

    return run


def _onnx_runner(model: BraggNN, batch_size: int, threads: int) -> Callable[[Float32], Float32]:
    # Not needed on a GPU, and slow to load.
    import onnxruntime

    from cathodeflow.bragg.onnx_graph import onnx_model

    settings = onnxruntime.SessionOptions()
    # Batches run in parallel on single threads, so that none waits for another and results do not depend on `workers`.
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(model).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )

    def run(patches: Float32) -> Float32:
        found = np.empty((len(patches), 2), np.float32)

        def locate_batch(start: int) -> None:
            part = slice(start, start + batch_size)
            found[part] = session.run(None, {"patches": patches[part, None]})[0]

        starts = range(0, len(patches), batch_size)
        if threads == 1 or len(starts) < 2:
            for start in starts:
                locate_batch(start)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(locate_batch, starts))
        return found

    return run
