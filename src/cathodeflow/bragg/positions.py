"""Inference with BraggNN and its derivatives: on a GPU with torch, on CPUs with onnxruntime."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.calibration import calibrated
from cathodeflow.bragg.model import BraggNN
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.training_patches import Float32, prepare_patches
from cathodeflow.bragg.uncertainty import counting_errors
from cathodeflow.errors import InputError

Floats = NDArray[np.floating]
# Patches -> (col, row) [px], (n, 2), and, if asked for, their derivatives by the pixels, (n, 2, side, side).
Runner = Callable[[Float32], tuple[Float32, Float32 | None]]
_GPU_BATCH = 4096
_TOGETHER = 8192


class Located(NamedTuple):
    """Positions of peaks [px]; row_std, col_std are their standard errors, or None.

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


def build_locator(
    model: BraggNN, options: Locate, *, workers: int | None = None, errors: Sequence[float] | None = None
) -> Locator:
    """Build the function that locates the peaks of prepared patches.

    Parameters
    ----------
    model : BraggNN
    options : Locate
        Both engines agree within rounding (1e-4 px).
    workers : int, optional
        Threads of onnxruntime. Default: one per available core. The result does not depend on it.
    errors : sequence of float, optional
        Coefficients of the network's standard errors (`calibration.fit_errors`). Default: counting noise alone.

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
    workers = workers or len(os.sched_getaffinity(0))
    if options.engine == "torch" or (options.engine == "auto" and device != "cpu"):
        run, workers = _torch_runner(model, torch.device(device), options.uncertainty), 1
    else:
        run = _onnx_runner(model, options.uncertainty)
    if options.tta:
        run = _over_turns(run)

    def locator(patches: Float32, counts: Float32 | None = None) -> Located:
        if options.uncertainty and counts is None and len(patches):
            raise ValueError("standard errors need the patches' counts")
        inputs = np.ascontiguousarray(patches, dtype=np.float32)
        columns = np.empty((4 if options.uncertainty else 2, len(inputs)), np.float32)

        def locate_batch(start: int) -> None:
            part = slice(start, start + size)
            position, slopes = run(inputs[part])
            columns[1, part], columns[0, part] = position.T
            if slopes is not None and counts is not None:
                noise = np.stack(counting_errors(slopes, inputs[part], counts[part], gain=options.gain))
                if errors is not None:
                    noise = calibrated(errors, inputs[part], counts[part], noise, gain=options.gain)
                columns[2:, part] = noise

        starts = range(0, len(inputs), size)
        if workers == 1 or len(starts) < 2:
            for start in starts:
                locate_batch(start)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(locate_batch, starts))
        return Located(*columns)

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


def _over_turns(run: Runner) -> Runner:
    """Average the positions over the 8 rotations and reflections of each patch, and their derivatives alike."""

    def averaged(patches: Float32) -> tuple[Float32, Float32 | None]:
        positions: list[Float32] = []
        gradients: list[Float32] = []
        last = np.float32(patches.shape[1] - 1)
        for transpose in (False, True):
            square = patches.transpose(0, 2, 1) if transpose else patches
            for row_step in (1, -1):
                for col_step in (1, -1):
                    found, slopes = run(np.ascontiguousarray(square[:, ::row_step, ::col_step]))
                    col, row = found.T
                    row, col = row if row_step == 1 else last - row, col if col_step == 1 else last - col
                    order = (1, 0) if transpose else (0, 1)
                    positions.append(np.stack([(col, row)[axis] for axis in order], 1))
                    if slopes is not None:
                        slopes = slopes[:, :, ::row_step, ::col_step] * _signs(row_step, col_step)
                        gradients.append(slopes[:, order].transpose(0, 1, 3, 2) if transpose else slopes)
        return np.mean(positions, 0), np.mean(gradients, 0) if gradients else None

    return averaged


def _signs(row_step: int, col_step: int) -> Float32:
    return np.array([col_step, row_step], np.float32)[:, None, None]


def _torch_runner(model: BraggNN, device: torch.device, derivatives: bool) -> Runner:
    model = model.to(device).eval()

    def run(patches: Float32) -> tuple[Float32, Float32 | None]:
        inputs = torch.from_numpy(patches[:, None]).to(device).requires_grad_(derivatives)
        with torch.set_grad_enabled(derivatives):
            position = model(inputs) * model.patch_size
            if not derivatives:
                return cast(Float32, position.cpu().numpy()), None
            slopes = [
                torch.autograd.grad(position[:, axis].sum(), inputs, retain_graph=axis == 0)[0] for axis in (0, 1)
            ]
        return cast(Float32, position.detach().cpu().numpy()), cast(Float32, torch.cat(slopes, 1).cpu().numpy())

    return run


def _onnx_runner(model: BraggNN, derivatives: bool) -> Runner:
    # Not needed on a GPU, and slow to load.
    import onnxruntime

    from cathodeflow.bragg.onnx_graph import onnx_model

    settings = onnxruntime.SessionOptions()
    # Batches run in parallel on single threads, so that none waits for another and results do not depend on `workers`.
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(model, jacobian=derivatives).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    side = np.float32(model.patch_size)

    def run(patches: Float32) -> tuple[Float32, Float32 | None]:
        position, *slopes = session.run(None, {"patches": patches[:, None]})
        return position * side, slopes[0] * side if slopes else None

    return run
