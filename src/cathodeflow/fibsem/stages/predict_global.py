"""Stage: apply a global network to the images."""

import logging

import dask
import numpy as np
import torch

from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.fibsem.crossfit import by_image, matched_scales
from cathodeflow.fibsem.mc_dropout import predict_slices
from cathodeflow.fibsem.neighbours import neighbours_of
from cathodeflow.fibsem.network_options import PredictGlobal
from cathodeflow.fibsem.phases import entropy as entropy_of
from cathodeflow.fibsem.split import TEST, TRAIN, VALIDATION
from cathodeflow.fibsem.training_appearance import compared_slices, matching_of
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.io.volumes import read_volume, write_volume
from cathodeflow.learning import resolve_device
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, OutputStore, stage

log = logging.getLogger("cathodeflow.fibsem")
# Between the numbers of the random streams of two copies: more than a stack has slices.
_COPY = 10**6


@stage("fibsem.predict_global")
def predict_global(
    model: InputFile,
    images: InputStore,
    pairs: InputFile,
    *,
    split: str,
    out: OutputStore,
    entropy: OutputStore,
    labels: OutputStore,
    table: OutputFile,
    options: PredictGlobal,
) -> Metrics:
    """Predict the IMAGES of validation and test set with the network MODEL, and training images out-of-fold.

    Parameters
    ----------
    model : path
        Model file that `train-global` wrote.
    images : path
        Zarr store of the images.
    pairs : path
        Table of the images and their roles that `augment` wrote.
    split : str
        Split that the network was trained on: `grouped` or `paper`.
    out : path
        Zarr store of the mean logits to write.
    entropy : path
        Zarr store of the entropy to write.
    labels : path
        Zarr store of the predicted classes to write.
    table : path
        Table of the predicted images to write (Parquet).
    """
    torch.set_num_threads(options.threads)
    networks, metadata = load_bundle(model)
    listed = read_table(pairs, ["slice", "copy", "volume", "volume_slice", f"role_{split}"])
    role, first = listed[f"role_{split}"].to_numpy(), (listed["copy"] == 0).to_numpy()
    # Copies of a slice add little to the test of `grouped`; in `paper`, the test pairs are single copies.
    tested = first if split == "grouped" else np.ones(len(listed), bool)
    # Model files of earlier versions say it by the networks of the folds.
    wanted = metadata.get("predict_training", "fold0" in networks)
    copies = first if options.copies == "first" else np.ones(len(listed), bool)
    used = np.flatnonzero((role == TEST) & tested | (role == VALIDATION) & first | (role == TRAIN) & copies & wanted)
    context = networks["network"].architecture["context"]
    near = neighbours_of(listed["slice"].to_numpy(), listed["copy"].to_numpy(), context)
    # The random numbers of a slice are those of its prediction as part of the whole stack.
    random = (listed["volume_slice"] + _COPY * listed["copy"]).to_numpy()
    volume, device = read_volume(images), resolve_device(options.device or "auto")
    # As in the prediction of each volume as a whole.
    gain, offset = np.ones(len(listed)), np.zeros(len(listed))
    for member in listed["volume"].unique():
        own = np.flatnonzero(listed["volume"] == member)
        read = [] if metadata["levelled"] else own[first[own]].tolist()
        matching = matching_of(
            compared_slices(lambda number: volume[number].compute(), read), networks["network"], metadata, how="auto",
            dtype=volume.dtype,
        )  # fmt: skip
        gain[own], offset[own] = matching[:2]

    def logits_of(name: str, image: int) -> torch.Tensor:
        grey = volume[near[image]].compute().astype(np.float32)
        return predict_slices(
            networks[name], torch.from_numpy(grey).mul_(gain[image]).add_(offset[image])[None],
            indices=[int(random[image])], passes=metadata["passes"], tta=metadata["flips"], tile=options.tile,
            overlap=options.overlap, seed=metadata["seed"], precision="auto", device=device,
        ).logits  # fmt: skip

    compared = np.flatnonzero((role == VALIDATION) & first).tolist() if len(networks) > 1 else []
    # The final network first, as its logits are those of a prediction; files list networks by name.
    scale = matched_scales(logits_of, ["network", *sorted(set(networks) - {"network"})], compared)

    def scaled_logits(image: int) -> np.ndarray:
        fold = metadata["fold_of"].get(str(image))
        name = "network" if fold is None or role[image] != TRAIN else f"fold{fold}"
        return (logits_of(name, image) * scale[name]).numpy()

    shape = (len(metadata["classes"]), *volume.shape[1:])
    attributes = {"classes": metadata["classes"]}
    predicted = by_image(scaled_logits, used.tolist(), shape, np.float16)
    # One image after the other: torch uses its own threads.
    with dask.config.set(scheduler="synchronous"):
        write_volume(out, predicted, axes=("image", "class", "y", "x"), attributes=attributes)
    logits = read_volume(out)
    write_volume(
        entropy,
        logits.map_blocks(
            lambda block: entropy_of(torch.from_numpy(block.astype(np.float32))).numpy(), drop_axis=1, dtype=np.float32
        ),
        axes=("image", "y", "x"),
    )
    write_volume(labels, logits.argmax(1).astype(np.uint8), axes=("image", "y", "x"), attributes=attributes)
    result = listed.iloc[used].rename(columns={f"role_{split}": "role"})
    result = result.assign(image=used, neighbours=near[used].tolist(), gain=gain[used], offset=offset[used])
    write_table(table, result)
    counts = {f"images_{name}": int((result["role"] == name).sum()) for name in (TRAIN, VALIDATION, TEST)}
    log.info("predicted %s", ", ".join(f"{count} {name}" for name, count in counts.items()))
    return Metrics(counts | {f"scale_{name}": value for name, value in scale.items()})
