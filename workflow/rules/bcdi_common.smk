from cathodeflow.bcdi import data_sets as bcdi_data_sets
from cathodeflow.bcdi.options import MODEL_FOLDER as BCDI_MODEL_FOLDER
from cathodeflow.bcdi.options import SIMULATED as BCDI_SIMULATED
from cathodeflow.io.sources import list_files
from cathodeflow.options import to_flags

BCDI = CONFIG.bcdi
PARTICLES = SAMPLES["bcdi"]
# Scans, and the ways to an object that each of them goes.
BCDI_WAYS = [(name, way) for name, scan in PARTICLES.items() for way in scan.ways]
BCDI_NETWORK = any(way == "refine" for _, way in BCDI_WAYS)
BCDI_TRAINED = BCDI_NETWORK and not BCDI.infer.model
BCDI_FOLDER = f"results/bcdi/{BCDI_MODEL_FOLDER}"
BCDI_STORES = ["amplitudes", "objects", "good"]
# Numbers of crystals that no training set reaches: those that a network is tested on.
BCDI_UNSEEN = 1_000_000_000


def bcdi_simulate_options(part):
    """Options of the crystals to train on (`train`), and of others that the network never sees (`test`)."""
    options = settings.stage_options(CONFIG, "bcdi.simulate")
    unseen = {"crystals": BCDI.evaluate.crystals, "first": options.first + BCDI_UNSEEN}
    return to_flags(options if part == "train" else options.model_copy(update=unseen))


def bcdi_source(name, column):
    """Files of a scan as `cathodeflow bcdi` takes them; None where the sheet names none."""
    if not PARTICLES[name].simulated:
        return getattr(PARTICLES[name], column)
    files = bcdi_data_sets.simulated_files(f"results/raw/bcdi/{name}", BCDI.simulate_scan)
    return f"results/raw/bcdi/{name}/frames" if column == "frames" else files.get(column)


def bcdi_raw(name, *columns):
    """Raw files themselves, so that Snakemake sees each of them change, come and go."""
    if PARTICLES[name].simulated:
        files = bcdi_data_sets.simulated_files(f"results/raw/bcdi/{name}", BCDI.simulate_scan)
        found = [files[column] for column in columns if column in files]
        return [path for one in found for path in (one if isinstance(one, list) else [one])]
    sources = [source for column in columns if (source := bcdi_source(name, column))]
    return stored([path for source in sources for path in list_files(source)])


def bcdi_flags(name, *columns):
    """Flags for the files of a scan, and for the number of the scan in a SPEC file."""
    given = {column: bcdi_source(name, column) for column in columns}
    if given.get("spec"):
        given["scan"] = str(PARTICLES[name].scan)
    return " ".join(f"--{column} {shlex.quote(fetched(value))}" for column, value in given.items() if value)
