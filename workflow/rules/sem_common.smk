from cathodeflow.io.image_lists import raw_files
from cathodeflow.options import to_flags
from cathodeflow.sem import data_sets as sem_data_sets

SEM = CONFIG.sem
SETS = SAMPLES["sem"]
LABELLED = [name for name, one in SETS.items() if one.role == "train"]
UNLABELLED = [name for name, one in SETS.items() if one.role == "predict"]
# Networks that are trained here, and those that predict.
VERSIONS = list(SEM.networks) if LABELLED else []
PREDICTORS = VERSIONS if SEM.predict.model is None else ["given"]
SEM_FIGURES = ["confusion", "calibration", "classes"]


def sem_images(name):
    """Images of a data set as `cathodeflow sem` takes them."""
    return f"results/raw/sem/{name}" if SETS[name].simulated else SETS[name].images


def sem_simulated(name):
    """Files that a simulated data set consists of."""
    list_files = sem_data_sets.simulated_files if SETS[name].role == "train" else sem_data_sets.foreign_files
    return list_files(f"results/raw/sem/{name}", SEM.simulate)


def sem_raw(names):
    """Raw files themselves, so that Snakemake sees each of them change, come and go."""
    return [
        file
        for name in names
        for file in (sem_simulated(name) if SETS[name].simulated else raw_files(SETS[name].images))
    ]


def sem_train_flags(version):
    """Options of a version's training as one string."""
    return to_flags(settings.complete(CONFIG, SEM.networks[version]))


def sem_weights(version):
    """File of the weights that a version starts from, if it is one."""
    weights = SEM.networks[version].weights
    return [] if weights in ("none", "imagenet") else [weights]


def sem_gpus(version):
    """GPUs that a version's training asks for."""
    return gpus_of(settings.complete(CONFIG, SEM.networks[version]))
