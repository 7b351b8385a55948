"""Stage: train a phase-retrieval network on simulated crystals."""

import torch

from cathodeflow.bcdi.network_options import Train
from cathodeflow.bcdi.training import train_network
from cathodeflow.io.manifests import manifest_path
from cathodeflow.io.models import discard_checkpoint, load_model, save_model
from cathodeflow.io.tables import read_json
from cathodeflow.io.zarr_stores import open_array
from cathodeflow.stage import InputStore, Metrics, OutputFile, stage
from cathodeflow.tracking import live_run


@stage("bcdi.train")
def train(
    amplitudes: InputStore,
    objects: InputStore,
    *,
    out: OutputFile,
    sample: str = "model",
    checkpoint: OutputFile | None = None,
    options: Train,
) -> Metrics:
    """Train a phase-retrieval network on the simulated AMPLITUDES of the OBJECTS.

    Parameters
    ----------
    amplitudes : path
        Zarr store of amplitudes that `simulate` wrote.
    objects : path
        Zarr store of the corresponding true objects.
    out : path
        Model file to write.
    sample : str
        Name of the network.
    checkpoint : path
        File for resuming an interrupted training; removed at the end.

    Raises
    ------
    InputError
        A volume cannot be used, or an option does not fit the volumes.
    """
    torch.set_num_threads(options.threads)
    measured = open_array(amplitudes)
    with live_run(f"bcdi.train {sample}") as log_epoch:
        trained = train_network(
            measured,
            open_array(objects),
            options,
            initial_weights=load_model(options.initial)[0] if options.initial else None,
            checkpoint=checkpoint,
            key=str(read_json(manifest_path(amplitudes))["digest"]),
            on_epoch=log_epoch,
        )
    metadata = {
        "architecture": trained.model.architecture,
        "size": list(measured.shape[1:]),
        "options": options.model_dump(mode="json"),
    }
    save_model(out, trained.model.state_dict(), metadata)
    if checkpoint:
        discard_checkpoint(checkpoint)
    result = trained.training
    metrics = {"best_epoch": result.best_epoch, "crystals": measured.shape[0]}
    metrics |= {name: value for name, value in result.best.items() if name.startswith("validation_")}
    return Metrics(metrics, history=result.history)
