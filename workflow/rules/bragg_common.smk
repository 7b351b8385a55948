from cathodeflow.bragg import raw_data
from cathodeflow.io.sources import files_read

SCANS = SAMPLES["bragg"]
SIMULATE = CONFIG.bragg.simulate


@cache
def bragg_raw(name):
    """Raw files of a scan; Snakemake asks several times."""
    return raw_data.raw_files(SCANS[name], SIMULATE)


@cache
def bragg_contents(name):
    """Contents of the raw files, the dark image and the mask of a scan."""
    if SCANS[name].simulated:
        return reruns.RESULTS
    corrections = raw_data.corrections(SCANS[name])
    return contents(
        frames=(raw_data.source(SCANS[name], SIMULATE), bragg_raw(name)),
        **{kind: (given, files_read(given)) for kind, given in corrections.items()},
    )
