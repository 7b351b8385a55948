"""Rocking scans in the formats that beamlines write, and the motors of their SPEC files."""

import h5py
import numpy as np
import pytest
import tifffile

from cathodeflow import bcdi
from cathodeflow.bcdi.beamlines import read_beamline
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.rocking_positions import even_scan, regridded
from cathodeflow.bcdi.scan_geometry import recorded, setting_of
from cathodeflow.errors import InputError
from cathodeflow.io.rocking_scans import read_instrument, read_scan
from cathodeflow.io.scan_logs import read_scan_log
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


def setting(path, number=54, beamline="34-ID-C", **more):
    log = read_scan_log(path, number)
    return setting_of(more, known=recorded(log, read_beamline(beamline)), where=log.where)[0]


def test_the_geometry_is_that_at_the_middle_of_the_scan(tmp_path):
    found = setting(spec(tmp_path, one(positions=(1.0, 1.25, 1.5))))
    assert (found.energy_kev, found.distance_m, found.pixel_um) == (9.0, 0.5, 55.0)
    assert found.angles == {"delta": 32.174, "gamma": 12.6346, "chi": 90.0, "phi": -5.0, "theta": 1.25}
    assert found.steps == {"theta": 0.25}
    other = setting(spec(tmp_path, one(mnemonic="phi", name="Phi", positions=(1.0, 0.5))))
    assert other.steps == {"phi": -0.5} and (other.angles["phi"], other.angles["theta"]) == (0.75, 0.2200042)


def test_a_distance_that_is_given_stands_for_one_that_the_header_has_not(tmp_path):
    path = spec(tmp_path, one(positions=(1.0, 1.25, 1.5)), header=HEADER.replace("camdist", "camdst"))
    assert setting(path) is None
    assert setting(path, distance_m=0.7).distance_m == 0.7


@pytest.mark.parametrize("n_points", [40, 101])
def test_points_of_a_header_are_compared_with_the_frames(tmp_path, scan, n_points):
    np.save(tmp_path / "a.npy", scan)
    path = spec(tmp_path, one(positions=np.linspace(0, 1, n_points)))
    with pytest.raises(InputError, match=f"found {n_points} points, expected 11, one for each frame of the scan"):
        bcdi.prepare(tmp_path / "a.npy", spec=path, scan=54, out=tmp_path / "p.h5", options=Prepare())


FIO = """!
%c
ascan om -0.5 0.5 10 1
%p
om = 18.0
del = 36.0
gam = 0.5
phi = 0
chi = 90
fmbenergy = 9000.0
detector = eiger4m
%d
 Col 1 om DOUBLE
 Col 2 pilatus DOUBLE
"""


def test_a_fio_file_of_p10(tmp_path):
    rows = "".join(f" {angle:.4f} {number}\n" for number, angle in enumerate(np.linspace(17.5, 18.5, 11)))
    (tmp_path / "a.fio").write_text(FIO + rows)
    found = setting(tmp_path / "a.fio", None, "P10", distance_m=1.8)
    assert (found.energy_kev, found.pixel_um) == (9.0, 75.0) and found.steps["om"] == pytest.approx(0.1)
    assert found.angles == pytest.approx({"delta": 36.0, "gamma": 0.5, "phi": 0.0, "chi": 90.0, "om": 18.0})
    (tmp_path / "b.fio").write_text(FIO + rows + " 1\n")
    with pytest.raises(InputError, match=r"b\.fio: found a row of 1 values, expected 2, one for each column"):
        read_scan_log(tmp_path / "b.fio")


def bliss(folder, scan):
    """Write three scans as BLISS does, the frames of each in a file of its own."""
    for number, part in ((1, scan[:3]), (3, scan)):
        with h5py.File(folder / f"mpx_{number}.h5", "w") as file:
            file["entry_0000/instrument/mpx1x4/data"] = part
    with h5py.File(folder / "sample.h5", "w") as file:
        for number, n_frames in ((1, 3), (2, 0), (3, len(scan))):
            group = file.create_group(f"{number}.1")
            for name, value in {"delta": 36.0, "nu": -0.5, "phi": 12.0, "mu": 0.0, "mononrj": 9.0}.items():
                group[f"instrument/positioners/{name}"] = value
            if n_frames:
                link = h5py.ExternalLink(f"mpx_{number}.h5", "/entry_0000/instrument/mpx1x4/data")
                group["measurement/mpx1x4"] = link
                group["instrument/mpx1x4/data"] = link
                group["measurement/eta"] = group["instrument/positioners/eta"] = np.linspace(17.8, 18.2, n_frames)
    return folder / "sample.h5"


def test_a_scan_of_a_bliss_file_is_named_by_its_number(tmp_path, scan):
    path = bliss(tmp_path, scan)
    np.testing.assert_array_equal(read_scan(str(path), number=3), scan)
    found = setting(path, 3, "ID01", distance_m=1.0)
    assert found.energy_kev == 9.0 and found.steps["eta"] == pytest.approx(0.04)
    assert found.angles == pytest.approx({"mu": 0.0, "phi": 12.0, "nu": -0.5, "delta": 36.0, "eta": 18.0})
    with pytest.raises(InputError, match=r"groups 1\.1, 2\.1, 3\.1, expected a scan 4"):
        read_scan_log(path, 4)
    with pytest.raises(InputError, match=r"scan 2\.1: found no frames, expected the frames of one detector"):
        read_scan(str(path), number=2)


def test_files_of_soleil_are_read_by_the_paths_of_their_motors(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["com/scan_data/actuator_1_1"] = np.linspace(0.1, 0.3, 5)
        for name, value in {"ex-mg_phi": 20.0, "ex-dif-gamma": 3.0, "ex-dif-delta": 31.0}.items():
            file[f"com/CRISTAL/i06-c-c07-{name}/position"] = [value]
        file["com/CRISTAL/monochromator/energy"] = [8.5]
    log = read_scan_log(tmp_path / "scan.nxs")
    known = recorded(log, read_beamline("CRISTAL"), n_frames=5, axis="mgomega")
    found = setting_of({"distance_m": 1.2}, known=known)[0]
    assert found.steps["mgomega"] == pytest.approx(0.05) and found.energy_kev == 8.5
    assert found.angles == pytest.approx({"mgphi": 20.0, "gamma": 3.0, "delta": 31.0, "mgomega": 0.2})


def test_energy_and_distance_inside_cxi(tmp_path, scan):
    path = cxi(tmp_path, scan)
    assert read_instrument(str(path)) == {}
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/source_1/energy"] = 9000 * 1.602176634e-19
        file["entry_1/instrument_1/detector_1/distance"] = 0.6
        file["entry_1/instrument_1/detector_1/x_pixel_size"] = 55e-6
    assert read_instrument(str(path)) == pytest.approx({"energy_kev": 9.0, "distance_m": 0.6, "pixel_um": 55.0})


def uneven(n):
    """Growing steps, as of a motor that accelerates: .55 to 1.45 of the mean."""
    return np.concatenate([[0.0], np.cumsum(np.linspace(0.55, 1.45, n - 1))])


def curve(positions):
    """Fringes of a slab of oversampling 3 along a rocking curve, with a phase that makes them asymmetric."""
    inside = np.linspace(-0.5, 0.5, 101)
    wave = np.exp(2j * np.pi * np.outer(positions - 16, inside) / 3 + 3j * inside**3)
    return 1e4 * np.abs(wave.mean(axis=1)) ** 2


def test_uneven_frames_are_interpolated_onto_even_positions():
    positions = uneven(33) * 32 / uneven(33)[-1]
    for sign in (1, -1):
        found = even_scan("scan", {"theta": 10 + sign * 0.01 * positions})
        assert found.positions["theta"] == pytest.approx(10 + sign * 0.01 * np.arange(33))
        frames = curve(positions)[:, None, None].astype(np.float32)
        new, known, figures = regridded(frames, np.ones(frames.shape, bool), found.at)
        true = curve(np.arange(33.0))
        assert known.all() and figures["largest_step"] == pytest.approx(1.45, rel=0.03)
        assert np.abs(new[:, 0, 0] - true).max() < 0.02 * true.max() < 0.1 * np.abs(frames[:, 0, 0] - true).max()


def test_only_what_cannot_be_is_refused():
    positions = np.arange(20.0)
    swapped = positions.copy()
    swapped[[8, 9]] = 9.0, 8.0
    frames = np.arange(20, dtype=np.float32)[:, None, None]
    for given in (swapped, np.r_[positions[:10], positions[9:19]]):
        at = even_scan("scan", {"om": given}).at
        values = np.interp(given, positions, frames[:, 0, 0]).astype(np.float32)[:, None, None]
        new, known, _ = regridded(values, np.ones(values.shape, bool), at)
        np.testing.assert_allclose(new[:, 0, 0], np.linspace(given.min(), given.max(), 20), rtol=1e-5)
        assert known.all()
    gap = np.r_[positions[:8], positions[8:] + 5]
    at = even_scan("scan", {"om": gap}).at
    new, known, figures = regridded(frames, np.ones(frames.shape, bool), at)
    assert figures["frames_in_gaps"] == (~known[:, 0, 0]).sum() >= 3 and not new[~known].any()
    even = {"om": positions, "delta": 2 * positions + 1}
    assert even_scan("scan", even).at is None
    mesh = {"om": np.tile(np.arange(5.0), 4), "phi": np.repeat(np.arange(4.0), 5)}
    for wrong, line in (
        ({"om": np.ones(4)}, "equal positions of om"),
        ({"om": np.array([0, np.nan, 2])}, "not numbers"),
        (mesh, "do not move together, expected a scan along one line"),
    ):
        with pytest.raises(InputError, match=line):
            even_scan("scan", wrong)


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
    ],
)
def test_what_is_missing_is_one_line(tmp_path, content, line):
    (tmp_path / "a.spec").write_text(content)
    with pytest.raises(InputError) as caught:
        read_spec_scan(tmp_path / "a.spec", 54)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.spec: found No such file or directory, expected a SPEC file"):
        read_spec_scan(tmp_path / "none.spec", 54)
