"""Rocking scans in the formats that beamlines write, and the motors of their SPEC files."""

import h5py
import numpy as np
import pytest
import tifffile

from cathodeflow.bcdi.aps_34idc import geometry_of_34idc
from cathodeflow.errors import InputError
from cathodeflow.io.rocking_scans import read_scan
from cathodeflow.io.spec import read_spec_scan


@pytest.fixture
def scan():
    return np.random.default_rng(3).poisson(30, (11, 6, 9)).astype(np.int32)


def tiffs(folder, scan):
    for number, frame in enumerate(scan):
        tifffile.imwrite(folder / f"scan_{number}.tif", frame)
    return folder


def nexus(folder, scan):
    with h5py.File(folder / "a.nxs", "w") as file:
        file["entry/data/data"] = scan
        file["entry/other"] = scan[0]
    return f"{folder}/a.nxs::/entry/data/data"


def cxi(folder, scan):
    with h5py.File(folder / "a.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = scan
        file["entry_1/instrument_1/detector_1/mask"] = np.zeros(scan.shape[1:], np.uint8)
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    return folder / "a.cxi"


def npy(folder, scan):
    np.save(folder / "a.npy", scan)
    return folder / "a.npy"


@pytest.mark.parametrize("write", [tiffs, nexus, cxi, npy])
def test_every_format_gives_the_frames_in_their_order(tmp_path, scan, write):
    found = read_scan(str(write(tmp_path, scan)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, scan)


@pytest.mark.parametrize("write", [tiffs, nexus, cxi, npy])
def test_one_frame_is_no_scan(tmp_path, scan, write):
    with pytest.raises(InputError, match="found one frame, expected a rocking scan"):
        read_scan(str(write(tmp_path, scan[:1])))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint16, np.int32, np.float32])
def test_gaps_and_dead_pixels_are_not_known(tmp_path, scan, dtype):
    marks = {np.uint32: (2**32 - 1, 2**32 - 2), np.uint16: (65535, 65534)}.get(dtype, (-1, -2))
    frames = scan.astype(np.int64)
    frames[:, 2], frames[:, 4, 5] = marks
    np.save(tmp_path / "a.npy", frames.astype(dtype))
    found = read_scan(str(tmp_path / "a.npy"))
    bad = np.zeros(scan.shape[1:], bool)
    bad[2] = bad[4, 5] = True
    np.testing.assert_array_equal(found, np.where(bad, np.nan, scan))


def test_an_array_in_npz_is_a_scan(tmp_path, scan):
    np.savez(tmp_path / "pynx.npz", data=scan.astype(np.float32), mask=np.zeros(scan.shape))
    np.savez_compressed(tmp_path / "one.npz", anything=scan)
    for name in ("pynx.npz", "one.npz"):
        np.testing.assert_array_equal(read_scan(str(tmp_path / name)), scan)
    np.savez(tmp_path / "two.npz", a=scan, b=scan)
    with pytest.raises(InputError, match="found members a, b, expected one array, or `data`"):
        read_scan(str(tmp_path / "two.npz"))
    np.savez(tmp_path / "words.npz", data=np.array(["a"]))
    with pytest.raises(InputError, match="found an array of shape"):
        read_scan(str(tmp_path / "words.npz"))


def test_small_negative_counts_are_noise_where_they_vary_or_are_not_alone(tmp_path, scan):
    noise = scan.copy()
    noise[:, 0, 0] = -1
    noise[3, 1, 1], noise[5, 2, 2] = -2, -1
    for name, frames in (("varying", noise), ("others", np.where(noise == -2, -3, noise))):
        np.save(tmp_path / f"{name}.npy", frames)
    found = read_scan(str(tmp_path / "varying.npy"))
    assert np.isnan(found[:, 0, 0]).all() and np.isnan(found).sum() == len(scan)
    np.testing.assert_array_equal(read_scan(str(tmp_path / "others.npy")), np.where(noise == -2, -3, noise))


def test_a_mask_for_each_frame_keeps_its_values(tmp_path, scan):
    mask = np.where(scan > 30, 255, 0).astype(np.uint8)
    np.save(tmp_path / "mask.npy", mask)
    np.testing.assert_array_equal(read_scan(str(tmp_path / "mask.npy"), counts=False), mask)


def test_frames_of_different_size_are_named(tmp_path, scan):
    tiffs(tmp_path, scan)
    tifffile.imwrite(tmp_path / "scan_4.tif", scan[4, :5])
    with pytest.raises(InputError, match=r"scan_4\.tif: found int32 of \(5, 9\) pixels, expected int32 of \(6, 9\)"):
        read_scan(str(tmp_path))


HEADER = """#F a.spec
#E 1580609738
#C sixc

#O0 Delta  Theta  Chi  Phi  Gamma
#O1 z-sample  camdist  Energy  Lab X
#o0 del th chi phi gam
#o1 z cam en labx
"""
SCAN = """
#S {number}  ascan  {mnemonic} {command} 0.25
#D Tue Feb 04 12:28:23 2020
#P0 32.174 0.2200042 90 -5 12.6346
#P1 10.2 500 9 0.514
#UIMDET 34idcTIM2:
#UIMR5  150 256 64 128 1
#N 3
#L {name}  H  pm detector
{points}
"""


def spec(folder, *scans, header=HEADER):
    (folder / "a.spec").write_text(header + "".join(scans))
    return folder / "a.spec"


def points(positions):
    return "\n".join(f"{position} -0.23 3" for position in positions)


def one(number=54, mnemonic="th", name="Theta", positions=(-0.28, -0.03, 0.22, 0.47, 0.72)):
    command = f"{positions[0]} {positions[-1]} {len(positions) - 1}" if len(positions) else "0 1 4"
    return SCAN.format(number=number, mnemonic=mnemonic, name=name, command=command, points=points(positions))


def test_a_scan_tells_its_motors_and_the_region_of_the_detector(tmp_path):
    found = read_spec_scan(spec(tmp_path, one(5, positions=(0, 1)), one(54), one(540, positions=(2, 3))), 54)
    assert found.motors["Gamma"] == 12.6346 and found.motors["Lab X"] == 0.514 and found.motors["camdist"] == 500
    assert found.scanned == "Theta" and found.command == "ascan  th -0.28 0.72 4 0.25"
    np.testing.assert_allclose(found.positions, [-0.28, -0.03, 0.22, 0.47, 0.72])
    assert found.detector == "34idcTIM2"
    assert found.region == (slice(64, 192), slice(150, 406))


def test_the_geometry_stands_at_the_middle_of_the_scan(tmp_path):
    found = geometry_of_34idc(read_spec_scan(spec(tmp_path, one(positions=(1.0, 1.25, 1.5))), 54))
    assert (found.energy_kev, found.distance_m, found.pixel_um) == (9.0, 0.5, 55.0)
    assert (found.delta_deg, found.gamma_deg, found.chi_deg, found.phi_deg) == (32.174, 12.6346, 90.0, -5.0)
    assert (found.rocking_axis, found.rocking_step_deg, found.theta_deg) == ("theta", 0.25, 1.25)
    other = read_spec_scan(spec(tmp_path, one(mnemonic="phi", name="Phi", positions=(1.0, 0.5))), 54)
    found = geometry_of_34idc(other)
    assert (found.rocking_axis, found.rocking_step_deg, found.phi_deg, found.theta_deg) == (
        "phi",
        -0.5,
        0.75,
        0.2200042,
    )
    assert found.pixel_um == 55.0


def test_the_header_before_a_scan_counts_and_the_last_scan_of_a_number(tmp_path):
    moved = HEADER.replace("Delta  Theta", "Theta  Delta")
    path = spec(tmp_path, one(1, positions=(0, 1)), moved, one(1, positions=(5, 7)))
    found = read_spec_scan(path, 1)
    assert found.motors["Theta"] == 32.174
    np.testing.assert_array_equal(found.positions, [5, 7])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("text", "found no line #S, expected a SPEC file with scans"),
        (HEADER + one(53), "found no scan 54, expected a scan of the file"),
        (one(54), "found 0 names and 9 positions of motors, expected one position for each name"),
        (HEADER + one(positions=()), "scan 54: found no points, expected a scan with data"),
        (HEADER + one(name="Epoch"), "scan 54: found a scan over Epoch, expected a scan of one motor"),
        (HEADER.replace("Gamma", "gam") + one(), "scan 54: found no motor Gamma, expected the motors of 34-ID-C"),
        (
            HEADER + one(mnemonic="labx", name="Lab X"),
            "found a scan of Lab X, expected a rocking scan of Theta, Chi, Phi",
        ),
        (HEADER + one(positions=(0.1,)), "found one point, expected a rocking scan"),
        (HEADER + one(positions=(0, 1, 2, 10)), "found steps of 1 to 8 degrees, expected even steps"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, content, line):
    (tmp_path / "a.spec").write_text(content)
    with pytest.raises(InputError) as caught:
        geometry_of_34idc(read_spec_scan(tmp_path / "a.spec", 54))
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.spec: found No such file or directory, expected a SPEC file"):
        read_spec_scan(tmp_path / "none.spec", 54)
