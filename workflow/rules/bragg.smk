SCANS = SAMPLES["bragg"]
TRAINING_SCANS = [name for name, scan in SCANS.items() if scan.role == "train"]
SIMULATED_SCANS = [name for name, scan in SCANS.items() if scan.simulated]
FIGURES = ["patches", "distances", "intensity", "frame"]
RAW = "results/raw/bragg/{scan}"

TARGETS += expand(
    "results/bragg/{scan}/{record}.json",
    scan=SCANS,
    record=["frames", "candidates", "fit", "locate", "compare"],
)


wildcard_constraints:
    scan="|".join(map(re.escape, SCANS)),


def bragg_source(wildcards):
    """Where the raw frames of a scan are."""
    scan = SCANS[wildcards.scan]
    return RAW.format(scan=wildcards.scan) + CONFIG.bragg.simulate.pattern if scan.simulated else scan.frames


def bragg_raw_frames(wildcards):
    """The raw files themselves, so that Snakemake sees each of them change, come and go."""
    scan = SCANS[wildcards.scan]
    if scan.simulated:
        return expand(RAW + "/{file}", scan=wildcards.scan, file=CONFIG.bragg.simulate.files)
    return list_files(scan.frames)


def bragg_correction(kind):
    """Dark or mask image of a scan, if it has one."""

    def image(wildcards):
        scan = SCANS[wildcards.scan]
        if scan.simulated:
            return f"{RAW}/{kind}.tif".format(scan=wildcards.scan)
        given = getattr(scan, kind)
        return split_source(given)[0] if given else []

    return image
