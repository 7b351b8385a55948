"""Tables of the MatPhase paper: rows, means over the seeds, costs; nothing is invented for rows that were not run."""

import pandas as pd
import pytest
from torch import nn

from cathodeflow.config import validate
from cathodeflow.fibsem.method_costs import job_seconds, n_parameters, training_records
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.paper_tables import TABLES, as_markdown, missing_rows, paper_table
from cathodeflow.io.text import read_yaml


def metrics(*rows):
    """Rows (model, seed, mIoU) with the other columns of `evaluate`."""
    return pd.DataFrame(
        [
            {"model": model, "seed": seed, "split": "grouped", "miu": miu, "miu_low": 0.0, "fiu": miu + 0.1,
             "f1_pore": miu, "f1_pore_low": 0.0, "accuracy": 0.5, "accuracy_best5": 0.9,
             "accuracy_best5_deviation": 0.01, "accuracy_worst5": 0.8, "accuracy_worst5_deviation": 0.02}
            for model, seed, miu in rows
        ]
    )  # fmt: skip


COSTS = {"ugsm": {"parameters": 1234.0, "training_s": 12.0, "training_cpu_s": 20.0, "inference_s": 0.5}}


def test_rows_are_means_over_seeds_and_rows_that_were_not_run_are_missing():
    found = metrics(
        ("ugsm", 0, 0.7), ("ugsm", 1, 0.8), ("matphase", 0, 0.9), ("forest", 0, 0.6), ("unet_prior", 0, 0.5)
    )
    table = paper_table(1, found, COSTS)
    assert list(table["model"]) == ["UGSM", "MatPhase"]
    ugsm, matphase = (row for _, row in table.iterrows())
    assert ugsm["miu"] == pytest.approx(0.75) and ugsm["miu_seed_deviation"] == pytest.approx(0.1 / 2**0.5)
    assert ugsm["seeds"] == 2 and ugsm["parameters"] == 1234
    assert pd.isna(matphase["miu_seed_deviation"]) and pd.isna(matphase["training_s"])
    assert missing_rows(1, list(found["model"])) == ["MatPhase w/o HCL-USI"]
    # What is in no table of the paper follows in table 3.
    assert list(paper_table(3, found, COSTS)["name"]) == ["matphase", "forest"]
    text = as_markdown(1, table, missing_rows(1, list(found["model"])), ["Machine: x."])
    assert (
        "| UGSM | 0.750 | **90.0 ± 1.0** | **80.0 ± 2.0** | 0.750 ± 0.071 | 0.850 ± 0.071 | 2 | 1,234 | 12 | 20 | 0.500 |"
        in text
    )
    assert "| MatPhase | **0.900** |" in text and "Not run: MatPhase w/o HCL-USI." in text
    assert "w/o" not in text.split("Not run")[0]


def test_an_empty_table_has_its_columns():
    table = paper_table(2, metrics(("ugsm", 0, 0.7)), {})
    assert not len(table) and "miu" in table.columns
    assert "Not run: Only-Image" in as_markdown(2, table, missing_rows(2, ["ugsm"]), [])


def test_the_configuration_has_every_row_of_the_paper():
    config = validate(read_yaml("config/fibsem-tables.yaml")).fibsem
    named = {*config.networks, *config.methods}
    assert {name for table in TABLES.values() for name in table.values()} <= named
    assert config.paper_tables == tuple(TABLES)
    # The same budget, data and class weights for all rows of the paper.
    rows = [config.networks[name] for name in TABLES[3].values() if name in config.networks]
    assert len({(row.epochs, row.batch_size, row.learning_rate, row.class_weights) for row in rows}) == 1
    sides = [config.methods[name].train_local.side for name in TABLES[5].values()]
    assert sides == [17, 25, 11]


def test_the_method_as_published_is_a_configuration():
    published = read_yaml("config/fibsem-published.yaml")
    published["fibsem"]["samples"] = "slices.tsv"
    config = validate(published).fibsem
    ugsm, matphase = config.networks["ugsm"], config.methods["matphase"]
    assert ugsm.widths == (64, 128, 256, 512, 1024) and ugsm.normalization == "none" and ugsm.folds is None
    assert (ugsm.epochs, ugsm.batch_size, ugsm.dropout, ugsm.class_weights) == (100, 20, 0.5, "balanced")
    assert matphase.train_idk.threshold == "half" and config.predict_global.copies == "all"
    local = matphase.train_local
    assert (local.class_weights, local.calibrate, local.side, local.inputs) == ("balanced", False, 11, "all")


@pytest.mark.parametrize(
    ("kind", "records", "size"),
    [
        ("network", ["ugsm"], 6),
        ("prior", ["ugsm"], 6),
        ("mlp", ["ugsm", "ugsm_global", "m_idk"], 8),
        ("local", ["ugsm", "ugsm_global", "m_idk", "m_local"], 21),
    ],
)
def test_costs_count_all_networks_that_a_method_needs(kind, records, size):
    networks = {"ugsm": nn.Linear(2, 2), "m-mlp": nn.Linear(1, 1), "m-idk": nn.Linear(2, 1), "m-local": nn.Linear(3, 3)}
    method = Method("m", "ugsm", kind, "" if kind in ("network", "prior") else "m")
    assert training_records(method) == records and n_parameters(method, networks) == size


def test_times_are_those_of_the_records_and_unknown_without_them():
    job = {"start": "2026-01-01T00:00:58.500+00:00", "end": "2026-01-01T00:01:01.000+00:00", "cpu_time_s": 4.0}
    assert job_seconds([{"job": job}, {"job": job}]) == (pytest.approx(5.0), pytest.approx(8.0))
    assert all(value != value for value in job_seconds([{"job": job}, {}]))
