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
    given = {kind: (source, files_read(source)) for kind, source in raw_data.given_files(SCANS[name]).items()}
    if SCANS[name].simulated:
        return contents(**given) or reruns.RESULTS
    return contents(frames=(raw_data.source(SCANS[name], SIMULATE), bragg_raw(name)), **given)


@cache
def bragg_geometry_contents(name):
    """Contents of the geometry file of a scan."""
    source = SCANS[name].geometry
    return contents(geometry=(source, files_read(source))) if source else reruns.RESULTS


def bragg_geometry_files(name):
    """Geometry file of a scan, if it has one."""
    source = raw_data.geometry_source(SCANS[name])
    return [source] if source else []


def bragg_detector_flag():
    """Flag of a stage for the name of the detector in the geometry files, if it is set."""
    detector = CONFIG.bragg.geometry.detector
    return f"--detector {shlex.quote(detector)}" if detector else ""


def bragg_geometry_flags(name):
    """Flags of a stage for the geometry of a scan, if it has one."""
    source = raw_data.geometry_source(SCANS[name])
    return f"--geometry {shlex.quote(fetched(source))} {bragg_detector_flag()}" if source else ""
