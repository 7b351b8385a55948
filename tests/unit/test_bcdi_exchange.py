"""Patterns of PyNX, bcdi and cdiutils are read, phased, and written so that these programs read them."""

import h5py
import numpy as np
import pytest

from cathodeflow import bcdi
from cathodeflow.bcdi.exchange_options import Export, ImportPattern
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.rocking import GEOMETRY
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import Pattern, Starts, read_pattern, read_starts, write_pattern, write_starts
from cathodeflow.io.phasing_exchange import read_foreign_pattern
from cathodeflow.io.reconstructions import Reconstruction, read_cxi, write_cxi

SHAPE = (16, 18, 20)


@pytest.fixture(scope="module")
def counts():
    """Diffraction of a box, (intensity, bad pixels)."""
    rng = np.random.default_rng(0)
    box = np.zeros(SHAPE)
    box[5:11, 6:12, 6:13] = 1
    wave = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(box), norm="ortho"))
    return rng.poisson(1000 * np.abs(wave) ** 2).astype(float), rng.random(SHAPE) < 0.02


def npz_pair(folder, intensity, bad):
    """Files of cdiutils and bcdi: the names of the arrays, and 1 at bad pixels."""
    np.savez(folder / "S1_pynx_input_data.npz", data=intensity)
    np.savez(folder / "S1_pynx_input_mask.npz", mask=bad.astype(np.int64))
    return folder / "S1_pynx_input_data.npz", folder / "S1_pynx_input_mask.npz"


def pynx_cxi(path, intensity, bad):
    """File of PyNX, built by hand: data in the detector, soft links in data_1, int8 mask."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 140
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset("data", data=intensity, chunks=True, shuffle=True, compression="gzip")
        detector["mask"] = bad.astype(np.int8)
        data = file.create_group("entry_1/data_1")
        for name in ("data", "mask"):
            data[name] = h5py.SoftLink(f"/entry_1/instrument_1/detector_1/{name}")
    return path


def test_patterns_of_other_programs_are_the_same_pattern(counts, tmp_path):
    intensity, bad = counts
    data, mask = npz_pair(tmp_path, intensity, bad)
    bcdi.import_pattern(data, mask=mask, out=tmp_path / "a.h5", options=ImportPattern(binning=(1, 2, 2)))
    bcdi.import_pattern(pynx_cxi(tmp_path / "p.cxi", intensity, bad), out=tmp_path / "b.h5")
    for name, binning in (("a.h5", (1, 2, 2)), ("b.h5", (1, 1, 1))):
        found = read_pattern(tmp_path / name)
        assert found.binning == binning and (found.mask == ~bad).all()
        assert np.allclose(found.amplitude**2, np.where(bad, 0, intensity), rtol=1e-5)


def test_negative_intensity_and_nan_are_bad_pixels(counts, tmp_path):
    intensity = counts[0].copy()
    intensity[0, 0, 0], intensity[0, 0, 1] = -1e20, np.nan
    np.savez(tmp_path / "d.npz", anything=intensity)
    found = read_foreign_pattern(tmp_path / "d.npz")
    assert np.argwhere(~found.mask).tolist() == [[0, 0, 0], [0, 0, 1]] and not found.amplitude[~found.mask].any()


def test_what_is_no_pattern_is_one_line(counts, tmp_path):
    intensity, bad = counts
    data, mask = npz_pair(tmp_path, intensity, bad)
    np.savez(tmp_path / "two.npz", a=intensity, b=bad)
    np.savez(tmp_path / "flat.npz", data=intensity[0])
    np.savez(tmp_path / "small.npz", mask=bad[:-1])
    np.savez(tmp_path / "all.npz", mask=np.ones(SHAPE))
    np.savez(tmp_path / "objects.npz", data=np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(data.read_bytes()[:200])
    np.save(tmp_path / "one.npy", intensity)
    (tmp_path / "one.npy").rename(tmp_path / "renamed.npz")
    for file, other, said in (
        ("two.npz", None, "an array data"),
        ("flat.npz", None, "intensity"),
        (data, "small.npz", "mask of shape"),
        (data, "all.npz", "every pixel is bad"),
        ("objects.npz", None, "numbers"),
        ("broken.npz", None, "npz"),
        ("renamed.npz", None, "an npz file"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            read_foreign_pattern(tmp_path / file, None if other is None else tmp_path / other)
        assert "\n" not in str(raised.value)
    assert mask.exists()


def test_an_imported_pattern_is_phased_and_the_object_goes_out_again(counts, tmp_path):
    intensity, bad = counts
    data, mask = npz_pair(tmp_path, intensity, bad)
    bcdi.import_pattern(data, mask=mask, out=tmp_path / "p.h5")
    options = Phase(recipe="40*RAAR+10*ER", starts=2, seed=1, threads=1, device="cpu")
    merits = bcdi.phase(tmp_path / "p.h5", out=tmp_path / "o.h5", options=options)
    assert merits["error"] < 0.2
    bcdi.export(tmp_path / "p.h5", objects=tmp_path / "o.h5", out=tmp_path, options=Export(formats=("npz", "cxi")))
    best = np.abs(read_starts(tmp_path / "o.h5").objects[0])
    with np.load(tmp_path / "object.npz") as archive:
        volume, support = archive["obj"], archive["support"]
    read = read_cxi(tmp_path / "object.cxi")
    assert (read.volume == volume).all() and (read.support == (support > 0)).all() and read.frame == "scan"
    # Centred, but the same object: its diffraction is that of the best start up to a shift.
    assert np.sort(np.abs(volume).ravel())[-200:].mean() == pytest.approx(np.sort(best.ravel())[-200:].mean(), rel=0.05)


def test_what_is_written_is_read_back(counts, tmp_path):
    intensity, bad = counts
    pattern = Pattern(np.sqrt(np.where(bad, 0, intensity)).astype(np.float32), ~bad, (3, 2, 1))
    write_pattern(tmp_path / "p.h5", pattern)
    geometry = GEOMETRY._asdict()
    inside = np.zeros(SHAPE, bool)
    inside[4:9, 4:9, 4:9] = True
    write_cxi(tmp_path / "r.cxi", Reconstruction(inside.astype(np.complex64), inside, geometry=geometry))
    written = bcdi.export(
        tmp_path / "p.h5", reconstruction=tmp_path / "r.cxi", out=tmp_path, options=Export(formats=("npz", "cxi"))
    )
    assert written == {"files": 3} and not (tmp_path / "object.npz").exists()
    for found in (
        read_foreign_pattern(tmp_path / "pynx_data.npz", tmp_path / "pynx_mask.npz"),
        read_foreign_pattern(tmp_path / "pattern.cxi"),
    ):
        assert (found.mask == pattern.mask).all() and np.allclose(found.amplitude, pattern.amplitude, rtol=1e-5)
    # As PyNX reads them: SI units, pixels of the binned pattern, 1 at bad pixels.
    with h5py.File(tmp_path / "pattern.cxi") as file:
        instrument = file["entry_1/instrument_1"]
        assert instrument["source_1/energy"][()] == pytest.approx(9e3 * 1.602176634e-19)
        assert instrument["detector_1/y_pixel_size"][()] == pytest.approx(110e-6)
        assert instrument["detector_1/x_pixel_size"][()] == pytest.approx(55e-6)
        assert (file["entry_1/data_1/mask"][()] == bad).all()
    first = (tmp_path / "pynx_data.npz").read_bytes()
    bcdi.export(tmp_path / "p.h5", out=tmp_path, options=Export(formats=("npz",)))
    assert (tmp_path / "pynx_data.npz").read_bytes() == first
    with pytest.raises(InputError, match="--formats"):
        bcdi.export(tmp_path / "p.h5", out=tmp_path)


def test_starts_are_needed_only_for_the_object(tmp_path, counts):
    intensity, bad = counts
    write_pattern(tmp_path / "p.h5", Pattern(np.sqrt(intensity).astype(np.float32), ~bad, (1, 1, 1)))
    box = np.zeros((1, *SHAPE), np.complex64)
    box[:, 5:12, 6:13, 7:14] = 1j
    write_starts(tmp_path / "o.h5", Starts(box, box != 0, np.zeros((1, 1), np.float32), np.zeros(1, np.float32),
                                           np.zeros((1, 3), np.float32), (1, 1, 1)))  # fmt: skip
    bcdi.export(tmp_path / "p.h5", objects=tmp_path / "o.h5", out=tmp_path, options=Export(formats=("npz",)))
    with np.load(tmp_path / "object.npz") as archive:
        assert archive["support"].sum() == 7**3
        assert abs(np.angle(archive["obj"].sum())) < 1e-3
