"""Commands that train the global networks and apply them."""

import logging

import click

from cathodeflow.fibsem.cli.shared import group, sample_flag
from cathodeflow.fibsem.options import PredictGlobal, TrainGlobal
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, live_flags, record_flag

log = logging.getLogger("cathodeflow.fibsem")


@stage_command(group, TrainGlobal)
@click.argument("images")
@click.argument("labels")
@click.argument("pairs")
@sample_flag
@click.option("--split", required=True, help="Which of the splits.")
@click.option("--repeat", type=int, default=0, help="Number of the repetition, added to the seed.")
@click.option(
    "--cross-fit/--no-cross-fit", default=False, help="Train also networks without a part of the slices each."
)
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of the training curves.")
@click.option("--checkpoint", metavar="FILE", help="State to resume from; removed at the end.")
@live_flags
def train_global(
    images: str, labels: str, pairs: str, sample: str, split: str, repeat: int, cross_fit: bool, out: str, record: str,
    figure: str, checkpoint: str | None, live: str | None, experiment: str, options: TrainGlobal,
) -> None:  # fmt: skip
    """Train a global network on IMAGES and LABELS, divided as PAIRS tells."""
    import numpy as np
    import torch

    from cathodeflow.fibsem.around import neighbours_of
    from cathodeflow.fibsem.bundle import save_bundle
    from cathodeflow.fibsem.split import TRAIN, VALIDATION, folds
    from cathodeflow.fibsem.train_global import LabelledSlices, class_weights, train_network
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.models import discard_checkpoint
    from cathodeflow.io.tables import read_table
    from cathodeflow.io.volumes import read_volume, read_volume_info
    from cathodeflow.plotting import training_curves
    from cathodeflow.record import write_record
    from cathodeflow.tracking import live_run

    torch.set_num_threads(options.threads)
    table = read_table(pairs, ["slice", "copy", f"role_{split}"])
    slices, role = table["slice"].to_numpy(), table[f"role_{split}"].to_numpy()
    around = torch.from_numpy(neighbours_of(slices, table["copy"].to_numpy(), options.context))
    grey, truth = read_volume(images).compute(), read_volume(labels).compute()
    classes = read_volume_info(labels).attributes["classes"]
    # Copies of a slice tell validation little more than the slice.
    rows, validation = np.flatnonzero(role == TRAIN), np.flatnonzero((role == VALIDATION) & (table["copy"] == 0))
    # With one weight for all, only that every class is there is of interest.
    balanced = class_weights(truth[rows], classes)
    weights = balanced if options.class_weights == "balanced" else [1.0] * len(classes)
    seed = (options.seed or 0) + repeat
    others = {"context", "class_weights", "folds", "passes", "test_flips", "threads", "device", "seed"}
    keywords = options.model_dump(exclude=others)
    keywords |= {"n_classes": len(classes), "weight": weights, "device": options.device or "auto"}

    def part(chosen: np.ndarray) -> LabelledSlices:
        return LabelledSlices(torch.from_numpy(grey), torch.from_numpy(truth), around[chosen])

    with live_run(f"fibsem.train_global {sample}") as log_epoch:
        trained = train_network(
            part(rows), part(validation), seed=seed, checkpoint=checkpoint, on_epoch=log_epoch, label=sample, **keywords
        )
    networks = {"network": trained.model}
    fold_of: dict[str, int] = {}
    if cross_fit:
        numbers, place = np.unique(slices[rows], return_inverse=True)
        fold = folds(numbers, options.folds)[place]
        for number in range(options.folds):
            kept = rows[fold != number]
            # As many steps as the network itself: how sure of themselves networks are grows with their number.
            longer = {name: round(keywords[name] * len(rows) / len(kept)) for name in ("epochs", "patience")}
            other = train_network(
                part(kept), part(validation), seed=seed + 1000 * (number + 1),
                checkpoint=f"{checkpoint}.{number}" if checkpoint else None,
                label=f"{sample}, without part {number + 1} of {options.folds}", **keywords | longer,
            )  # fmt: skip
            networks[f"fold{number}"] = other.model
        fold_of = dict(zip(map(str, rows.tolist()), fold.tolist(), strict=True))
    metadata = {
        "classes": classes, "class_weights": weights, "passes": options.passes, "flips": options.test_flips,
        "seed": seed, "fold_of": fold_of, "options": options.model_dump(mode="json"),
    }  # fmt: skip
    save_bundle(out, networks, metadata)
    best = trained.training
    save_figure(figure, training_curves(best.history, unit="nat", kept=best.best_epoch))
    metrics: dict[str, float] = {"best_epoch": best.best_epoch, "images": len(rows)}
    metrics |= {name: best.best[name] for name in ("validation_loss", "validation_accuracy")}
    write_record(
        record, stage="fibsem.train_global", sample=sample, options=options, metrics=metrics, history=best.history,
        figures=[figure],
    )  # fmt: skip
    for suffix in ("", *(f".{number}" for number in range(len(networks) - 1))):
        if checkpoint:
            discard_checkpoint(f"{checkpoint}{suffix}")


@stage_command(group, PredictGlobal)
@click.argument("model")
@click.argument("images")
@click.argument("pairs")
@sample_flag
@click.option("--split", required=True, help="Which of the splits.")
@click.option("--out", required=True, metavar="STORE", help="Zarr store of the mean logits to write.")
@click.option("--entropy", required=True, metavar="STORE", help="Zarr store of the entropy to write.")
@click.option("--labels", required=True, metavar="STORE", help="Zarr store of the predicted classes to write.")
@click.option("--table", required=True, metavar="FILE", help="Table of the images that they are of, to write.")
@record_flag()
def predict_global(
    model: str, images: str, pairs: str, sample: str, split: str, out: str, entropy: str, labels: str, table: str,
    record: str, options: PredictGlobal,
) -> None:  # fmt: skip
    """Apply the network MODEL to the IMAGES that are validated and tested on, and crosswise to slices trained on."""
    import dask
    import numpy as np
    import torch

    from cathodeflow.fibsem.around import neighbours_of
    from cathodeflow.fibsem.bundle import load_bundle
    from cathodeflow.fibsem.crosswise import matched_scales
    from cathodeflow.fibsem.lazy import by_image
    from cathodeflow.fibsem.passes import stochastic
    from cathodeflow.fibsem.phases import entropy as entropy_of
    from cathodeflow.fibsem.split import TEST, TRAIN, VALIDATION
    from cathodeflow.io.tables import read_table, write_table
    from cathodeflow.io.volumes import read_volume, write_volume
    from cathodeflow.record import write_record

    torch.set_num_threads(options.threads)
    networks, metadata = load_bundle(model)
    listed = read_table(pairs, ["slice", "copy", f"role_{split}"])
    role, first = listed[f"role_{split}"].to_numpy(), (listed["copy"] == 0).to_numpy()
    # In `grouped`, copies of a slice tell little more than the slice; in `paper`, single copies are what is tested.
    whole = first if split == "grouped" else np.ones(len(listed), bool)
    crossed = "fold0" in networks
    used = np.flatnonzero((role == TEST) & whole | (role == VALIDATION) & first | (role == TRAIN) & first & crossed)
    around = neighbours_of(
        listed["slice"].to_numpy(), listed["copy"].to_numpy(), networks["network"].architecture["context"]
    )
    grey = read_volume(images)
    device = compute_device(options.device)

    def answer(name: str, image: int) -> torch.Tensor:
        return stochastic(
            networks[name], torch.from_numpy(grey[around[image]].compute())[None], numbers=[image],
            passes=metadata["passes"], flips=metadata["flips"], tile=options.tile, overlap=options.overlap,
            seed=metadata["seed"], device=device,
        ).logits  # fmt: skip

    judged = np.flatnonzero((role == VALIDATION) & first).tolist() if crossed else []
    scale = matched_scales(answer, list(networks), judged)

    def predicted(image: int) -> np.ndarray:
        fold = metadata["fold_of"].get(str(image))
        name = "network" if fold is None or role[image] != TRAIN else f"fold{fold}"
        return (answer(name, image) * scale[name]).numpy()

    shape = (len(metadata["classes"]), *grey.shape[1:])
    about = {"classes": metadata["classes"]}
    answers = by_image(predicted, used.tolist(), shape, np.float16)
    # One image after the other: torch has threads of its own.
    with dask.config.set(scheduler="synchronous"):
        write_volume(out, answers, axes=("image", "class", "y", "x"), attributes=about)
    logits = read_volume(out)
    write_volume(
        entropy,
        logits.map_blocks(
            lambda block: entropy_of(torch.from_numpy(block.astype(np.float32))).numpy(), drop_axis=1, dtype=np.float32
        ),
        axes=("image", "y", "x"),
    )
    write_volume(labels, logits.argmax(1).astype(np.uint8), axes=("image", "y", "x"), attributes=about)
    result = listed.iloc[used].rename(columns={f"role_{split}": "role"}).assign(image=used)
    write_table(table, result)
    write_record(
        record, stage="fibsem.predict_global", sample=sample, options=options,
        metrics={f"images_{name}": int((result["role"] == name).sum()) for name in (TRAIN, VALIDATION, TEST)}
        | {f"scale_{name}": value for name, value in scale.items()},
    )  # fmt: skip
