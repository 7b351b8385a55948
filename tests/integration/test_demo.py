"""The demo: all techniques from simulated raw files to physics, their accuracy, files and report.

What only SEM and BCDI show stands in test_sem.py and test_bcdi.py.
"""

import json
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow.bragg.options import Scan
from cathodeflow.config import techniques, validate
from cathodeflow.io.text import read_yaml
from cathodeflow.io.volumes import read_volume
from cathodeflow.report.numbers import number, percent
from cathodeflow.report.page import write_report
from cathodeflow.samples import read_samples

from ..conftest import ROOT, Project

SCANS = list(read_samples(str(ROOT / "config" / "bragg.tsv"), Scan))
# Pictures of each technique in the reports.
FIGURES = {"sem": 11, "bragg": 4 * len(SCANS) + 1 + 2, "fibsem": 7 + 2 * 2 + 1, "bcdi": 2 * 5 + 2}


def record(project: Project, path: str) -> dict:
    return json.loads((project.folder / "results" / path).read_text())


def test_nothing_is_left_to_do(demo: Project) -> None:
    assert demo.planned() == {}


@pytest.mark.parametrize("scan", SCANS)
def test_positions_are_near_the_truth(demo: Project, scan: str) -> None:
    metrics = record(demo, f"bragg/{scan}/compare.json")["metrics"]
    assert metrics["network_truth_isolated_count"] > 500
    assert metrics["fit_truth_isolated_median"] < 0.08
    assert metrics["network_truth_isolated_median"] < 0.12
    assert abs(metrics["network_truth_bias_row"]) < 0.03 and abs(metrics["network_truth_bias_col"]) < 0.03
    assert metrics["precision"] > 0.9 and metrics["recall"] > 0.5


def test_standard_errors_of_the_network_are_true_for_isolated_peaks_and_beside_neighbours(demo: Project) -> None:
    """About 68 % of the good peaks lie within one standard error of the truth, and 95 % within two."""
    scan = demo.folder / "results" / "bragg" / "charge_055"
    located = pd.read_parquet(scan / "located.parquet")
    compared = pd.read_csv(scan / "compare.csv")
    found = compared["network_truth"].notna() & located["good"]
    assert record(demo, "bragg/charge_055/locate.json")["metrics"]["calibrated"]
    for chosen in (compared["isolated"] & found, ~compared["isolated"] & found):
        assert chosen.sum() > 300
        error = [
            (compared[f"network_{axis}"] - compared[f"truth_{axis}"])[chosen] / located[f"{axis}_std"][chosen]
            for axis in ("row", "col")
        ]
        within = [np.mean(np.abs(error) < width) for width in (1, 2)]
        assert 0.63 < within[0] < 0.75 and 0.9 < within[1] < 0.98, within


def test_lattice_parameters_follow_the_truth(demo: Project) -> None:
    """c against charge, through the maximum and the coexistence of two phases, with errors that are true."""
    series = demo.folder / "results" / "bragg" / "series"
    metrics = record(demo, "bragg/series/lattice.json")["metrics"]
    assert metrics["hkl_right"] > 0.995 and metrics["tracks_assigned"] > 0.85 * metrics["tracks"]
    assert metrics["strain_z_rms"] == pytest.approx(1, abs=0.1) and metrics["strain_z_beyond_5"] < 0.01
    # On 256 columns a strain of 1e-5 is 0.004 px: what counting statistics allow is 2.5e-5 in the median.
    assert metrics["strain_error_median_bright"] < 3e-5 and abs(metrics["strain_bias_bright"]) < 1e-5
    summary = pd.read_csv(series / "summary.csv")
    states = summary[summary["particles"] > 50]
    assert states["phase"].tolist() == [0, 0, 0, 0, 1, 1]
    for name in ("a", "c"):
        difference = (states[f"cell_{name}"] - states[f"{name}_true"]).abs()
        assert (difference < 3 * states[f"cell_{name}_err"]).all() and states[f"cell_{name}_err"].max() < 0.02
        change = states[f"{name}_true"] / states[f"{name}_true"].iloc[0] - 1
        assert (states[f"cell_{name}_change"] - change).abs().max() < 5e-4
    assert (states["c_low95"] < states["c_true"]).all() and (states["c_true"] < states["c_high95"]).all()
    fractions = states["phase_fraction"] - states["phase_fraction_true"]
    assert fractions.abs().max() < 0.05
    particles = pd.read_csv(series / "lattice.csv")
    assert {"track", "sample", "state_of_charge", "phase", "d", "a", "c", "strain"} <= set(particles)
    voltages = summary.groupby("sample")["voltage"].unique()
    assert [list(values) for values in voltages] == [[3.68], [3.88], [4.005], [4.14], [4.27]]


def test_tracks_join_the_right_spots(demo: Project) -> None:
    """Between the states 0.1, 0.4, 0.55, 0.7, 0.9; two phases coexist at 0.7."""
    metrics = record(demo, "bragg/series/tracks.json")["metrics"]
    for step, least in ((1, 0.99), (2, 0.99), (3, 0.97), (4, 0.97)):
        assert metrics[f"right_{step}"] >= least and metrics[f"recall_{step}"] >= least, (step, metrics)
    assert metrics["complete_tracks"] > 350 and metrics["split_tracks"] > 300


def test_every_job_has_a_log_and_a_benchmark(demo: Project) -> None:
    results = demo.folder / "results"
    jobs = [path.relative_to(results / "logs").with_suffix("") for path in (results / "logs").rglob("*.log")]
    bragg, sem, fibsem, bcdi, mlflow = 9 * len(SCANS) + 2 + 2 + 4, 12, 17, 18, 1
    assert len(jobs) == bragg + sem + fibsem + bcdi + mlflow
    for job in jobs:
        rows = pd.read_csv(results / "benchmarks" / job.with_suffix(".tsv"), sep="\t")
        assert len(rows) == 1 and "max_rss" in rows


def test_peaks_file_has_the_published_layout(demo: Project) -> None:
    scan = demo.folder / "results" / "bragg" / "charge_010"
    with h5py.File(scan / "peaks.h5") as peaks, h5py.File(scan / "frames.h5") as frames:
        kinds = {name: peaks[name].dtype.name for name in ("peak_fidx", "peak_row", "peak_col", "deviations", "npeaks")}
        assert kinds == dict(
            peak_fidx="uint32", peak_row="float32", peak_col="float32", deviations="float32", npeaks="uint16"
        )
        assert frames["frames"].dtype == np.float32 and frames["frames"].chunks == (1, *frames["frames"].shape[1:])
        assert peaks["peak_fidx"][:].max() < len(frames["frames"])
        several = peaks["npeaks"][:] > 1
        deviations = peaks["deviations"][:]
        assert several.any() and np.isin(deviations[several], [-1, np.inf]).all()
        assert (deviations[~several] >= 0).all()


def test_mlflow_has_a_run_for_every_record(demo: Project) -> None:
    from mlflow import MlflowClient

    imported = record(demo, "mlflow.json")
    found = [path for name in techniques() for path in demo.folder.glob(f"results/{name}/**/*.json")]
    paths = {str(path.relative_to(demo.folder)) for path in found if '"cathodeflow-record-1"' in path.read_text()}
    assert set(imported["runs"]) == paths and {path.split("/")[1] for path in paths} == set(techniques())
    client = MlflowClient(f"sqlite:///{demo.folder}/results/mlflow.db")
    train = client.get_run(imported["runs"]["results/bragg/model/train.json"])
    history = record(demo, "bragg/model/train.json")["history"]
    assert len(client.get_metric_history(train.info.run_id, "validation_loss")) == len(history) > 20
    assert train.data.metrics["run_time_s"] > 1
    figures = client.get_run(imported["runs"]["results/bragg/charge_055/figures.json"])
    assert len(client.list_artifacts(figures.info.run_id, "figures")) == 4


def test_report_holds_every_figure(demo: Project, tmp_path: Path) -> None:
    demo.snakemake("--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        figures = [name for name in archive.namelist() if name.endswith(".png")]
    assert len(figures) == sum(FIGURES.values())


def test_the_page_has_the_numbers_and_figures_of_the_run(demo: Project, tmp_path: Path) -> None:
    written = write_report(
        str(demo.folder / "results"), str(tmp_path / "index.html"), captions=str(ROOT / "workflow" / "report")
    )
    assert [section.key for section in written.sections] == ["sem", "bragg", "fibsem", "bcdi"]
    text = (tmp_path / "index.html").read_text()
    assert "could not be read as expected" not in text and "damaged" not in text
    accuracy = record(demo, "sem/model/test.json")["metrics"]["image_accuracy"]
    summary = pd.read_csv(demo.folder / "results" / "bragg" / "series" / "summary.csv")
    change = 100 * summary.loc[summary["cell_c_change"].abs().idxmax(), "cell_c_change"]
    assert f"<strong>{percent(accuracy)}</strong>" in text and f"\N{MINUS SIGN}{-change:.3f}" in text
    assert text.count("<img ") == text.count('src="data:image') == sum(FIGURES.values())
    extent = record(demo, "bcdi/particle/phase/strain.json")["metrics"]
    shown = " \N{MULTIPLICATION SIGN} ".join(number(extent[f"extent_{axis}_nm"]) for axis in "xyz")
    best = pd.read_csv(demo.folder / "results/bcdi/particle/phase/metrics.csv").iloc[0]
    found = pd.read_csv(demo.folder / "results/fibsem/electrode/metrics.csv")["miu"].max()
    for part in (
        f"<strong>{shown} nm</strong>",
        f"<strong>{number(best['true_correlation'])}</strong>",
        percent(found),
    ):
        assert part in text, part
    assert "Resolution, particle (network)" in text
    # Every figure has its caption, and the data are known to be simulated.
    assert all(each.caption for section in written.sections for each in [*section.figures, *section.more])
    numbers = ("2 samples", f"{len(SCANS)} samples", "2 samples", "1 sample")
    assert [section.origin for section in written.sections] == [
        f"Raw data of {raw}, simulated by the workflow." for raw in numbers
    ]


def test_positions_do_not_depend_on_the_number_of_cores(demo: Project, tmp_path: Path) -> None:
    import subprocess
    import sys

    scan = "results/bragg/charge_090"
    for threads in ("1", "2"):
        arguments = (
            f"--threads {threads} bragg locate {scan}/frames.h5 {scan}/candidates.parquet --fitted {scan}/peaks.h5"
        )
        outputs = f"--model results/bragg/model/braggnn.pt --device cpu --sample x --table {tmp_path}/{threads}.parquet --out {tmp_path}/{threads}.h5 --record {tmp_path}/r.json"
        command = [sys.executable, "-m", "cathodeflow", *arguments.split(), *outputs.split()]
        subprocess.run(command, cwd=demo.folder, check=True)
    one, two = ((tmp_path / f"{threads}.parquet").read_bytes() for threads in "12")
    assert one == two == (demo.folder / scan / "located.parquet").read_bytes()


def test_every_column_is_explained(demo: Project) -> None:
    text = (ROOT / "docs" / "bragg.md").read_text()
    scan = demo.folder / "results" / "bragg" / "charge_055"
    names = set(pd.read_parquet(scan / "candidates.parquet")) | set(pd.read_parquet(scan / "located.parquet"))
    names |= set(pd.read_csv(scan / "compare.csv")) | set(pd.read_parquet(scan / "spots.parquet"))
    names |= set(pd.read_parquet(scan.parent / "series" / "tracks.parquet")) | set(
        pd.read_parquet(scan / "angles.parquet")
    )
    series = demo.folder / "results" / "bragg" / "series"
    # Explained by their first part, such as `*_low68`.
    found = [name for name in pd.read_csv(series / "summary.csv") if not re.search("_(low|high)(68|95)$", name)]
    names |= {*found, *pd.read_csv(series / "lattice.csv")} - {"a_err", "c_err"}
    for file in ("frames.h5", "peaks.h5", "located.h5"):
        with h5py.File(scan / file) as stored:
            names |= set(stored)
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_a_command_of_the_log_can_be_pasted(demo: Project, tmp_path: Path) -> None:
    """What Snakemake prints for a job is a line that gives the same bytes by hand."""
    import subprocess
    import sys

    log = demo.snakemake("--dry-run", "-p", "--forcerun", "bragg_fit", "--", "results/bragg/charge_070/peaks.h5").stdout
    command = re.search(r"^Shell command: (cathodeflow .*bragg fit .*)$", log, re.MULTILINE)
    assert command, log
    line = command.group(1).replace("results/bragg/charge_070/peaks.h5", f"{tmp_path}/peaks.h5")
    line = line.replace("results/bragg/charge_070/fit.json", f"{tmp_path}/fit.json").replace(
        "--log results", f"--log {tmp_path}"
    )
    line = line.replace("cathodeflow", f"{sys.executable} -m cathodeflow", 1)
    subprocess.run(line, shell=True, cwd=demo.folder, check=True)
    made, kept = tmp_path / "peaks.h5", demo.folder / "results/bragg/charge_070/peaks.h5"
    assert made.read_bytes() == kept.read_bytes()


def test_every_column_of_sem_is_explained(demo: Project) -> None:
    text = (ROOT / "docs" / "sem.md").read_text()
    sem = demo.folder / "results" / "sem"
    names = set(pd.read_parquet(sem / "cathodes/index.parquet")) | set(pd.read_parquet(sem / "pooled/split.parquet"))
    names |= set(pd.read_parquet(sem / "pooled/crops.parquet"))
    tables = ["predictions", "predictions_crops", "metrics", "calibration", "audit", "explain_crops", "explain_images"]
    for table in (*(f"model/{name}.csv" for name in tables), "additives/model.csv"):
        names |= {name for name in pd.read_csv(sem / table) if not name.startswith("p_")}
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_phases_of_the_electrode_and_its_properties_are_near_the_truth(demo: Project) -> None:
    """The method chosen in validation on unseen slices, and another electrode; one class alone has 50 %."""
    fibsem = demo.folder / "results/fibsem"
    table = pd.read_csv(fibsem / "electrode/metrics.csv").set_index("model")
    assert table.loc["matphase", "miu"] >= table.loc["ugsm", "miu"] - 0.02 and table["miu"].max() > 0.6
    assert table.loc["matphase", "accuracy"] > 0.8
    assert ((table["miu_low"] <= table["miu"]) & (table["miu"] <= table["miu_high"])).all()
    truth = np.stack(
        [tifffile.imread(path) for path in sorted((demo.folder / "results/raw/fibsem/new/labels").glob("*.tif"))]
    )
    phases = read_volume(fibsem / "new/phases.zarr", verify=True).compute()
    assert phases.shape == truth.shape and (phases == truth).mean() > 0.75
    likely, entropy = (read_volume(fibsem / f"new/{name}.zarr").compute() for name in ("probabilities", "uncertainty"))
    assert likely.shape == (3, *phases.shape) and (likely.argmax(0) == phases).mean() > 0.995
    assert entropy[phases != truth].mean() > 1.3 * entropy[phases == truth].mean()
    fractions = record(demo, "fibsem/electrode/properties/properties_record.json")["metrics"]
    given = read_volume(fibsem / "electrode/labels.zarr").compute()
    assert fractions["volume_fraction_pore"] == pytest.approx((given == 0).mean(), abs=1e-4)
    pairs = pd.read_parquet(fibsem / "electrode/pairs.parquet")
    assert pairs.groupby("slice")["role_grouped"].nunique().max() == 1


def test_every_column_of_fibsem_is_explained(demo: Project) -> None:
    text = (ROOT / "docs" / "fibsem.md").read_text()
    folder = demo.folder / "results/fibsem/electrode"
    names = set(pd.read_parquet(folder / "pairs.parquet"))
    for table in ("metrics.csv", "metrics_slices.csv", "differences.csv"):
        names |= set(pd.read_csv(folder / table))
    for name in sorted(names):
        plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_deviation")
        for one in ("pore", "active", "binder"):
            plain = plain.removesuffix(f"_{one}") + ("_<class>" if plain.endswith(f"_{one}") else "")
        assert f"`{plain.replace('_grouped', '_<split>')}`" in text, name


def test_all_techniques_run_from_one_configuration_on_their_own_data_sets(demo: Project) -> None:
    """Names in the rules of one technique do not change what those of another mean."""
    planned = demo.planned("--forceall")
    assert {rule.partition("_")[0] for rule in planned} == {*techniques(), "mlflow"}
    sheets = {"sem": "sem.tsv", "fibsem": "fibsem.tsv", "bcdi": "bcdi-demo.tsv"}
    for technique, rule in (("sem", "sem_index"), ("fibsem", "fibsem_volume"), ("bcdi", "bcdi_prepare")):
        lines = (ROOT / "config" / sheets[technique]).read_text().splitlines()
        roles = [line.split("\t")[1] for line in lines if line and not line.startswith("#")][1:]
        assert planned[rule] == (len(roles) if technique == "bcdi" else roles.count("train"))


@pytest.mark.parametrize("name", ["sem-simulated", "fibsem", "bcdi", "bcdi-series"])
def test_the_larger_examples_are_valid(name: str) -> None:
    """What `cathodeflow check` asserts of the configuration; no job is planned for that."""
    assert validate(read_yaml(f"config/{name}.yaml"))
