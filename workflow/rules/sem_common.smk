from cathodeflow.io.image_lists import raw_files, root
from cathodeflow.options import to_flags
from cathodeflow.sem import data_sets as sem_data_sets

SEM = CONFIG.sem
SETS = SAMPLES["sem"]
LABELLED = [name for name, data_set in SETS.items() if data_set.role == "train"]
UNLABELLED = [name for name, data_set in SETS.items() if data_set.role == "predict"]
# Labelled images on which the networks are tested only.
TESTED = [name for name, data_set in SETS.items() if data_set.role == "test"]
# Networks that are trained here, and those that classify images without labels.
VERSIONS = list(SEM.networks) if LABELLED else []
PREDICTORS = VERSIONS if SEM.predict.model is None else ["given"]
SEM_FIGURES = {
    "train": "training",
    "confusion": "confusion",
    "calibration": "calibration",
    "classes": "classes",
    "audit": "audit",
    "explain": "class activation maps",
}
SEM_MAPS = range(1, SEM.explain.whole + 1)


def sem_images(name):
    """Images of a data set as the stages take them."""
    return f"results/raw/sem/{name}" if SETS[name].simulated else SETS[name].images


def sem_simulated(name):
    """Files that a simulated data set consists of."""
    list_files = sem_data_sets.simulated_files if SETS[name].role != "predict" else sem_data_sets.unlabelled_files
    return list_files(f"results/raw/sem/{name}", SEM.simulate)


def sem_raw(names):
    """Raw files of data sets that Snakemake follows."""
    files = [sem_simulated(name) if SETS[name].simulated else raw_files(SETS[name].images, []) for name in names]
    return stored([file for group in files for file in group])


@cache
def sem_contents(*names):
    """Contents of data sets, in which the names of class folders count too."""
    given = [name for name in names if not SETS[name].simulated]
    sources = {name: SETS[name].images for name in given}
    # The mask by which the images are read, if there is one.
    ways = {SEM.predict.mask if SETS[name].role == "predict" else SEM.index.mask for name in given} - {None}
    return contents(
        **{name: (source, raw_files(source, []), root(source)) for name, source in sources.items()},
        **({"mask": (min(ways), sorted(ways))} if ways else {}),
    )


def sem_train_options(version):
    """Options of the training of a version, with the workflow's seed and device."""
    return settings.complete(CONFIG, SEM.networks[version])


def sem_weights(version):
    """File of the initial weights of a version, if they come from a file."""
    weights = SEM.networks[version].weights
    return [] if weights in ("none", "imagenet") else [weights]


def sem_compared(version):
    """What is compared of the options of a version's training, with the contents of its initial weights."""
    given = [file for file in sem_weights(version) if workflow.is_main_process and not reruns.followed([file])]
    weights = {"weights": DIGESTS.of(given)[0]} if given else {}
    return compared(sem_train_options(version).model_copy(update=weights), f"sem.train {version}")


def sem_model(version):
    """Model file of a version, or the given one."""
    return SEM.predict.model or f"results/sem/{version}/model.pt"


def sem_predict_flags(version):
    """Options of the prediction with a version, as one string."""
    options = settings.stage_options(CONFIG, "sem.predict")
    return to_flags(options.model_copy(update={"model": sem_model(version)}))
