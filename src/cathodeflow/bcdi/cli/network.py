"""Commands that train the network, try it on crystals that it has not seen, and apply it."""

import logging
from typing import Any

import click

from cathodeflow.bcdi.cli.shared import group, out_flag, sample_flag
from cathodeflow.bcdi.options import Evaluate, Infer, Train
from cathodeflow.errors import InputError
from cathodeflow.old_commands import progress, stage_command
from cathodeflow.old_flags import compute_device, live_flags, record_flag

log = logging.getLogger("cathodeflow.bcdi")


@stage_command(group, Train)
@click.argument("amplitudes")
@click.argument("objects")
@click.option("--sample", required=True, help="Name of the network.")
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of the training curves.")
@click.option("--checkpoint", metavar="FILE", help="State to resume from; removed at the end.")
@live_flags
def train(
    amplitudes: str, objects: str, sample: str, out: str, record: str, figure: str, checkpoint: str | None,
    live: str | None, experiment: str, options: Train,
) -> None:  # fmt: skip
    """Train a network on stores of AMPLITUDES and of the OBJECTS that they belong to."""
    import torch

    from cathodeflow.bcdi.train import train_network
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.manifests import manifest_path
    from cathodeflow.io.models import discard_checkpoint, load_model, save_model
    from cathodeflow.io.tables import read_json
    from cathodeflow.io.volumes import open_array
    from cathodeflow.plotting import training_curves
    from cathodeflow.record import write_record
    from cathodeflow.tracking import live_run

    torch.set_num_threads(options.threads)
    keywords = options.model_dump(exclude={"initial", "threads", "device", "seed"})
    initial = None if options.initial is None else load_model(options.initial)[0]
    measured, truth = open_array(amplitudes), open_array(objects)
    with live_run(f"bcdi.train {sample}") as log_epoch:
        trained = train_network(
            measured, truth, initial=initial, seed=options.seed or 0, checkpoint=checkpoint,
            device=options.device or "auto",
            key=str(read_json(manifest_path(amplitudes))["digest"]), on_epoch=log_epoch, **keywords,
        )  # fmt: skip
    about = {"architecture": trained.model.architecture, "size": list(measured.shape[1:]),
             "options": options.model_dump(mode="json")}  # fmt: skip
    save_model(out, trained.model.state_dict(), about)
    best = trained.training
    save_figure(figure, training_curves(best.history, unit="1", kept=best.best_epoch))
    metrics = {"best_epoch": best.best_epoch, "crystals": measured.shape[0]}
    metrics |= {name: value for name, value in best.best.items() if name.startswith("validation_")}
    write_record(
        record, stage="bcdi.train", sample=sample, options=options, metrics=metrics, history=best.history,
        figures=[figure],
    )  # fmt: skip
    if checkpoint:
        discard_checkpoint(checkpoint)


@stage_command(group, Evaluate)
@click.argument("model")
@click.argument("amplitudes")
@click.argument("objects")
@click.argument("good")
@click.argument("table")
@click.option("--sample", required=True, help="Name of the network.")
@click.option("--out", required=True, metavar="FILE", help="CSV table of success to write.")
@click.option("--trials", required=True, metavar="FILE", help="Table of all trials to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of success against iterations.")
def evaluate(
    model: str, amplitudes: str, objects: str, good: str, table: str, sample: str, out: str, trials: str, record: str,
    figure: str, options: Evaluate,
) -> None:  # fmt: skip
    """Phase unseen crystals from the image of MODEL and from random starts, with the same settings."""
    import pandas as pd
    import torch

    from cathodeflow.bcdi.displacement import REGIMES
    from cathodeflow.bcdi.metrics import success_rates
    from cathodeflow.bcdi.plots import success_figure
    from cathodeflow.bcdi.trials import best_trials, try_starts
    from cathodeflow.checkpoints import derived_seed
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.tables import read_table, write_csv, write_table
    from cathodeflow.io.volumes import open_array
    from cathodeflow.learning import resolve_device
    from cathodeflow.parallel import ordered_map
    from cathodeflow.record import write_record

    # Small volumes are phased side by side, each by one thread: several at one volume mostly wait for each other.
    torch.set_num_threads(1)
    network, stores = _load(model), [open_array(path) for path in (amplitudes, objects, good)]
    known = read_table(table, ["number", "regime", "phase_range", "photons"])
    count = min(options.crystals, len(known))
    device = compute_device(options.device)
    settings = options.model_dump(
        include={"iterations", "starts", "beta", "shrink_every", "sigma", "threshold", "precision", "side"}
    )

    def phased(row: int) -> list[dict[str, Any]]:
        about: dict[str, Any] = {str(name): value for name, value in known.iloc[row].items()}
        measured, truth, usable = (torch.from_numpy(store[row]) for store in stores)
        seed = derived_seed(options.seed or 0, row)
        found = try_starts(
            network, measured, truth, mask=usable.expand(measured.shape), seed=seed, device=device, **settings
        )
        return [{"crystal": int(about["number"]), **about, **one} for one in found]

    # On a graphics card one after the other, with no need of several threads.
    workers = options.threads if resolve_device(device).type == "cpu" else 1
    trials_of = progress(ordered_map(phased, range(count), workers=workers), "phasing", total=count)
    rows = [row for rows in trials_of for row in rows]
    tried = pd.DataFrame(rows).drop(columns="number")
    # Regimes from weak to strong, whatever crystal comes first.
    tried = tried.sort_values(["regime", "crystal"], key=lambda one: one.map(list(REGIMES).index)
                              if one.name == "regime" else one, kind="stable")  # fmt: skip
    best = best_trials(tried)
    rates = success_rates(best, least=options.success, confidence=options.confidence)
    together = success_rates(best.assign(regime="all"), least=options.success, confidence=options.confidence)
    write_table(trials, tried)
    write_csv(out, pd.concat([rates, together], ignore_index=True))
    save_figure(figure, success_figure(rates))
    shares = zip(together["start"], together["iterations"], together["share"], strict=True)
    metrics = {f"success_{start}_{count}": float(share) for start, count, share in shares}
    write_record(record, stage="bcdi.evaluate", sample=sample, options=options, metrics=metrics, figures=[figure])
    log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))


@stage_command(group, Infer)
@click.argument("pattern")
@sample_flag
@out_flag
@record_flag()
def infer(pattern: str, sample: str, out: str, record: str, options: Infer) -> None:
    """Tell the object of the prepared PATTERN by a network."""
    import numpy as np
    import torch

    from cathodeflow.bcdi import infer as stage
    from cathodeflow.bcdi.metrics import support_fraction
    from cathodeflow.bcdi.refine import fine_tune
    from cathodeflow.io.phasing import Starts, read_pattern, write_starts
    from cathodeflow.record import write_record

    torch.set_num_threads(options.threads)
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of a trained network")
    network, measured = _load(options.model), read_pattern(pattern)
    keywords: dict[str, Any] = {
        "mask": measured.mask,
        "device": compute_device(options.device),
        "precision": options.precision,
    }
    metrics: dict[str, float] = {}
    history: list[dict[str, float]] = []
    try:
        if options.fine_tune:
            side = options.side or max(measured.amplitude.shape)
            seen = {**keywords, "mask": stage.middle(measured.mask, side)}
            tuned = fine_tune(network, stage.middle(measured.amplitude, side), steps=options.fine_tune,
                              loss=options.loss, learning_rate=options.learning_rate, **seen)  # fmt: skip
            network = tuned.model
            history = [{"epoch": step, "loss": loss} for step, loss in enumerate(tuned.losses)]
            metrics |= {"loss_before": tuned.losses[0], "loss_after": min(tuned.losses)}
        found = stage.infer(network, measured.amplitude, side=options.side, **keywords)
    except InputError as error:
        raise InputError(f"{pattern}: {error.where}", error.found, error.expected) from None
    count = len(found.objects)
    write_starts(
        out,
        Starts(found.objects.numpy(), found.supports.numpy(), found.residuals.numpy()[:, None],
               np.full(count, np.nan, np.float32), np.zeros((count, 3), np.float32), measured.binning),
    )  # fmt: skip
    metrics |= {"candidates": count, "residual": float(found.residuals[0])}
    metrics["support_fraction"] = float(support_fraction(found.objects[:1])[0])
    write_record(record, stage="bcdi.infer", sample=sample, options=options, metrics=metrics, history=history)
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


def _load(path: str) -> Any:
    """Read a network with its weights."""
    from cathodeflow.bcdi.network import restored
    from cathodeflow.io.models import load_model

    weights, about = load_model(path)
    if not isinstance(about.get("architecture"), dict):
        raise InputError(path, "weights of something else", "a model of `cathodeflow bcdi train`")
    try:
        return restored(about["architecture"], weights)
    except InputError as error:
        raise InputError(path, error.found, error.expected) from None
