"""Raw data at addresses: a web server and an S3 server of this machine."""

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401, without it compressed datasets cannot be read
import numpy as np
import pytest

from ..conftest import ROOT, Project

KEY, SECRET = "AKIDOFTHETESTS", "aSecretThatNobodyMaySee42"
CONFIG = """\
seed: 5
device: cpu
bragg:
  samples: scans.tsv
  locate: {model: unused.pt}
tracking: {experiment: remote}
"""
SHEET = "sample\trole\tframes\tdark\n{rows}"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan in one HDF5 file, with its dark image."""
    folder = tmp_path_factory.mktemp("raw")
    line = (
        "bragg simulate scan --state-of-charge 0.2 --seed 3 --n-frames 6 --rows 64 --cols 64 --n-peaks 20 --format hdf5"
    )
    subprocess.run([sys.executable, "-m", "cathodeflow", *line.split()], cwd=folder, check=True)
    return folder / "scan"


@pytest.fixture
def web(raw: Path) -> Iterator[str]:
    """A web server of the raw files."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(raw))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def bucket(raw: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server with the raw files; credentials stand in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket="beamtime")
    for path in raw.iterdir():
        client.upload_file(str(path), "beamtime", path.name)
    for name, value in {"ENDPOINT_URL": endpoint, "ACCESS_KEY": KEY, "SECRET_KEY": SECRET}.items():
        monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{name}", value)
    yield "s3://beamtime"
    server.stop()


def project(folder: Path, rows: str) -> Project:
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "scans.tsv").write_text(SHEET.format(rows=rows))
    (folder / "unused.pt").touch()
    return Project(folder, ROOT)


def test_frames_of_the_web_and_of_s3_are_those_of_local_files(raw: Path, web: str, bucket: str, tmp_path: Path) -> None:
    data = "frames.h5::/entry/data/data"
    places = {"here": str(raw), "web": web, "cloud": bucket}
    rows = "".join(f"{name}\tmeasure\t{place}/{data}\t{place}/dark.tif\n" for name, place in places.items())
    mine = project(tmp_path, rows)
    targets = [f"results/bragg/{name}/{file}" for name in places for file in ("frames.h5", "frames.json")]
    output = mine.snakemake("--", *targets)

    def frames(name: str) -> np.ndarray:
        with h5py.File(tmp_path / f"results/bragg/{name}/frames.h5") as file:
            return file["frames"][()]

    for name in ("web", "cloud"):
        np.testing.assert_array_equal(frames(name), frames("here"))
    # An object that is as it was is not fetched again.
    assert mine.planned(*targets) == {}
    # The secret was in the environment of all that ran, and is in nothing that was written.
    assert os.environ["SNAKEMAKE_STORAGE_S3_SECRET_KEY"] == SECRET
    assert SECRET not in output.stdout + output.stderr
    held = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert held == []


@pytest.mark.parametrize("address", ["https://me:hidden@host/scan.h5", "s3://bucket/scan.h5?token=hidden"])
def test_an_address_with_a_secret_is_refused_without_showing_it(address: str, tmp_path: Path) -> None:
    result = project(tmp_path, f"a\tmeasure\t{address}\t\n").snakemake("-n", check=False)
    text = result.stdout + result.stderr
    assert result.returncode == 1 and "hidden" not in text
    assert re.search(r"scan 'a', frames: \w+://\.\.\.: found an unsupported address, expected one file", text)
