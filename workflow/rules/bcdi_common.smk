from cathodeflow.bcdi import scans as bcdi_scans
from cathodeflow.bcdi.options import MODEL_FOLDER as BCDI_MODEL_FOLDER
from cathodeflow.bcdi.series_scans import scan_series
from cathodeflow.io.sources import files_read
from cathodeflow.options import to_flags

BCDI = CONFIG.bcdi
PARTICLES = SAMPLES["bcdi"]
# Scans, and the routes to a reconstruction that the role of each asks for.
BCDI_ROUTES = [(name, route) for name, scan in PARTICLES.items() for route in scan.routes]
BCDI_NETWORK = any(route == "refine" for _, route in BCDI_ROUTES)
BCDI_TRAINED = BCDI_NETWORK and not BCDI.infer.model
BCDI_FOLDER = f"results/bcdi/{BCDI_MODEL_FOLDER}"
BCDI_MODEL = BCDI.infer.model or f"{BCDI_FOLDER}/model.pt"
BCDI_STORES = ["amplitudes", "objects", "good"]
# Columns of the sample sheet that the preparation reads.
BCDI_PREPARED = ["frames", "dark", "whitefield", "mask", "spec", "geometry"]
# First number of the test crystals, beyond those of every training set.
BCDI_UNSEEN = 1_000_000_000

# Series of each route to a reconstruction, by their name.
BCDI_SERIES = {
    (route, name): found
    for route in ("phase", "refine")
    for name, found in scan_series(PARTICLES, BCDI.series.against, route).items()
}


def bcdi_simulate_options(part):
    """Options of the training crystals (`train`), or of the test crystals, which the network is not trained on (`test`)."""
    options = settings.stage_options(CONFIG, "bcdi.simulate")
    unseen = {"crystals": BCDI.evaluate.crystals, "first": options.first + BCDI_UNSEEN}
    return to_flags(options if part == "train" else options.model_copy(update=unseen))


def bcdi_source(name, column):
    """Files of a scan as `cathodeflow bcdi` takes them; None where the sheet names none."""
    if not PARTICLES[name].simulated:
        return getattr(PARTICLES[name], column)
    files = bcdi_scans.simulated_files(f"results/raw/bcdi/{name}", BCDI.simulate_scan.frames)
    return f"results/raw/bcdi/{name}/frames" if column == "frames" else files.get(column)


def bcdi_raw(name, *columns):
    """Raw files of a scan that Snakemake follows."""
    if PARTICLES[name].simulated:
        files = bcdi_scans.simulated_files(f"results/raw/bcdi/{name}", BCDI.simulate_scan.frames)
        found = [files[column] for column in columns if column in files]
        return [path for item in found for path in (item if isinstance(item, list) else [item])]
    sources = [source for column in columns if (source := bcdi_source(name, column))]
    return stored([path for source in sources for path in files_read(source)])


@cache
def bcdi_contents(name, *columns):
    """Contents of the files of a scan, and its number in a SPEC file."""
    if PARTICLES[name].simulated:
        return reruns.RESULTS
    given = {column: source for column in columns if (source := bcdi_source(name, column))}
    number = f" scan {PARTICLES[name].scan}" if PARTICLES[name].scan is not None else ""
    return contents(**{column: (source, files_read(source)) for column, source in given.items()}) + number


def bcdi_flags(name, *columns):
    """Flags for the files of a scan, and for the number of the scan in a SPEC file."""
    given = {column: bcdi_source(name, column) for column in columns}
    if given.get("spec") and PARTICLES[name].scan is not None:
        given["scan"] = str(PARTICLES[name].scan)
    return " ".join(f"--{column} {shlex.quote(fetched(value))}" for column, value in given.items() if value)


def bcdi_infer_options():
    """Options of the prediction, completed with the trained model."""
    return settings.stage_options(CONFIG, "bcdi.infer").model_copy(update={"model": BCDI_MODEL})


def bcdi_simulated_state(name):
    """Flags for the crystal of a simulated scan; with a state of charge, that of the first scan of its series."""
    number, scan = list(PARTICLES).index(name), PARTICLES[name]
    if scan.state_of_charge is None:
        return f"--number {number}"
    first = next(index for index, other in enumerate(PARTICLES.values()) if other.series == scan.series)
    return f"--number {first} --state-of-charge {scan.state_of_charge} --exposure {number}"


def bcdi_series_files(wildcards, file):
    """A file of all scans of a series, in its order."""
    scans = BCDI_SERIES[wildcards.route, wildcards.series].scans
    return [file.format(particle=name, route=wildcards.route) for name in scans]


def bcdi_series_flags(wildcards):
    """Names, files and conditions of all scans of a series, and the column that orders it."""
    series = BCDI_SERIES[wildcards.route, wildcards.series]
    given = {"scan": series.scans}
    given["prepared"] = bcdi_series_files(wildcards, "results/bcdi/{particle}/prepared.h5")
    given["reconstruction"] = bcdi_series_files(wildcards, "results/bcdi/{particle}/{route}/reconstruction.cxi")
    # With the sign '=' a value that begins with a minus sign is not read as a flag.
    given |= {name.replace("_", "-"): values for name, values in series.conditions.items()}
    return " ".join(f"--{flag}={value}" for flag, values in given.items() for value in values)


def bcdi_series_options(wildcards):
    """Options of a series; the reference counts in the series that has this scan."""
    series = BCDI_SERIES[wildcards.route, wildcards.series]
    options = settings.stage_options(CONFIG, "bcdi.series").model_copy(update={"against": series.against})
    known = options.reference in series.scans
    return to_flags(options if known else options.model_copy(update={"reference": None}))
