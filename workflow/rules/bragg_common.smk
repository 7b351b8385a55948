from cathodeflow.bragg import scans

SCANS = SAMPLES["bragg"]
SIMULATE = CONFIG.bragg.simulate


@cache
def bragg_raw(name):
    """Raw files of a scan; Snakemake asks several times."""
    return stored(scans.raw_files(SCANS[name], SIMULATE))
