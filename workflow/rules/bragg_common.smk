from cathodeflow.bragg import raw_data

SCANS = SAMPLES["bragg"]
SIMULATE = CONFIG.bragg.simulate


@cache
def bragg_raw(name):
    """Raw files of a scan; Snakemake asks several times."""
    return stored(raw_data.raw_files(SCANS[name], SIMULATE))
