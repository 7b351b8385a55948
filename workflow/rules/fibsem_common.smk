from cathodeflow.fibsem import data_sets as fibsem_data_sets
from cathodeflow.io.sources import list_files
from cathodeflow.options import to_flags

FIBSEM = CONFIG.fibsem
VOLUMES = SAMPLES["fibsem"]
TRAINED = [name for name, one in VOLUMES.items() if one.role == "train"]
NEW = [name for name, one in VOLUMES.items() if one.role == "predict"]
SPLITS = list(FIBSEM.augment.splits)
RUN = "results/fibsem/{volume}/{split}/seed{seed}"
# Of a store: itself, and its manifest.
STORE = ["", ".manifest.json"]
FIBSEM_METRICS = [
    "metrics.csv",
    "metrics_slices.csv",
    "differences.csv",
    "metrics.json",
    "methods.png",
    "fractions.png",
]


def fibsem_source(name, part):
    """Slices (`images`) or labels of a volume as `cathodeflow fibsem` takes them."""
    folder = f"results/raw/fibsem/{name}/{'slices' if part == 'images' else 'labels'}"
    return folder if VOLUMES[name].simulated else getattr(VOLUMES[name], part)


def fibsem_raw(name, part):
    """Raw files themselves, so that Snakemake sees each of them change, come and go."""
    if VOLUMES[name].simulated:
        return fibsem_data_sets.simulated_files(f"results/raw/fibsem/{name}", FIBSEM.simulate)[part == "labels"]
    source = fibsem_source(name, part)
    return stored(list_files(source)) if source else []


def fibsem_stores(folder, names, parts):
    """Stores of some volumes, with the manifests that stand for them."""
    return [f"{folder}/{name}/{part}.zarr{suffix}" for name in names for part in parts for suffix in STORE]


def fibsem_manifests(pattern, names):
    """Manifests alone, which downstream rules wait for."""
    return [f"{pattern}{name}.zarr.manifest.json" for name in names]


def fibsem_network_options(network):
    """Options of a network's training, with the workflow's seed and device."""
    return settings.complete(CONFIG, FIBSEM.networks[network])


def fibsem_network(wildcards):
    """Path, without suffix, of the network that a method with a local model is built on."""
    return f"{RUN}/{FIBSEM.methods[wildcards.method]}".format(**wildcards)


def fibsem_model(wildcards):
    """Model that segments slices without labels: one that is given, or the first one trained here."""
    first = RUN.format(volume=TRAINED[0], split=SPLITS[0], seed=FIBSEM.seeds[0]) if TRAINED else ""
    return FIBSEM.predict.model or f"{first}/model.pt"
