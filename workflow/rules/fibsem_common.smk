from cathodeflow.io.sources import files_read
from cathodeflow.options import to_flags

FIBSEM = CONFIG.fibsem
VOLUMES = SAMPLES["fibsem"]
LABELLED = [name for name, volume in VOLUMES.items() if volume.role == "train"]
# Names of the results of training: of each volume, or of all together.
TRAINED = FIBSEM.folders() if LABELLED and FIBSEM.pooled else LABELLED
NEW = [name for name, volume in VOLUMES.items() if volume.role == "predict"]
SPLITS = list(FIBSEM.augment.splits)
RUN = "results/fibsem/{volume}/{split}/seed{seed}"
# Of a store: itself, and its manifest.
STORE = ["", ".manifest.json"]
# The same folder, its name in records, and the stores of its images and their labels, in shell commands.
FIBSEM_RUN = "results/fibsem/{wildcards.volume}/{wildcards.split}/seed{wildcards.seed}"
FIBSEM_SAMPLE = "{wildcards.volume}/{wildcards.split}/seed{wildcards.seed}"
FIBSEM_IMAGES = "results/fibsem/{wildcards.volume}/images.zarr results/fibsem/{wildcards.volume}/image_labels.zarr"


def fibsem_source(name, part):
    """Slices (`images`) or labels of a volume as `cathodeflow fibsem` takes them."""
    folder = f"results/raw/fibsem/{name}/{'slices' if part == 'images' else 'labels'}"
    return folder if VOLUMES[name].simulated else getattr(VOLUMES[name], part)


def fibsem_raw(name, part):
    """Raw files of a volume that Snakemake follows."""
    if VOLUMES[name].simulated:
        return FIBSEM.simulate.files(f"results/raw/fibsem/{name}")[part == "labels"]
    source = fibsem_source(name, part)
    return stored(files_read(source)) if source else []


@cache
def fibsem_contents(name, *parts):
    """Contents of the slices and labels of a volume."""
    given = {part: source for part in parts if (source := fibsem_source(name, part))}
    if VOLUMES[name].simulated:
        return reruns.RESULTS
    return contents(**{part: (source, files_read(source)) for part, source in given.items()})


def fibsem_members(name):
    """Volumes that are trained on under a name."""
    return LABELLED if FIBSEM.pooled else [name]


def fibsem_pooled(name):
    """Flags with the further volumes of a pool."""
    return " ".join(
        f"--more-{part} results/fibsem/{member}/{part}.zarr"
        for member in fibsem_members(name)[1:]
        for part in ("slices", "labels")
    )


def fibsem_stores(folder, names, parts, between="/"):
    """Stores of volumes (or of networks, with `_` between), with their manifests."""
    return [f"{folder}/{name}{between}{part}.zarr{suffix}" for name in names for part in parts for suffix in STORE]


def fibsem_manifests(pattern, names):
    """Manifests of stores, which downstream rules wait for."""
    return [f"{pattern}{name}.zarr.manifest.json" for name in names]


def fibsem_network_options(network):
    """Options of a network's training, with the workflow's seed and device."""
    return settings.complete(CONFIG, FIBSEM.networks[network])


def fibsem_network(wildcards):
    """Path, without suffix, of the network that a method with a local model is built on."""
    return f"{RUN}/{FIBSEM.methods[wildcards.method].network}".format(**wildcards)


def fibsem_method_options(method, part):
    """Options of a part (`train_idk`, `train_local`) of a method, with the workflow's seed and device."""
    return settings.complete(CONFIG, getattr(FIBSEM.methods[method], part))


def fibsem_model():
    """Model that segments slices without labels: that of the options, or the first one trained here."""
    first = RUN.format(volume=TRAINED[0], split=SPLITS[0], seed=FIBSEM.seeds[0]) if TRAINED else ""
    return FIBSEM.predict.model or f"{first}/model.pt"


def fibsem_predict_options():
    """Options of the prediction, completed with the trained model."""
    return settings.stage_options(CONFIG, "fibsem.predict").model_copy(update={"model": fibsem_model()})


def fibsem_measure_options():
    """Options of the measurement, completed with the trained model."""
    return settings.stage_options(CONFIG, "fibsem.measure").model_copy(
        update={"model": FIBSEM.measure.model or fibsem_model()}
    )


def fibsem_calibration():
    """Calibration that belongs to the model: one that is trained here is calibrated here, too."""
    if FIBSEM.measure.calibration or FIBSEM.measure.model or FIBSEM.predict.model:
        return stored([FIBSEM.measure.calibration]) if FIBSEM.measure.calibration else []
    return [fibsem_model().removesuffix(".pt") + "_errors.json"]


def fibsem_labels(volume):
    """Store of the labels of a volume: given, or predicted."""
    return f"results/fibsem/{volume}/{'phases' if volume in NEW else 'labels'}.zarr"
