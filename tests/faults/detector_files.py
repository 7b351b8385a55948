"""Small good files of the detector formats that fabio reads: by its own writers, or else by the formats' descriptions."""

import base64
import struct
from collections.abc import Callable
from pathlib import Path

import fabio
import fabio.dtrekimage
import fabio.edfimage
import fabio.esperantoimage
import fabio.fit2dmaskimage
import fabio.mar345image
import fabio.marccdimage
import fabio.OXDimage
import fabio.pnmimage
import numpy as np
from fabio.openimage import MAGIC_NUMBERS

FRAME = np.random.default_rng(0).poisson(40, (24, 20)).astype(np.uint16)
SQUARE = np.random.default_rng(1).poisson(40, (256, 256)).astype(np.int32)
Make = Callable[[Path], object]


def _edf(path: Path) -> None:
    image = fabio.edfimage.EdfImage(FRAME)
    image.append_frame(data=FRAME + 1)
    image.write(str(path))


def _ge(path: Path) -> None:
    """Write two frames of 24 x 20 pixels behind the header of GE's description."""
    header = bytearray(8192)
    header[:5] = b"ADEPT"
    struct.pack_into("<HLHLHHHH", header, 10, 1, 8192, 1, 0, 2, 24, 20, 16)
    path.write_bytes(bytes(header) + FRAME.tobytes() * 2)


def _hipic(path: Path) -> None:
    comment = b"[Acquisition],NrExposure=1\r\n\0"
    path.write_bytes(b"IM" + struct.pack("<6H", len(comment), 20, 24, 0, 0, 2) + bytes(50) + comment + FRAME.tobytes())


def _kcd(path: Path) -> None:
    header = "No\nX dimension = 20\nY dimension = 24\nData type = u16\nNumber of readouts = 1\n"
    path.write_bytes(header.encode() + b"\xff\xff" * 60 + b"\n" + FRAME.tobytes())


def _spe(path: Path) -> None:
    header = bytearray(4100)
    struct.pack_into("<H", header, 42, 20)
    struct.pack_into("<H", header, 108, 3)
    struct.pack_into("<H", header, 656, 24)
    struct.pack_into("<i", header, 1446, 2)
    header[:2], header[20:30], header[172:178] = b"\1\1", b"01Jan2020\0", b"120000"
    path.write_bytes(bytes(header) + FRAME.tobytes() * 2)


def _mrc(path: Path) -> None:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 20, 24, 1, 6)
    header[208:212] = b"MAP "
    path.write_bytes(bytes(header) + FRAME.tobytes())


def _mpa(path: Path) -> None:
    lines = ["mpafmt=asc", "[ADC1]", "range=24", "[ADC2]", "range=20", "[DATA0,480 ]", "[CDAT0,480 ]"]
    path.write_text("\n".join([*lines, *map(str, FRAME.ravel())]) + "\n")


def _spreadsheet(path: Path) -> None:
    path.write_text("# a comment\n20 24\n" + "\n".join(" ".join(map(str, row)) for row in FRAME) + "\n")


def _xsd(path: Path) -> None:
    content = base64.b64encode(FRAME.tobytes()).decode()
    shape = "<shape>20</shape><shape>24</shape><size>480</size>"
    form = "<dtype>uint16</dtype><coding><value>base64</value></coding>"
    path.write_text(f"<XSDataImage>{shape}{form}<data>{content}</data></XSDataImage>")


def _bruker(path: Path, version: int) -> None:
    """Write the header of 80 bytes a key and the frame; `NOVERFL` pixels of more than a byte there are not."""
    pairs = {
        "FORMAT": version, "VERSION": 9, "HDRBLKS": 15, "NROWS": 24, "NCOLS": 20, "NPIXELB": 1, "NOVERFL": "0",
        "LINEAR": "1 0", "NEXP": "1 0 0 0 0", "DETTYPE": "MULTIWIRE", "WORDORD": 0, "LONGORD": 0,
    }  # fmt: skip
    if version == 100:
        pairs |= {"NPIXELB": "1 1", "NOVERFL": "0 0 0", "NCOLS": "20 1", "NROWS": "24 1"}
    lines = [f"{name:<7}:{value:>10}".ljust(80) for name, value in pairs.items()]
    path.write_bytes("".join(lines).ljust(15 * 512).encode() + FRAME.astype(np.uint8).tobytes())


def _mar345(path: Path) -> None:
    image = fabio.mar345image.Mar345Image(SQUARE)
    image.byteorder = "<"
    image.write(str(path))


def _noise(magic: bytes) -> Make:
    rest = np.random.default_rng(len(magic)).integers(0, 256, 3000, np.uint8).tobytes()
    return lambda path: path.write_bytes(magic + rest)


def _magics() -> list[bytes]:
    """First bytes of the formats that fabio recognises by them."""
    known = {magic for magic, _ in MAGIC_NUMBERS if magic[:4] not in (b"\x89HDF", b"II*\0", b"MM\0*")}
    return sorted(magic if isinstance(magic, bytes) else magic.encode() for magic in known)


#: Writers by file name, all of which fabio reads back.
GOOD: dict[str, Make] = {
    "frame.edf": _edf,
    "packed.edf.gz": lambda path: fabio.edfimage.EdfImage(FRAME).write(str(path)),
    "dtrek.img": lambda path: fabio.dtrekimage.DtrekImage(FRAME).write(str(path)),
    "frame.mccd": lambda path: fabio.marccdimage.MarccdImage(FRAME).write(str(path)),
    "frame.mar3450": _mar345,
    "frame.msk": lambda path: fabio.fit2dmaskimage.Fit2dMaskImage((FRAME > 40).astype(np.uint8)).write(str(path)),
    "bruker.gfrm": lambda path: _bruker(path, 86),
    "bruker100.sfrm": lambda path: _bruker(path, 100),
    "frame.pnm": lambda path: fabio.pnmimage.PnmImage(FRAME).write(str(path)),
    "oxford.img": lambda path: fabio.OXDimage.OxdImage(FRAME.astype(np.int32)).write(str(path)),
    "frame.esperanto": lambda path: fabio.esperantoimage.EsperantoImage(SQUARE).write(str(path)),
    "frames.ge2": _ge,
    "hipic.img": _hipic,
    "frame.kcd": _kcd,
    "frames.spe": _spe,
    "frames.mrc": _mrc,
    "frame.mpa": _mpa,
    "frame.spr": _spreadsheet,
    "frame.xsd": _xsd,
}
#: Files that begin like a format.
NOISE: dict[str, Make] = {f"noise_{number}.img": _noise(magic) for number, magic in enumerate(_magics())}
