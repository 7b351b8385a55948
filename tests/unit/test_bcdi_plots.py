import base64
import json
import re
import warnings
from html import escape

import matplotlib
import numpy as np
import pandas as pd
import pytest

from cathodeflow.bcdi import plots, surface
from cathodeflow.bcdi.figures_of_merit import success_rates
from cathodeflow.bcdi.network_options import Evaluate
from cathodeflow.bcdi.resolution import Curve
from cathodeflow.errors import InputError
from cathodeflow.io.figures import save_figure

N = 24
Z, Y, X = np.indices((N, N, N)) - N // 2
SUPPORT = (abs(Z) < 4) & (abs(Y) < 6) & (abs(X + 0.3 * Y) < 7)
VOLUME = (SUPPORT * np.exp(1j * (0.2 * Y + 0.03 * X**2))).astype(np.complex64)
STRAIN = np.where(SUPPORT & (abs(Z) < 3), 1e-4 * Y, np.nan).astype(np.float32)
MEASURED = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(VOLUME), norm="ortho"))).round(1)
FREQUENCY = np.arange(1, 13) / 240


def curve(value):
    return Curve(FREQUENCY, np.asarray(value, float), np.full(12, 0.4))


def trials():
    rng = np.random.default_rng(0)
    rows = [
        (start, regime, iterations, 0.99 if rng.random() < chance * iterations / 100 else 0.5)
        for start, chance in (("random", 0.4), ("network", 0.9))
        for regime in ("weak", "strong")
        for iterations in (100, 20)
        for _ in range(16)
    ]
    return pd.DataFrame(rows, columns=["start", "regime", "iterations", "correlation"])


def figures():
    nothing = np.zeros_like(SUPPORT)
    valid = abs(X) > 1
    return {
        "slices": plots.slices_figure(VOLUME, SUPPORT, strain=STRAIN, voxel_nm=(8, 4, 4)),
        "slices without strain and size": plots.slices_figure(VOLUME, SUPPORT),
        "slices without known strain": plots.slices_figure(VOLUME, SUPPORT, strain=np.full(SUPPORT.shape, np.nan)),
        "slices of nothing": plots.slices_figure(VOLUME, nothing),
        "diffraction": plots.diffraction_figure(MEASURED, 1.1 * MEASURED, valid=valid),
        "diffraction of nothing": plots.diffraction_figure(0 * MEASURED, 0 * MEASURED),
        "diffraction of one level": plots.diffraction_figure(0 * MEASURED + 1, 0 * MEASURED + 1),
        "errors": plots.errors_figure([np.geomspace(1, 0.01, 50), np.geomspace(1, 0.1, 30)], best=1),
        "errors above noise": plots.errors_figure([np.geomspace(1, 0.1, 30)], best=0, noise=0.08),
        "errors down to 0": plots.errors_figure([[1, 0.5, 0]]),
        "no errors": plots.errors_figure([[], []]),
        "resolution": plots.resolution_figure({"PRTF": curve(np.linspace(1.1, 0, 12)), "FSC": curve(np.linspace(1, -0.2, 12))}),
        "resolution beyond": plots.resolution_figure({"PRTF": curve(np.ones(12)), "FSC": curve(np.zeros(12))}),
        "no resolution": plots.resolution_figure({}),
        "success": plots.success_figure(success_rates(trials(), Evaluate())),
        "no success": plots.success_figure(success_rates(trials().head(0), Evaluate())),
    }  # fmt: skip


def test_all_figures_are_drawn_without_a_warning(tmp_path):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in figures().items():
            save_figure(tmp_path / f"{name}.png", figure, dpi=60)
            assert (tmp_path / f"{name}.png").stat().st_size > 1000, name
    assert dict(matplotlib.rcParams) == before


def test_slices_are_those_through_the_middle_with_their_axes_up():
    figure = plots.slices_figure(VOLUME, SUPPORT, strain=STRAIN, voxel_nm=(8, 4, 4))
    grid = np.array(figure.axes[:9]).reshape(3, 3)
    # The plate is thinner along z: its slice across y has fewer rows, of twice the size.
    shown = [axes.images[0].get_array() for axes in grid[:, 1]]
    z, y, x = (np.argwhere(SUPPORT)[:, axis] for axis in range(3))
    low = [one.min() - 2 for one in (z, y, x)]
    high = [one.max() + 3 for one in (z, y, x)]
    expected = np.where(SUPPORT, np.angle(VOLUME), np.nan)[N // 2, low[1] : high[1], low[2] : high[2]][::-1]
    np.testing.assert_allclose(shown[0].filled(np.nan), expected, rtol=1e-6)
    assert [one.shape for one in shown] == [tuple(high[i] - low[i] for i in pair) for pair in ((1, 2), (0, 2), (0, 1))]
    assert [axes.get_aspect() for axes in grid[:, 0]] == [1, 2, 2]
    assert [axes.get_ylabel().split()[-1] for axes in grid[:, 0]] == ["12", "12", "12"]
    strain = grid[0, 2].images[0]
    assert strain.get_clim()[0] == -strain.get_clim()[1] and 4e-4 < strain.get_clim()[1] < 6e-4
    assert figure.axes[-1].get_xlabel() == "Strain [$10^{-4}$]"


def test_the_scale_of_the_phase_is_the_circle_where_the_phase_goes_round_it_else_its_own():
    turn = X / 8 * SUPPORT
    for height, colours, ends in ((0.5, "RdBu_r", (-0.5, 0.5)), (np.pi, "twilight_shifted", (-np.pi, np.pi))):
        figure = plots.slices_figure(SUPPORT * np.exp(1j * height * turn), SUPPORT)
        phase = figure.axes[1].images[0]
        assert phase.get_cmap().name == colours
        np.testing.assert_allclose(phase.get_clim(), ends, rtol=0.15)
        assert figure.axes[-1].get_xlabel() == "Phase [rad]"


def test_measured_and_calculated_have_one_scale_and_the_difference_is_in_deviations():
    figure = plots.diffraction_figure(MEASURED, MEASURED + 0.5, valid=abs(X) > 0)
    grid = np.array(figure.axes[:9]).reshape(3, 3)
    assert len({axes.images[0].get_clim() for axes in grid[:, :2].ravel()}) == 1
    difference = grid[0, 2].images[0].get_array()
    assert difference.mask[:, N // 2].all() and not difference.mask[:, : N // 2].any()
    np.testing.assert_allclose(difference.compressed(), 1.0, rtol=1e-5)
    low, high = grid[0, 2].images[0].get_clim()
    assert low == -high and [axes.get_xlabel() for axes in grid[:, 0]] == [
        "detector column [px]",
        "detector column [px]",
        "detector row [px]",
    ]
    np.testing.assert_allclose(grid[0, 0].images[0].get_array()[:, 3].max(), MEASURED[N // 2, :, 3].max() ** 2)


def test_the_kept_start_stands_out():
    axes = plots.errors_figure([[1, 0.2], [1, 0.5], [1, 0.4]], best=1).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["other starts (2)", "kept: start 2"]
    assert axes.lines[-1].get_ydata().tolist() == [1, 0.2] and axes.lines[-1].get_xdata().tolist() == [1, 2]
    assert axes.get_yscale() == "log" and len(axes.lines) == 3
    noisy = plots.errors_figure([[1, 0.5]], noise=0.3).axes[0]
    assert list(noisy.lines[-1].get_ydata()) == [0.3, 0.3]
    assert [text.get_text() for text in noisy.get_legend().get_texts()] == ["starts (1)", "counting noise"]


def test_resolutions_stand_where_curves_cross():
    one = curve(np.linspace(1, 0, 12))
    axes = plots.resolution_figure({"PRTF": one, "FSC": curve(np.ones(12))}).axes[0]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [f"PRTF: {one.resolution_nm:.3g} nm", "FSC: 20 nm or better", "threshold"]
    mark = next(line for line in axes.lines if line.get_marker() == "o")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((1 / one.resolution_nm, 0.4))


def test_successes_are_drawn_by_regime_in_the_order_of_iterations():
    rates = success_rates(trials(), Evaluate())
    figure = plots.success_figure(rates)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "weak strain (16 crystals)",
        "strong strain (16 crystals)",
    ]
    for axes, regime in zip(figure.axes, ("weak", "strong"), strict=True):
        for line, start in zip(axes.lines, ("random", "network"), strict=True):
            one = rates[(rates["regime"] == regime) & (rates["start"] == start)].sort_values("iterations")
            assert line.get_xdata().tolist() == [20, 100]
            assert line.get_ydata() == pytest.approx(100 * one["share"].to_numpy())
        highest = max(part.get_datalim(axes.transData).y1 for part in axes.collections)
        assert highest == pytest.approx(100 * rates.loc[rates["regime"] == regime, "high"].max())


def enclosed(mesh):
    """Volume inside, positive where the faces look outward with x, y, z right-handed."""
    corners = mesh.vertices[:, ::-1][mesh.faces]
    return (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6


@pytest.mark.parametrize("centre", [(12, 12, 12), (11.4, 12.3, 12.7), (3, 12, 20)])
def test_a_ball_has_a_closed_surface_of_its_size(centre):
    distance = np.sqrt(((np.indices((N, N, N)) - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0))
    mesh = surface.isosurface(9 - distance, 1.0)
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}
    assert len(mesh.vertices) - len(edges) // 2 + len(mesh.faces) == 2
    away = np.linalg.norm(mesh.vertices - centre, axis=1)
    inside = np.all((mesh.vertices > 0) & (mesh.vertices < N - 1), axis=1)
    assert abs(away[inside] - 8).max() < 0.25
    if inside.all():
        assert enclosed(mesh) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.02)
    else:
        assert 0 < enclosed(mesh) < 4 / 3 * np.pi * 8**3


def test_quantities_at_the_surface_are_those_of_the_nearest_known_voxels():
    mesh = surface.isosurface(SUPPORT.astype(float), 0.5)
    values = np.where(SUPPORT & (abs(Z) < 3), 2.0 * Y + X, np.nan)
    found = surface.at_vertices(mesh, values)
    y, x = (mesh.vertices - N // 2).T[1:]
    assert abs(found - (2 * np.clip(y, -5, 5) + x)).max() < 2
    assert np.corrcoef(found, 2 * y + x)[0, 1] > 0.99
    # Between angles on both sides of pi there is pi, not 0.
    angles = np.where(X < 0, 3.0, -3.0)
    assert abs(surface.at_vertices(mesh, angles, cyclic=True)).min() > 2.9
    with pytest.raises(InputError, match="values"):
        surface.at_vertices(mesh, np.full(SUPPORT.shape, np.nan))
    with pytest.raises(InputError, match="above the level 2"):
        surface.isosurface(SUPPORT.astype(float), 2)


def test_the_page_holds_all_that_it_draws():
    fields = [("strain along Q", "1", STRAIN), ("displacement", "nm", np.full(STRAIN.shape, np.nan))]
    page = surface.surface_page(VOLUME, SUPPORT, fields, voxel_nm=(8, 4, 2), level=0.5, title="</script> & <b>")
    assert not re.search(r"""(src|href)=|https?:|import |fetch\(""", page)
    assert page.count("</script>") == 1 and "<h1>&lt;/script&gt; &amp; &lt;b&gt;</h1>" in page
    scene = json.loads(re.search(r"const scene = (.*);\n", page)[1])
    assert [one["name"] for one in scene["quantities"]] == ["strain along Q", "phase [rad]"] and scene["unit"] == "nm"

    def numbers(text, kind):
        return np.frombuffer(base64.b64decode(text), kind)

    places = numbers(scene["places"], "<i2").reshape(-1, 3) * scene["radius"] / 32767
    faces = numbers(scene["faces"], "<u4").reshape(-1, 3)
    assert faces.max() == len(places) - 1
    # Along x, y and z, from the outermost voxels to half a voxel further, within the rounding of the corners.
    extent = np.ptp(np.argwhere(SUPPORT), axis=0)[::-1] * [2, 4, 8]
    assert np.ptp(places, axis=0) == pytest.approx(extent + np.array([2, 4, 8]), abs=0.02)
    assert enclosed(surface.Mesh(places[:, ::-1], faces)) == pytest.approx(SUPPORT.sum() * 64, rel=0.1)
    strain, phase = (numbers(one["levels"], "u1").astype(float) for one in scene["quantities"])
    assert len(strain) == len(phase) == len(places) == 3 * len(places) // 3
    assert np.corrcoef(strain, places[:, 1])[0, 1] > 0.98
    assert strain[places[:, 1] > 12].min() > 127.5 > strain[places[:, 1] < -16].max()
    maps = [numbers(one["colours"], "u1").reshape(256, 3).astype(int) for one in scene["quantities"]]
    assert [one.sum(1).argmax() for one in maps] == pytest.approx([128, 128], abs=3)
    # A cyclic map ends as it began.
    assert abs(maps[1][0] - maps[1][-1]).max() < 10 and abs(maps[0][0] - maps[0][-1]).max() > 90
    assert scene["quantities"][1]["ends"] == ["−π", "0", "π"]


@pytest.mark.parametrize("name", ["$SCENE", "$SCRIPT $TITLE", "</script><img src=x onerror=alert(1)>", "<!--<script>"])
def test_names_stay_text_on_the_page(name):
    page = surface.surface_page(VOLUME, SUPPORT, [(name, name, STRAIN)], level=0.5, title=name)
    assert page.count("<script>") == page.count("</script>") == page.count("<h1>") == 1
    assert f"<h1>{escape(name)}</h1>" in page and "<img" not in page and "<!--" not in page
    scene = json.loads(re.search(r"const scene = (.*);\n", page)[1])
    assert scene["quantities"][0]["name"] == f"{name} [{name}]"


def test_the_page_of_a_large_particle_is_small():
    distance = np.sqrt(((np.indices((64, 64, 64)) - 32) ** 2).sum(0))
    page = surface.surface_page(
        np.clip(20.5 - distance, 0, 1).astype(complex), distance < 21, [("strain", "1", distance)], level=0.3
    )
    assert 100_000 < len(page.encode()) < 1_000_000
