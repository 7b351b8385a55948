"""Commands that train on pixels: which of them the global network does not know, and what these are."""

import logging
from typing import Any

import click

from cathodeflow.fibsem.cli.shared import group, sample_flag
from cathodeflow.fibsem.options import TrainIdk, TrainLocal
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, live_flags, record_flag

log = logging.getLogger("cathodeflow.fibsem")


@stage_command(group, TrainIdk)
@click.argument("logits")
@click.argument("table")
@click.argument("truth")
@sample_flag
@click.option("--repeat", type=int, default=0, help="Number of the repetition, added to the seed.")
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@record_flag()
def train_idk(
    logits: str, table: str, truth: str, sample: str, repeat: int, out: str, record: str, options: TrainIdk
) -> None:
    """Train what tells from mean LOGITS where they are wrong, for the images of TABLE with labels TRUTH."""
    import numpy as np
    import torch

    from cathodeflow.fibsem.bundle import save_bundle
    from cathodeflow.fibsem.calibrated import calibrate_output
    from cathodeflow.fibsem.idk import Pixels, choose_threshold, features, idk_probability, train_pixels
    from cathodeflow.fibsem.phases import entropy
    from cathodeflow.fibsem.split import TRAIN, VALIDATION
    from cathodeflow.io.tables import read_table
    from cathodeflow.io.volumes import read_volume, read_volume_info
    from cathodeflow.record import write_record

    torch.set_num_threads(options.threads)
    listed = read_table(table, ["image", "role"])
    store, labels = read_volume(logits), read_volume(truth)
    parts: dict[str, Any] = {}
    for role in (TRAIN, VALIDATION):
        rows = np.flatnonzero(listed["role"] == role)
        found = torch.from_numpy(store[rows].compute().astype(np.float32))
        right = torch.from_numpy(labels[listed["image"].to_numpy()[rows]].compute().astype(np.int64))
        parts[role] = (found, entropy(found), right)
    seed = (options.seed or 0) + repeat
    keywords = options.model_dump(include={"hidden", "epochs", "batch_size", "pixels_per_epoch", "learning_rate"})
    keywords |= {"seed": seed, "accelerator": compute_device(options.device)}
    sets = {role: features(found, doubt) for role, (found, doubt, _) in parts.items()}
    wrong = {role: (found.argmax(1) != right).flatten() for role, (found, _, right) in parts.items()}
    idk = train_pixels(*(Pixels(sets[role], wrong[role]) for role in parts), **keywords)
    classes = read_volume_info(logits).attributes["classes"]
    mlp = train_pixels(
        *(Pixels(sets[role], parts[role][2].flatten()) for role in parts), n_outputs=len(classes),
        label="network on the outputs of single pixels", **keywords,
    )  # fmt: skip
    # The control is fitted as `train_local` is.
    own = mlp.model.eval().requires_grad_(False)
    calibrate_output(own.layers[-1], own(sets[VALIDATION]), parts[VALIDATION][2].flatten())
    found, doubt, _ = parts[VALIDATION]
    probability = idk_probability(idk.model, found, doubt).flatten().numpy()
    threshold = choose_threshold(probability, wrong[VALIDATION].numpy(), by=options.threshold, target=options.target)
    save_bundle(out, {"idk": idk.model, "mlp": mlp.model}, {"threshold": threshold.value, "classes": classes})
    metrics = {f"validation_{name}": value for name, value in threshold._asdict().items() if name != "value"}
    metrics |= {"threshold": threshold.value, "best_epoch": idk.training.best_epoch}
    write_record(
        record, stage="fibsem.train_idk", sample=sample, options=options, metrics=metrics,
        history=idk.training.history,
    )  # fmt: skip
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


@stage_command(group, TrainLocal)
@click.argument("network")
@click.argument("idk")
@click.argument("logits")
@click.argument("table")
@click.argument("images")
@click.argument("truth")
@sample_flag
@click.option("--repeat", type=int, default=0, help="Number of the repetition, added to the seed.")
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of the training curves.")
@click.option("--pacing-figure", required=True, metavar="FILE", help="Image of how the pool of pixels grows.")
@click.option("--checkpoint", metavar="FILE", help="State to resume from; removed at the end.")
@live_flags
def train_local(
    network: str, idk: str, logits: str, table: str, images: str, truth: str, sample: str, repeat: int, out: str,
    record: str, figure: str, pacing_figure: str, checkpoint: str | None, live: str | None, experiment: str,
    options: TrainLocal,
) -> None:  # fmt: skip
    """Train LCGAR on windows around the pixels of IMAGES that the models NETWORK and IDK do not know."""
    import numpy as np
    import torch

    from cathodeflow.fibsem import plots
    from cathodeflow.fibsem.around import neighbours_of
    from cathodeflow.fibsem.bundle import load_bundle, save_bundle
    from cathodeflow.fibsem.calibrated import calibrate_output
    from cathodeflow.fibsem.idk import idk_probability
    from cathodeflow.fibsem.local import predict_local, window_side
    from cathodeflow.fibsem.pacing import pool_size
    from cathodeflow.fibsem.phases import entropy
    from cathodeflow.fibsem.split import TRAIN, VALIDATION
    from cathodeflow.fibsem.train_global import class_weights
    from cathodeflow.fibsem.train_local import LocalPixels
    from cathodeflow.fibsem.train_local import train_local as train
    from cathodeflow.fibsem.windows import pad_slices
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.models import discard_checkpoint
    from cathodeflow.io.tables import read_table
    from cathodeflow.io.volumes import read_volume
    from cathodeflow.plotting import training_curves
    from cathodeflow.record import write_record
    from cathodeflow.tracking import live_run

    torch.set_num_threads(options.threads)
    networks, about = load_bundle(network)
    helpers, told = load_bundle(idk)
    listed = read_table(table, ["slice", "copy", "image", "role"])
    rows = np.flatnonzero(listed["role"].isin([TRAIN, VALIDATION]))
    used = listed.iloc[rows]
    grey = read_volume(images)[used["image"].to_numpy()].compute()
    labels = read_volume(truth)[used["image"].to_numpy()].compute()
    found = torch.from_numpy(read_volume(logits)[rows].compute().astype(np.float32))
    doubt = entropy(found)
    unknown = idk_probability(helpers["idk"], found, doubt) >= told["threshold"]
    training = (used["role"] == TRAIN).to_numpy(copy=True)
    low, high = (float(value) for value in np.quantile(grey[training], (0.001, 0.999)))
    context = networks["network"].architecture["context"]
    around = neighbours_of(used["slice"].to_numpy(), used["copy"].to_numpy(), context)
    device = compute_device(options.device)
    padded = pad_slices(
        torch.from_numpy(grey.astype(np.float32)), found, unknown, side=window_side(options.side, options.edges),
        low=low, high=high, neighbours=torch.from_numpy(around), device=device,
    )  # fmt: skip

    def pixels(chosen: np.ndarray) -> LocalPixels:
        numbers = (unknown & torch.from_numpy(chosen)[:, None, None]).flatten().nonzero()[:, 0]
        own = torch.from_numpy(labels.reshape(-1).astype(np.int64))[numbers]
        return LocalPixels(padded, numbers, own, doubt.flatten()[numbers])

    sets = [pixels(training), pixels(~training)]
    weight = None
    if options.class_weights == "balanced":
        weight = class_weights(sets[0].labels, about["classes"])
    seed = (options.seed or 0) + repeat
    keywords = options.model_dump(exclude={"class_weights", "calibrate", "threads", "device", "seed"})
    with live_run(f"fibsem.train_local {sample}") as log_epoch:
        trained = train(
            *sets, low=low, high=high, weight=weight, seed=seed, checkpoint=checkpoint, on_epoch=log_epoch,
            label=sample, **keywords,
        )  # fmt: skip
    if options.calibrate:
        answers = predict_local(trained.model, sets[1].padded, sets[1].pixels)
        calibrate_output(trained.model.output, answers, sets[1].labels)
    save_bundle(out, {"local": trained.model.cpu()}, {"classes": about["classes"]})
    save_figure(figure, training_curves(trained.training.history, unit="nat", kept=trained.training.best_epoch))
    count, epochs = len(sets[0].pixels), options.epochs
    shares = {
        kind: [
            pool_size(step, epochs, count, kind, options.start_share, full_at=options.full_at, stages=options.stages)
            / count
            for step in range(epochs)
        ]
        for kind in ("linear", "root", "step", "none")
    }
    save_figure(pacing_figure, plots.pacing_figure(shares, sets[0].entropy.numpy(), chosen=options.pacing))
    metrics: dict[str, float] = {"pixels": count, "best_epoch": trained.training.best_epoch}
    metrics |= {name: trained.training.best[name] for name in ("validation_loss", "validation_accuracy")}
    write_record(
        record, stage="fibsem.train_local", sample=sample, options=options, metrics=metrics,
        history=trained.training.history, figures=[figure, pacing_figure],
    )  # fmt: skip
    if checkpoint:
        discard_checkpoint(checkpoint)
