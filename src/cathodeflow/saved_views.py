"""Saved views of the runs in MLflow's pages: which columns and runs they show, in which order."""

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Key of the view of all current runs.
ALL = "cathodeflow"
# Prefix of the tags of an experiment in which MLflow keeps its saved views.
_TAG = "mlflow.sharedViewState."
_CURRENT = "tags.`cathodeflow.current` = 'yes'"
_GENERAL = ("attributes.`Duration`", "attributes.`User`", "attributes.`Dataset`", "attributes.`Source`")
_USED = ("metrics.`run_time_s`", "metrics.`max_rss_mb`")
#: Stages with a view of their own: metrics and parameters that are worth comparing.
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bragg.fit": (("peaks", "median_chi2", "median_row_err", "share_good"), ("threshold",)),
    "bragg.train": (("best_epoch", "distance_p50", "distance_p95"), ("epochs", "batch_size")),
    "sem.test": (("image_accuracy", "image_accuracy_low", "image_accuracy_high"), ()),
    "fibsem.metrics": (("miu_matphase_grouped", "miu_ugsm_grouped", "miu_unet_grouped"), ()),
    "bcdi.metrics": (("error", "r_factor", "strain_error", "true_correlation"), ()),
}


def views() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the views by key: name, and what MLflow's page shows; of all current runs, and of those of a stage."""
    found = {ALL: ("Current runs", _state(_CURRENT, ["tags.`sample`", *_GENERAL, *_USED]))}
    for stage, (metrics, parameters) in STAGES.items():
        columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in parameters]
        search = f"tags.stage = '{stage}' AND {_CURRENT}"
        found[stage] = (stage, _state(search, ["tags.`sample`", *columns, *_GENERAL, *_USED]))
    return found


def view_tag(key: str = ALL) -> str:
    """Return the tag of an experiment in which MLflow keeps a view."""
    return _TAG + key


def _state(search: str, columns: list[str]) -> dict[str, Any]:
    order = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    return {"searchFilter": search, **order, "selectedColumns": columns}


def keep_views(client: "MlflowClient", experiment_id: str) -> None:
    """Write the views into an experiment if they are missing; those that a person has changed are left alone."""
    tags = client.get_experiment(experiment_id).tags
    for key, (name, state) in views().items():
        if view_tag(key) not in tags:
            view = {"name": name, "createdAt": int(1000 * time.time()), "state": json.dumps(state)}
            client.set_experiment_tag(experiment_id, view_tag(key), json.dumps(view))


def view_address(experiment_id: str, key: str = ALL) -> str:
    """Return the address of a view, relative to that of MLflow.

    Examples
    --------
    >>> view_address("1")
    '#/experiments/1/runs?viewStateShareKey=cathodeflow'
    """
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={key}"
