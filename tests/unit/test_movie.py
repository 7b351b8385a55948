"""Movies, decoded again: size, number of pictures, and that peaks and crosses are where they should be."""

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from cathodeflow import bragg
from cathodeflow.bragg.movie_marks import FLAGGED, PLAIN, arm_length, track_colours, tracks_of_peaks
from cathodeflow.bragg.movie_pictures import Point, intensity_limits, prepare, scaled
from cathodeflow.errors import InputError
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.peaks import write_peaks
from cathodeflow.io.tables import write_table

SHAPE = (40, 60)
BRIGHT = (12, 45)
FIXED = {"min_counts": 1.0, "max_counts": 1000.0, "height": 480}


def write_scan(folder: Path, n_frames: int, *, row: int, binning: int = 1) -> None:
    """Write a scan with a bright pixel in the last frame, a cross elsewhere in all frames, and a flagged peak."""
    frames = np.full((n_frames, *SHAPE), 1.0)
    frames[-1][BRIGHT] = 1000
    write_frames(folder / "frames.h5", enumerate(frames), shape=SHAPE, binning=binning)
    index = np.repeat(np.arange(n_frames), 2)
    columns = {"persistence": np.full(2 * n_frames, 100.0), "good": np.tile([1, 0], n_frames)}
    at = np.tile([row, 30.0], n_frames), np.tile([20.0, 50.0], n_frames)
    write_peaks(folder / "peaks.h5", index, *at, np.zeros(len(index)), np.ones(len(index)), columns=columns)


def make(folder: Path, scans: dict[str, int], **given: object) -> tuple[dict[str, float], Path]:
    for name, frames in scans.items():
        write_scan(folder / name, frames, row=20)
    out = folder / "movie.mp4"
    options = bragg.Movie(**{**FIXED, **given.pop("options", {})})
    paths = {kind: [folder / name / f"{kind}.h5" for name in scans] for kind in ("frames", "peaks")}
    return bragg.movie(paths["frames"], peaks=paths["peaks"], out=out, options=options, **given), out


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in file.decode(video=0)]


def place(row: float, col: float, points: int) -> tuple[int, int]:
    """Where a position of the frame is in the picture."""
    given = [Point("a", 0.1, np.nan)] * points
    fixed = prepare(SHAPE, given, (1.0, 1000.0), bragg.Movie(**FIXED), binning=1, tracked=False)
    at = (start + (value + 0.5) * fixed.scale - 0.5 for start, value in ((fixed.top, row), (fixed.left, col)))
    return tuple(round(value) for value in at)


def test_a_movie_decodes_to_its_frames_peaks_and_crosses(tmp_path: Path) -> None:
    tracks = {"sample": ["late", "early"], "track": [7, 8], "first_frame": [0, 0], "last_frame": [9, 9]}
    tracks |= {"row": [20.5, 20.5], "col": [20.0, 20.0]}
    write_table(tmp_path / "tracks.parquet", tracks)
    (tmp_path / "summary.csv").write_text("sample,voltage\nearly,3.7\nlate,4.2\nlate,4.2\n")
    given = {"state_of_charge": [0.9, 0.1], "summary": tmp_path / "summary.csv", "tracks": tmp_path / "tracks.parquet"}
    metrics, out = make(tmp_path, {"late": 3, "early": 2}, **given)
    assert (metrics["pictures"], metrics["scans"]) == (5, 2)
    pictures = decoded(out)
    assert len(pictures) == 5 and {picture.shape for picture in pictures} == {(480, 854, 3)}
    with av.open(str(out)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
    # The bright pixel is white in the last frame of each scan alone, here of the second and fifth picture.
    row, col = place(*BRIGHT, points=2)
    assert [picture[row, col].mean() > 230 for picture in pictures] == [False, True, False, False, True]
    # Ascending charge: the first two pictures are of the scan that was given last, and have the colour of its track.
    row, col = place(20, 20, points=2)
    arm = int(arm_length(100.0, 480 / 720))
    colours = track_colours([8, 8, 7, 7, 7]).astype(int)
    for picture, colour in zip(pictures, colours, strict=True):
        for at in ((row - arm, col), (row + arm, col), (row, col - arm), (row, col + arm)):
            near = picture[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2].reshape(-1, 3)
            assert np.abs(near - colour).max(axis=1).min() < 50, at
    assert np.abs(colours[0] - colours[2]).max() > 120
    # The flagged peak has a square and no cross.
    row, col = place(30, 50, points=2)
    window = pictures[0][row - 20 : row + 21, col - 20 : col + 21].reshape(-1, 3)
    assert (np.abs(window - FLAGGED.astype(int)).max(axis=1) < 90).any()
    assert not (np.abs(window - PLAIN.astype(int)).max(axis=1) < 60).any()
    assert (pictures[0][row, col] < 60).all()


def test_the_same_frames_give_the_same_bytes_and_a_gif_within_its_limits(tmp_path: Path) -> None:
    options = {"frames_per_scan": 4, "gif_frames": 3, "gif_width": 320}
    made = []
    for folder in ("one", "two"):
        metrics, out = make(tmp_path / folder, {"a": 9}, options=options)
        assert metrics["pictures"] == 4 and metrics.figures == [str(out), str(out.with_suffix(".gif"))]
        made.append((out.read_bytes(), out.with_suffix(".gif").read_bytes()))
    assert made[0] == made[1]
    gif = decoded(out.with_suffix(".gif"))
    # Equal pictures are shown once for longer.
    assert 1 < len(gif) <= 3 and gif[0].shape == (180, 320, 3)
    alone, plain = make(tmp_path / "three", {"a": 2}, options={"gif": False})
    assert alone.figures == [str(plain)] and not plain.with_suffix(".gif").exists()


def test_the_order_without_charges_is_the_given_one_and_candidates_are_crosses(tmp_path: Path) -> None:
    for name, n_frames in (("b", 2), ("a", 1)):
        write_scan(tmp_path / name, n_frames, row=20)
        table = {"frame": [0], "row": [20], "col": [20], "persistence": [100.0]}
        write_table(tmp_path / name / "candidates.parquet", table)
    paths = {kind: [tmp_path / name / kind for name in "ba"] for kind in ("frames.h5", "candidates.parquet")}
    options = bragg.Movie(**FIXED, gif=False)
    out = tmp_path / "movie.mp4"
    bragg.movie(paths["frames.h5"], peaks=paths["candidates.parquet"], out=out, options=options)
    row, col = place(20, 20, points=2)
    arm = int(arm_length(100.0, 480 / 720))
    found = [(np.abs(picture[row - arm, col] - PLAIN.astype(int)) < 60).all() for picture in decoded(out)]
    assert found == [True, False, True]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"state_of_charge": [0.1, 0.2]}, "--state-of-charge: found 2 values, expected 1"),
        ({"scan": ["a", "b"]}, "--scan: found 2 values, expected 1"),
        ({"tracks": "none.parquet"}, "none.parquet: found no such file"),
    ],
)
def test_wrong_lists_are_named(tmp_path: Path, change: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        make(tmp_path, {"a": 1}, **change)
    assert not (tmp_path / "movie.mp4").exists()


def test_peaks_of_other_frames_are_refused(tmp_path: Path) -> None:
    write_scan(tmp_path / "a", 2, row=20)
    write_scan(tmp_path / "b", 3, row=20)
    write_scan(tmp_path / "c", 2, row=70)
    for other, line in (("b", "peaks of frame 2, expected peaks of 2 frames"), ("c", "peaks on rows")):
        with pytest.raises(InputError, match=line):
            bragg.movie([tmp_path / "a/frames.h5"], peaks=[tmp_path / other / "peaks.h5"], out=tmp_path / "x.mp4")
    write_scan(tmp_path / "d", 2, row=20, binning=2)
    with pytest.raises(InputError, match=r"binning 2, expected frames of .*, binning 1"):
        paths = [[tmp_path / name / f"{kind}.h5" for name in "ad"] for kind in ("frames", "peaks")]
        bragg.movie(paths[0], peaks=paths[1], out=tmp_path / "x.mp4")


def test_peaks_have_the_track_of_the_nearest_spot_of_their_frame() -> None:
    spots = pd.DataFrame(
        {"track": [1, 2, 3], "first_frame": [0, 0, 5], "last_frame": [3, 3, 6], "row": [10.0, 12, 10], "col": [5.0] * 3}
    )
    found = tracks_of_peaks([10.2, 11.4, 40.0], [5.0, 5.0, 5.0], 2, spots, max_distance=3.0)
    assert found.tolist() == [1, 2, -1]
    assert tracks_of_peaks([10.2], [5.0], 5, spots, max_distance=3.0).tolist() == [3]


def test_no_narrow_peak_is_lost_when_frames_are_reduced() -> None:
    frame = np.zeros((100, 70))
    frame[41, 33] = 9
    small = scaled(frame, (30, 21))
    assert small.max() == 9 and np.count_nonzero(small) == 1
    assert np.argwhere(small)[0].tolist() == [int(41.5 * 0.3), int(33.5 * 0.3)]
    large = scaled(frame, (250, 175))
    rows, cols = np.nonzero(large)
    assert abs(rows.mean() - (41.5 * 2.5 - 0.5)) < 1 and abs(cols.mean() - (33.5 * 2.5 - 0.5)) < 1


def test_the_colour_scale_suits_frames_without_counts() -> None:
    options = bragg.Movie()
    for frames in ([np.zeros((4, 4))], [np.full((4, 4), 7.0)], []):
        low, high = intensity_limits(frames, options)
        assert 0 < low < high
    assert intensity_limits([np.full((4, 4), 7.0)], bragg.Movie(max_counts=50.0))[1] == 50
