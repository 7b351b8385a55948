"""Stage: simulate the raw frames of a rocking scan."""

from cathodeflow.bcdi.charge_states import in_state
from cathodeflow.bcdi.rocking import GEOMETRY, rocking_scan
from cathodeflow.bcdi.scans import simulated_files
from cathodeflow.bcdi.simulation_options import SimulateScan
from cathodeflow.io.reconstructions import Reconstruction, write_cxi
from cathodeflow.io.simulated import write_tiff
from cathodeflow.io.text import write_yaml
from cathodeflow.stage import Metrics, OutputFolder, stage


@stage("bcdi.simulate_scan")
def simulate_scan(
    folder: OutputFolder,
    *,
    number: int = 0,
    state_of_charge: float | None = None,
    exposure: int = 0,
    options: SimulateScan,
) -> Metrics:
    """Simulate the raw frames of a rocking scan, with dark, whitefield, mask, geometry and truth, in FOLDER.

    Parameters
    ----------
    folder : path
        Folder for the files.
    number : int
        Number of the crystal; each number is a different one.
    state_of_charge : float
        State of charge, 0 (discharged) to 1 (charged), of which lattice spacing and strain depend. Default: none.
    exposure : int
        Number of the exposure; each number has other counting noise.
    """
    crystal, phase_range = options.model_copy(update={"seed": (options.seed or 0) + 1000 * number}), None
    if state_of_charge is not None:
        crystal, phase_range = in_state(crystal, state_of_charge, GEOMETRY)
    made = rocking_scan(crystal, phase_range=phase_range, exposure=exposure)
    files = simulated_files(folder, options.frames)
    for path, frame in zip(files["frames"], made.frames, strict=True):
        write_tiff(path, frame)
    write_tiff(files["dark"], made.dark)
    write_tiff(files["whitefield"], made.whitefield)
    write_tiff(files["mask"], made.good.astype("uint8"))
    geometry = made.geometry._asdict()
    write_yaml(files["geometry"], geometry)
    truth = made.truth
    known = {"phase_range": truth.phase_range, "regime": truth.regime}
    support = abs(truth.object) >= 0.5
    write_cxi(files["truth"], Reconstruction(truth.object, support, frame="scan", geometry=geometry, process=known))
    return Metrics({"frames": options.frames, **known})
