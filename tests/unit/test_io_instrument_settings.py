import base64
import math
import struct
from datetime import datetime

import pytest

from cathodeflow.io.instrument_settings import parse_sidecar
from cathodeflow.io.instruments import fei, phenom, tescan, zeiss
from cathodeflow.io.instruments.encoding import decode
from cathodeflow.io.instruments.values import parse_time

SEC = """[Image Info]\r
Model : SNE-4500M Plus\r
Date : 2019-09-02 {clock}\r
{time}File Name : C:\\Nanoeye\\Time : 1.jpg\r
Acceleated Voltage :  20 kV\r
Magnification : x500 \r
Detector Mode : SED\r
[Running Info]\r
Focus : 1898\r
Magnification : x900 \r
[   - Image Process]\r
Brightness : 89\r
Contrast : -61\r
[   - Focus]\r
OL1 Val : 1898\r
Pixel Size : 0.7\r
"""


@pytest.mark.parametrize(
    ("clock", "hour"),
    [("오전 12:09:57", 0), ("오후 12:09:57", 12), ("오후 1:09:57", 13), ("AM 12:09:57", 0), ("1:09:57 PM", 13)],
)
def test_a_sec_sidecar_is_read_with_korean_and_english_half_days(clock: str, hour: int) -> None:
    found = parse_sidecar(SEC.format(clock=clock, time=""))
    assert found == {
        "time": datetime(2019, 9, 2, hour, 9, 57),
        "magnification": 500,
        "voltage_kv": 20,
        "detector": "SED",
        "brightness": 89,
        "contrast": -61,
        "focus": 1898,
        "maker": "SEC SNE-4500M Plus",
    }


def test_the_24_hour_clock_of_a_sec_sidecar_gives_the_fraction_of_the_second() -> None:
    found = parse_sidecar(SEC.format(clock="오후 1:09:57", time="Time : 13:09:57.0680964\r\n"))
    assert found["time"] == datetime(2019, 9, 2, 13, 9, 57, 68096)


@pytest.mark.parametrize(
    ("text", "cols", "expected"),
    [
        # The printed bar of such files of 1280 columns: 100 um in 377 px.
        ("Frame Size : 480,480\r\nImage Area : 0,0,1,0.75\r\n", 1280, 262.5),
        ("Frame Size : 480,480\r\n", 640, 525.0),
        ("Frame Size : 480,480\r\nImage Area : 0.2,0,0.5,0.75\r\n", 1280, None),
        # At this magnification the field would be twice as wide as it can be.
        ("Frame Size : 960,960\r\n", 1280, None),
        ("", 1280, None),
    ],
)
def test_the_pixel_size_of_a_sec_sidecar_is_that_of_the_scan_in_um(
    text: str, cols: int, expected: float | None
) -> None:
    found = parse_sidecar(SEC.format(clock="1:09:57", time="") + text, (cols * 3 // 4, cols)).get("pixel_nm")
    assert found == (pytest.approx(expected) if expected else None)


def test_hitachi() -> None:
    text = (
        "[SemImageFile]\nInstructName=SU8000\nDate=09/02/2019\nTime=12:09:57 AM\nPixelSize=198.4\nSignalName=SE(UL)\n"
        "AcceleratingVoltage=5000 Volt\nMagnification=500\nWorkingDistance=8000 um\n"
    )
    assert parse_sidecar(text) == {
        "time": datetime(2019, 9, 2, 0, 9, 57),
        "magnification": 500,
        "voltage_kv": 5,
        "detector": "SE(UL)",
        "pixel_nm": 198.4,
        "focus": 8,
        "maker": "Hitachi SU8000",
    }


def test_tescan() -> None:
    text = (
        "[MAIN]\nDate=2019-09-02\nDevice=VEGA3 TESCAN\nMagnification=500\nPixelSizeX=2.671e-007\nTime=13:09:57\n\n"
        "[SEM]\nDetector=SE\nDetector0Gain=38.5\nDetector0Offset=80.1\nHV=20000.0\nWD=0.0051\n"
    )
    found = parse_sidecar(text)
    assert found.pop("pixel_nm") == pytest.approx(267.1)
    assert found.pop("focus") == pytest.approx(5.1)
    assert found == {
        "time": datetime(2019, 9, 2, 13, 9, 57),
        "magnification": 500,
        "voltage_kv": 20,
        "detector": "SE",
        "brightness": 80.1,
        "contrast": 38.5,
        "maker": "TESCAN VEGA3",
    }


def test_jeol_gives_the_pixel_from_its_scale_bar() -> None:
    text = (
        "$CM_FORMAT JEOL/SEM\n$CM_INSTRUMENT JSM-7800F\n$CM_DATE 2019/09/02\n$CM_TIME 13:09:57\n$CM_MAG 5000\n"
        "$CM_ACCEL_VOLT 15.00\n$CM_SIGNAL SEI\n$CM_BRIGHTNESS 120\n$CM_CONTRAST 900\n"
        "$$SM_WD 10.1\n$$SM_MICRON_BAR 160\n$$SM_MICRON_MARKER 5um\n"
    )
    assert parse_sidecar(text) == {
        "time": datetime(2019, 9, 2, 13, 9, 57),
        "magnification": 5000,
        "voltage_kv": 15,
        "detector": "SEI",
        "pixel_nm": 31.25,
        "brightness": 120,
        "contrast": 900,
        "focus": 10.1,
        "maker": "JEOL JSM-7800F",
    }


@pytest.mark.parametrize("text", ["", "notes: bright particles\nDate: 2019-09-02", "[MAIN", "\0\1\2"])
def test_other_text_tells_nothing(text: str) -> None:
    assert parse_sidecar(text) == {}


@pytest.mark.parametrize(
    ("value", "expected"), [("x1,000", 1000), ("1,500", 1500), ("x12,5", 12.5), ("12,000,000", 12e6)]
)
def test_a_comma_in_a_magnification_parts_thousands(value: str, expected: float) -> None:
    settings = parse_sidecar(f"[SemImageFile]\nInstructName=SU8000\nMagnification={value}\nPixelSize=1,234\n")
    assert settings["magnification"] == pytest.approx(expected) and settings["pixel_nm"] == pytest.approx(1.234)


def test_broken_values_are_left_out_and_the_rest_is_kept() -> None:
    text = "[MAIN]\nDate=2019-13-77\nTime=99:00\nMagnification=very\nHV=\nPixelSizeX=1e-7 furlong\n[SEM]\nDetector=SE\n"
    assert parse_sidecar(text) == {"detector": "SE", "maker": "TESCAN"}


def test_fei_takes_the_gain_of_the_detector_that_was_used() -> None:
    found = fei.settings(
        {
            "User": {"Date": "09/02/2019", "Time": "01:09:57 PM"},
            "System": {"SystemType": "Helios"},
            "Beam": {"HV": 5000},
            "EBeam": {"WD": 0.0041},
            "Scan": {"PixelWidth": 2.5e-9},
            "Detectors": {"Name": "TLD"},
            "TLD": {"Brightness": 40.5, "Contrast": 70.25},
            "ETD": {"Brightness": 1, "Contrast": 2},
        }
    )
    assert math.isclose(found.pop("focus"), 4.1)
    assert found == {
        "time": datetime(2019, 9, 2, 13, 9, 57),
        "voltage_kv": 5,
        "detector": "TLD",
        "pixel_nm": 2.5,
        "brightness": 40.5,
        "contrast": 70.25,
        "maker": "FEI Helios",
    }


@pytest.mark.parametrize(("value", "expected"), [(("Mag", "5.00 K X"), 5000), (("Mag", 5.0, "K X"), 5000), (("Mag", "500 X"), 500)])  # fmt: skip
def test_zeiss_magnification_has_thousands(value: tuple[object, ...], expected: float) -> None:
    assert zeiss.settings({"ap_mag": value}) == {"magnification": expected, "maker": "Zeiss"}


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2.9.2019", (2019, 9, 2)),
        ("09/02/2019", (2019, 9, 2)),
        ("22/09/2019", (2019, 9, 22)),
        ("2019/09/02", (2019, 9, 2)),
        ("02 Sep 2019", (2019, 9, 2)),
        ("2. März 2019", (2019, 3, 2)),
        ("15 Okt. 2019", (2019, 10, 15)),
        ("Aoû 15 2019", (2019, 8, 15)),
        ("Dec 15, 2019", (2019, 12, 15)),
        ("12 de septiembre de 2019", (2019, 9, 12)),
        ("12/SEP/2019", (2019, 9, 12)),
        ("Thu Sep 12 16:17:18 2019", (2019, 9, 12, 16, 17, 18)),
        ("20190912", (2019, 9, 12)),
        ("2019年9月12日", (2019, 9, 12)),
        ("2019년 9월 12일", (2019, 9, 12)),
        ("12 сентября 2019", (2019, 9, 12)),
        ("12 września 2019", (2019, 9, 12)),
        ("3 marraskuuta 2019", (2019, 11, 3)),
        ("3 července 2019", (2019, 7, 3)),
    ],
)
def test_dates_as_instruments_write_them(date: str, expected: tuple[int, ...]) -> None:
    assert parse_time(date) == datetime.fromisoformat("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*expected, *[0] * 3))


@pytest.mark.parametrize("date", [None, "", "0000-00-00", "32.13.2019", "yesterday"])
def test_no_date_is_no_error(date: str | None) -> None:
    assert parse_time(date, "12:00:00") is None


def fei_tag(width: float, height: float, scan: tuple[int, int], bar: int) -> dict[str, dict[str, float]]:
    return {
        "Scan": {"PixelWidth": width, "PixelHeight": height, "HorFieldsize": width * scan[1]},
        "Image": {"ResolutionX": scan[1], "ResolutionY": scan[0]},
        "PrivateFei": {"DatabarHeight": bar},
    }


@pytest.mark.parametrize(
    ("tag", "shape", "pixel", "bar"),
    [
        # As scanned, with and without its bar.
        (fei_tag(250e-9, 250e-9, (884, 1024), 59), (943, 1024), 250, 59),
        (fei_tag(250e-9, 250e-9, (884, 1024), 59), (884, 1024), 250, 0),
        (fei_tag(250e-9, 250e-9, (884, 1024), 0), (884, 1024), 250, 0),
        # Half as large when saved: the bar as high as ever, or scaled too.
        (fei_tag(125e-9, 125e-9, (1768, 2048), 59), (943, 1024), 250, 59),
        (fei_tag(125e-9, 125e-9, (1768, 2048), 120), (944, 1024), 250, 60),
        # Twice as many columns scanned as lines: saved with square pixels.
        (fei_tag(125e-9, 250e-9, (884, 2048), 59), (943, 1024), 250, None),
        # Cropped later: its pixels are as they were; where the bar was, nobody knows.
        (fei_tag(250e-9, 250e-9, (884, 1024), 59), (300, 256), 250, None),
    ],
)
def test_fei_images_that_were_scaled_or_cropped(
    tag: dict[str, dict[str, float]], shape: tuple[int, int], pixel: float, bar: int | None
) -> None:
    found = fei.settings(tag, shape)
    assert found["pixel_nm"] == pytest.approx(pixel) and found.get("bar_rows") == bar


def test_zeiss_gives_the_pixel_of_this_image() -> None:
    tags = {"ap_pixel_size": ("Pixel Size", 5.825, "nm"), "ap_width": ("Width", 5.965, "µm")}
    assert zeiss.settings(tags, (384, 512))["pixel_nm"] == pytest.approx(11.65, abs=0.001)
    assert zeiss.settings(tags, (768, 1024))["pixel_nm"] == pytest.approx(5.825, abs=0.001)
    tags["ap_image_pixel_size"] = ("Image Pixel Size", 900.0, "pm")
    assert zeiss.settings(tags, (384, 512))["pixel_nm"] == pytest.approx(0.9)


def test_tescan_tags_in_pieces() -> None:
    text = "[MAIN]\nDate=2019-09-02\nMagnification=500\nPixelSizeX=2.671e-007\nImageStripSize=120\n[SEM]\nHV=20000.0\n"
    pieces = [(1, bytes(range(256))), (2, text.encode("latin-1") + b"\0"), (3, b"\0" * 20)]
    tag = b"".join(struct.pack("<IH", len(piece), kind) + piece for kind, piece in pieces)
    for given in (tag, tag + b"\xff" * 9, text.encode()):
        found = parse_sidecar(tescan.tag_text(given))
        assert found["voltage_kv"] == 20 and found["bar_rows"] == 120 and found["pixel_nm"] == pytest.approx(267.1)
    assert parse_sidecar(tescan.tag_text(b"\1\2\3" * 50)) == {}


@pytest.mark.parametrize(("cols", "pixel_nm"), [(1280, 31.25), (640, 62.5)])
def test_jeol_counts_its_scale_bar_in_pixels_of_the_scan(cols: int, pixel_nm: float) -> None:
    text = "$CM_FORMAT JEOL/SEM\n$CM_FULL_SIZE 1280 960\n$$SM_MICRON_BAR 160\n$$SM_MICRON_MARKER 5um\n"
    assert parse_sidecar(text, (cols * 3 // 4, cols))["pixel_nm"] == pytest.approx(pixel_nm)


def test_jeol_says_how_large_the_image_is_above_its_bar() -> None:
    text = "$CM_FORMAT JEOL/SEM\n$CM_FULL_SIZE 1280 960\n$CM_MAG 5000\n"
    assert parse_sidecar(text, (1024, 1280))["bar_rows"] == 64
    assert "bar_rows" not in parse_sidecar(text, (960, 1280)) and "bar_rows" not in parse_sidecar(text, (512, 640))


FEI_XML = """<?xml version="1.0" encoding="utf-8"?>
<Metadata xmlns="http://example.org"><Instrument><Manufacturer>FEI Company</Manufacturer><InstrumentClass>Helios</InstrumentClass>
</Instrument><Acquisition><AcquisitionDatetime>2021-06-03T15:20:11</AcquisitionDatetime></Acquisition>
<Optics><AccelerationVoltage>5000</AccelerationVoltage><WorkingDistance>0.0041</WorkingDistance></Optics>
<BinaryResult><PixelSize><X unit="m">2.5E-09</X><Y unit="m">2.5E-09</Y></PixelSize></BinaryResult>
<Detectors><ScanningDetector><DetectorName>TLD</DetectorName></ScanningDetector></Detectors></Metadata>"""
MEMENTO = """<?xml version="1.0" encoding="utf-8"?><MementoItemCollection><item><key><string>Beam</string></key><value>
<MementoItem><Name>Beam</Name><MementoItemSection><item><value><MementoItem><Name>HighVoltage</Name><anyType>5000</anyType>
</MementoItem></value></item><item><value><MementoItem><Name>PixelWidth</Name><anyType>2.5e-9</anyType></MementoItem></value>
</item></MementoItemSection></MementoItem></value></item></MementoItemCollection>"""


@pytest.mark.parametrize("coded", [False, True])
def test_fei_settings_as_xml(coded: bool) -> None:
    texts = [text.encode("utf-8-sig") for text in (FEI_XML, MEMENTO)]
    new, memento = (base64.b64encode(text) + b"\0" if coded else text for text in texts)
    found = fei.xml_settings(new)
    assert found.pop("focus") == pytest.approx(4.1) and found.pop("pixel_nm") == pytest.approx(2.5)
    assert found == {
        "time": datetime(2021, 6, 3, 15, 20, 11),
        "voltage_kv": 5,
        "detector": "TLD",
        "maker": "FEI Company Helios",
    }
    assert fei.xml_settings(memento) == {"voltage_kv": 5, "pixel_nm": pytest.approx(2.5), "maker": "FEI"}
    assert fei.xml_settings(new[:-40]) == {}


def test_phenom_xml() -> None:
    text = (
        '<?xml version="1.0" encoding="utf-8"?><FeiImage><pixelWidth unit="nm">134.3</pixelWidth><databarHeight>64'
        '</databarHeight><workingDistance unit="mm">5.1</workingDistance><time>2021-06-03T15:20:11</time></FeiImage>'
    )
    assert phenom.settings(text) == {
        "time": datetime(2021, 6, 3, 15, 20, 11), "pixel_nm": 134.3, "focus": pytest.approx(5.1), "maker": "Phenom", "bar_rows": 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp932", "gb18030"]
)
def test_a_micrometre_in_any_encoding(encoding: str) -> None:
    unit = "μm" if encoding in ("cp932", "gb18030") else "µm"
    text = f"[SemImageFile]\nInstructName=SU8000\nMagnification=500\nWorkingDistance=8000 {unit}\n"
    assert parse_sidecar(decode(text.encode(encoding)))["focus"] == pytest.approx(8)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("12 août 2019", "latin-1"), ("12 сентября 2019 10 мкм", "cp1251"), ("2019年9月12日", "cp932"), ("10㎛", "cp949")],
)
def test_texts_in_the_encodings_of_other_countries(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("unit", ["um", "µm", "μm", "μｍ", "㎛"])
def test_micrometres_however_they_are_written(unit: str) -> None:
    text = f"$CM_FORMAT JEOL/SEM\n$$SM_MICRON_BAR 160\n$$SM_MICRON_MARKER 5{unit}\n"
    assert parse_sidecar(text)["pixel_nm"] == 31.25


@pytest.mark.parametrize(
    ("tags", "shape", "pixel_nm"),
    [
        # Scaled later, whatever the tag says of the file as it was; cropped; and nothing but the frame's pixel size.
        ({"ap_width": (0, 5.965, "µm"), "ap_image_pixel_size": (0, 5.825, "nm")}, (384, 512), 11.65),
        ({"ap_width": (0, 5.965, "µm"), "ap_image_pixel_size": (0, 5.825, "nm")}, (512, 512), 5.825),
        ({"ap_width": (0, 5.965, "µm")}, (768, 700), None),
        ({"ap_width": (0, 5.965, "µm")}, (690, 1024), 5.825),
        ({"ap_pixel_size": (0, 5.825, "nm")}, (384, 512), 11.65),
    ],
)
def test_zeiss_files_that_were_scaled_or_cropped(
    tags: dict[str, tuple[object, ...]], shape: tuple[int, int], pixel_nm: float | None
) -> None:
    found = zeiss.settings(tags, shape).get("pixel_nm")
    assert found == (pytest.approx(pixel_nm, rel=1e-3) if pixel_nm else None)


@pytest.mark.parametrize(("shape", "pixel_nm"), [((960, 1280), 19.84), ((480, 640), 39.68), ((700, 800), 19.84)])
def test_hitachi_files_that_were_scaled_or_cropped(shape: tuple[int, int], pixel_nm: float) -> None:
    text = "[SemImageFile]\nInstructName=SU8000\nPixelSize=19.84\nDataSize=1280x960\n"
    assert parse_sidecar(text, shape)["pixel_nm"] == pytest.approx(pixel_nm)


SCALED_XML = (
    '<?xml version="1.0" encoding="utf-16"?><Metadata><Optics><ScanFieldOfView><X>2.56e-4</X><Y>1.92e-4</Y>'
    "</ScanFieldOfView></Optics><BinaryResult><ImageSize><X>2048</X><Y>1536</Y></ImageSize><PixelSize>"
    '<X unit="m">1.25e-7</X></PixelSize></BinaryResult></Metadata>'
)


@pytest.mark.parametrize("encoding", ["utf-16", "base64"])
@pytest.mark.parametrize(("shape", "pixel_nm"), [((1536, 2048), 125), ((768, 1024), 250), ((500, 700), 125)])
def test_fei_xml_of_scaled_images_in_utf_16_and_in_lines_of_base64(
    encoding: str, shape: tuple[int, int], pixel_nm: float
) -> None:
    plain = SCALED_XML.replace(' encoding="utf-16"', "")
    tag = SCALED_XML.encode("utf-16") if encoding == "utf-16" else base64.encodebytes(plain.encode())
    assert fei.xml_settings(tag, shape)["pixel_nm"] == pytest.approx(pixel_nm)


def test_the_voltage_of_a_phenom_has_no_sign() -> None:
    assert phenom.settings('<FeiImage><highVoltage unit="kV">-10</highVoltage></FeiImage>')["voltage_kv"] == 10
