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
    """Contents of the raw files of a scan, and of the images and the table of angles that go with them."""
    corrections = raw_data.corrections(SCANS[name])
    if SCANS[name].simulated:
        given = {kind: source for kind, source in corrections.items() if kind in ("flat", "omega")}
        return contents(**{kind: (source, files_read(source)) for kind, source in given.items()}) or reruns.RESULTS
    return contents(
        frames=(raw_data.source(SCANS[name], SIMULATE), bragg_raw(name)),
        **{kind: (given, files_read(given)) for kind, given in corrections.items()},
    )


@cache
def bragg_geometry_contents(name):
    """Contents of the geometry file of a scan."""
    source = SCANS[name].geometry
    return contents(geometry=(source, files_read(source)))
