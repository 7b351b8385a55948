import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cathodeflow.bragg import positions as module
from cathodeflow.bragg.model import BraggNN
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.onnx_graph import onnx_model
from cathodeflow.bragg.positions import build_locator, locate_frames
from cathodeflow.bragg.training_patches import prepare_patches
from cathodeflow.errors import InputError

PLAIN = Locate(uncertainty=False)


def locate(patches, model, counts=None, **options):
    return build_locator(model, Locate(**{"uncertainty": False} | options))(patches, counts)


def random_model(patch_size=11, seed=0):
    random = torch.Generator().manual_seed(seed)
    model = BraggNN(patch_size, (16, 8, 4, 2), generator=random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return model.eval()


def random_patches(count, size=11, seed=0):
    return np.random.default_rng(seed).random((count, size, size), dtype=np.float32)


@pytest.mark.parametrize("patch_size", [7, 11, 15])
def test_both_engines_give_the_network_output_in_pixels(patch_size):
    model, patches = random_model(patch_size), random_patches(150, patch_size)
    with torch.no_grad():
        col, row = model.double()(torch.from_numpy(patches[:, None]).double()).numpy().T * patch_size
    model.float()
    for engine in ("torch", "onnx", "auto"):
        found = locate(patches, model, engine=engine)
        assert found.row.shape == (150,) and found.row_std is None
        np.testing.assert_allclose(found.row, row, atol=1e-4)
        np.testing.assert_allclose(found.col, col, atol=1e-4)
    assert np.ptp(row) > 1e-2 and np.abs(row - col).max() > 1e-2


def test_threads_and_the_other_patches_of_a_batch_do_not_change_a_result():
    model, patches = random_model(), random_patches(300)
    one = build_locator(model, Locate(engine="onnx", uncertainty=False), workers=1)(patches)
    many = build_locator(model, Locate(engine="onnx", uncertainty=False), workers=3)(patches)
    np.testing.assert_array_equal(one.row, many.row)
    alone = locate(patches, model, engine="onnx", batch_size=1)
    np.testing.assert_allclose(alone.row, one.row, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("tta", [False, True])
def test_no_patches_give_no_positions(engine, tta):
    found = locate(random_patches(0), random_model(), engine=engine, tta=tta, uncertainty=tta)
    assert all(column is None or column.shape == (0,) for column in found) and (found.row_std is not None) is tta


def test_the_graph_is_sound_and_knows_the_patch_size():
    graph = onnx_model(random_model(9))
    onnx.checker.check_model(graph, full_check=True)
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == [0, 1, 9, 9]


def test_the_mean_over_turns_turns_with_the_patch():
    model, patches = random_model(), random_patches(40)
    found = locate(patches, model, tta=True)
    turns = {
        "rows reversed": (patches[:, ::-1], 10 - found.row, found.col),
        "cols reversed": (patches[:, :, ::-1], found.row, 10 - found.col),
        "transposed": (patches.transpose(0, 2, 1), found.col, found.row),
    }
    for name, (turned, *expected) in turns.items():
        ours = locate(turned, model, tta=True)
        np.testing.assert_allclose([ours.row, ours.col], expected, atol=1e-4, err_msg=name)
    plain = locate(patches, model)
    assert np.abs(plain.row - found.row).max() > 1e-3


@pytest.mark.parametrize("background", [0.0, 200.0])
def test_standard_errors_are_the_scatter_over_repeated_measurements(background):
    model = random_model()
    random = np.random.default_rng(0)
    r, c = np.mgrid[:11, :11]
    # One brightest and one faintest pixel, so that the scaling of the patch is differentiable.
    mean = 3e5 * np.exp(-((r - 5.2) ** 2 / 3 + (c - 4.7) ** 2 / 5)) + background
    mean[0, 10] *= 0.2
    gain = 2.5
    frames = random.poisson(mean / gain, (1500, 11, 11)) * gain
    prepared = [prepare_patches(frame, [5], [5], patch_size=11, min_value=0) for frame in frames]
    patches, counts = (np.concatenate(parts) for parts in zip(*prepared, strict=True))
    found = locate(patches, model, counts, uncertainty=True, gain=gain)
    assert found.row_std is not None and found.col_std is not None
    assert np.std(found.row) == pytest.approx(np.median(found.row_std), rel=0.08)
    assert np.std(found.col) == pytest.approx(np.median(found.col_std), rel=0.08)


def test_standard_errors_are_those_of_all_derivatives():
    """Independently: the derivatives of the whole computation from counts to position, scaling included."""
    model, gain = random_model(seed=1), 2.5
    r, c = np.mgrid[:11, :11]
    counts = 200 + 5 * random_patches(4, seed=1) + 3000 * np.exp(-((r - 5.2) ** 2 / 3 + (c - 4.7) ** 2 / 5))
    prepared = [prepare_patches(frame, [5], [5], patch_size=11, min_value=0) for frame in counts]
    patches, limits = (np.concatenate(parts) for parts in zip(*prepared, strict=True))
    found = locate(patches, model, limits, uncertainty=True, gain=gain)
    model.double()

    def position(one):
        scaled = (one - one.amin()) / (one.amax() - one.amin())
        return 11 * model(scaled[None, None])[0]

    for number, frame in enumerate(torch.from_numpy(counts)):
        variances = torch.autograd.functional.jacobian(position, frame).square() * gain * frame
        col, row = variances.sum((1, 2)).sqrt().tolist()
        assert (found.row_std[number], found.col_std[number]) == pytest.approx((row, col), rel=1e-3)
        # The lowest and the highest pixel set the scale of all others, and so each matters as much as many.
        for end in (frame.argmin(), frame.argmax()):
            assert (variances.flatten(1)[:, end] > 0.05 * variances.sum((1, 2))).all()


@pytest.mark.parametrize("patch_size", [7, 11, 15])
def test_both_engines_give_the_derivatives(patch_size):
    """The ONNX graph, written by hand, against torch's derivatives in double precision."""
    model, patches = random_model(patch_size, seed=2), random_patches(70, patch_size)
    counts = np.tile(np.array([3, 500], np.float32), (70, 1))
    session = onnxruntime.InferenceSession(onnx_model(model, jacobian=True).SerializeToString())
    position, slopes = session.run(None, {"patches": patches[:, None]})
    exact = torch.from_numpy(patches[:, None]).double()
    model.double()
    gradient = torch.func.vmap(torch.func.jacrev(lambda one: model(one[None])[0]))(exact).detach().numpy()
    np.testing.assert_allclose(position, model(exact).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(slopes, gradient[:, :, 0], atol=2e-6 * np.abs(gradient).max())
    model.float()
    ours, theirs = (locate(patches, model, counts, engine=name, uncertainty=True) for name in ("onnx", "torch"))
    np.testing.assert_allclose(ours.row_std, theirs.row_std, rtol=1e-4)
    np.testing.assert_allclose(ours.col_std, theirs.col_std, rtol=1e-4)


def test_errors_of_averaged_positions_are_those_of_the_average():
    """Independently: finite differences of the averaged position by each pixel."""
    model, (patch,), step = random_model(), random_patches(1), 1e-3
    patch[0, 0], patch[10, 10] = 0, 1
    counts, gain = np.array([[40, 1040]], np.float32), 2.0
    found = locate(patch[None], model, counts, uncertainty=True, tta=True, gain=gain)
    varied = np.repeat(patch[None], 242, 0).reshape(2, 121, 121)
    varied += step * np.stack([np.eye(121), -np.eye(121)]).astype(np.float32)
    # With the limits of the patch moved too, since they scale all its pixels.
    low, high = varied.min(-1, keepdims=True), varied.max(-1, keepdims=True)
    moved = locate(((varied - low) / (high - low)).reshape(-1, 11, 11), model, tta=True)
    for values, error in ((moved.row, found.row_std), (moved.col, found.col_std)):
        up, down = values.astype(float).reshape(2, 121)
        variance = ((up - down) / (2 * step * 1000)) ** 2 * gain * (patch.ravel() * 1000 + 40)
        assert error[0] == pytest.approx(np.sqrt(variance.sum()), rel=0.02)


def test_positions_in_a_frame_follow_the_peak_to_the_corners():
    model = random_model()
    locator = build_locator(model, PLAIN)
    random = np.random.default_rng(0)
    frame = random.poisson(5.0, (40, 50)).astype(np.float32)
    rows, cols = np.array([0, 0, 39, 39, 20]), np.array([0, 49, 0, 49, 20])
    found = locate_frames([(frame, rows, cols)], locator, patch_size=11, min_value=2)
    inside = locator(prepare_patches(frame, rows, cols, patch_size=11, min_value=2)[0])
    np.testing.assert_allclose(found.row, rows - 5 + inside.row, atol=1e-5)
    np.testing.assert_allclose(found.col, cols - 5 + inside.col, atol=1e-5)
    # The same peaks further inside a larger frame of zeros lie as much further.
    larger = np.pad(frame, ((3000, 9), (4000, 9)))
    moved = locate_frames([(larger, rows + 3000, cols + 4000)], locator, patch_size=11, min_value=2)
    np.testing.assert_allclose(moved.row - 3000, found.row, atol=1e-6)
    np.testing.assert_allclose(moved.col - 4000, found.col, atol=1e-6)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_peaks_of_many_frames_come_in_the_order_of_the_candidates(monkeypatch, uncertainty):
    monkeypatch.setattr(module, "_TOGETHER", 10)
    locator = build_locator(random_model(), Locate(uncertainty=uncertainty))
    random = np.random.default_rng(0)
    frames = [
        (random.poisson(5.0, (30, 20)).astype(np.float32), random.integers(0, 30, n), random.integers(0, 20, n))
        for n in (4, 0, 7, 1, 12, 3)
    ]
    together = locate_frames(iter(frames), locator, patch_size=11, min_value=3)
    alone = [locate_frames([frame], locator, patch_size=11, min_value=3) for frame in frames]
    for column, parts in zip(together, zip(*alone, strict=True), strict=True):
        if column is not None:
            np.testing.assert_allclose(column, np.concatenate(parts), atol=1e-5)
    assert len(together.row) == 27 and (together.row_std is not None) is uncertainty
    assert locate_frames([], locator, patch_size=11, min_value=0).row.shape == (0,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(InputError, match="device: found cuda, but no GPU"):
        build_locator(random_model(), Locate(device="cuda"))
