import math
from datetime import datetime

import pytest

from cathodeflow.io.instrument_settings import parse_fei, parse_sidecar, parse_time, parse_zeiss

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
    found = parse_fei(
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
    assert parse_zeiss({"ap_mag": value}) == {"magnification": expected, "maker": "Zeiss"}


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2.9.2019", (2019, 9, 2)),
        ("09/02/2019", (2019, 9, 2)),
        ("22/09/2019", (2019, 9, 22)),
        ("2019/09/02", (2019, 9, 2)),
        ("02 Sep 2019", (2019, 9, 2)),
    ],
)
def test_dates_as_instruments_write_them(date: str, expected: tuple[int, int, int]) -> None:
    assert parse_time(date) == datetime(*expected)


@pytest.mark.parametrize("date", [None, "", "0000-00-00", "32.13.2019", "yesterday"])
def test_no_date_is_no_error(date: str | None) -> None:
    assert parse_time(date, "12:00:00") is None
