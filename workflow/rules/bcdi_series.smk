from cathodeflow.bcdi.series_scans import scan_series

# Series of each route to a reconstruction, by their name.
BCDI_SERIES = {
    (route, name): found
    for route in ("phase", "refine")
    for name, found in scan_series(PARTICLES, BCDI.series.against, route).items()
}

for route, name in BCDI_SERIES:
    TARGETS += expand(
        f"results/bcdi/series/{name}/{route}/{{file}}",
        file=["series.csv", "aligned.h5", "series.json", "series.png", "series_figures.json"],
    )


def bcdi_series_files(wildcards, file):
    """A file of all scans of a series, in its order."""
    scans = BCDI_SERIES[wildcards.route, wildcards.series].scans
    return [file.format(particle=name, route=wildcards.route) for name in scans]


def bcdi_series_flags(wildcards):
    """Names, files and conditions of all scans of a series, and the column that orders it."""
    series = BCDI_SERIES[wildcards.route, wildcards.series]
    given = {"scan": series.scans}
    given["prepared"] = bcdi_series_files(wildcards, "results/bcdi/{particle}/prepared.h5")
    given["reconstruction"] = bcdi_series_files(wildcards, "results/bcdi/{particle}/{route}/reconstruction.cxi")
    # With the sign '=' a value that begins with a minus sign is not read as a flag.
    given |= {name.replace("_", "-"): values for name, values in series.conditions.items()}
    return " ".join(f"--{flag}={value}" for flag, values in given.items() for value in values)


def bcdi_series_options(wildcards):
    """Options of a series; the reference counts in the series that has this scan."""
    series = BCDI_SERIES[wildcards.route, wildcards.series]
    options = settings.stage_options(CONFIG, "bcdi.series").model_copy(update={"against": series.against})
    known = options.reference in series.scans
    return to_flags(options if known else options.model_copy(update={"reference": None}))


wildcard_constraints:
    series=SAMPLE_NAME,


rule bcdi_series:
    input:
        objects=lambda wildcards: bcdi_series_files(wildcards, "results/bcdi/{particle}/{route}/objects.h5"),
        prepared=lambda wildcards: bcdi_series_files(wildcards, "results/bcdi/{particle}/prepared.h5"),
        cxi=lambda wildcards: bcdi_series_files(wildcards, "results/bcdi/{particle}/{route}/reconstruction.cxi"),
    output:
        table="results/bcdi/series/{series}/{route}/series.csv",
        aligned="results/bcdi/series/{series}/{route}/aligned.h5",
        record="results/bcdi/series/{series}/{route}/series.json",
    log:
        logs("bcdi.series", "series/{series}/{route}"),
    benchmark:
        benchmarks("bcdi.series", "series/{series}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.series", mem_mb=4000, runtime=60),
    params:
        scans=bcdi_series_flags,
        options=bcdi_series_options,
        code=code("bcdi.series"),
    message:
        "Comparing the scans of the series {wildcards.series} ({wildcards.route})"
    shell:
        command(
            "bcdi series {input.objects} {params.scans} --out {output.table} --aligned {output.aligned}",
            "{wildcards.series}/{wildcards.route}",
        )


rule bcdi_series_figures:
    input:
        table="results/bcdi/series/{series}/{route}/series.csv",
        aligned="results/bcdi/series/{series}/{route}/aligned.h5",
    output:
        record="results/bcdi/series/{series}/{route}/series_figures.json",
        figure=report(
            "results/bcdi/series/{series}/{route}/series.png",
            category="BCDI",
            subcategory="series {series}",
            labels={"figure": "series", "route": "{route}"},
            caption="../report/bcdi_series.rst",
        ),
    log:
        logs("bcdi.series_figures", "series/{series}/{route}"),
    benchmark:
        benchmarks("bcdi.series_figures", "series/{series}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.series_figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bcdi.series_figures"),
    message:
        "Drawing the figure of the series {wildcards.series} ({wildcards.route})"
    shell:
        command(
            "bcdi series-figures {input.table} {input.aligned} --out {output.figure}",
            "{wildcards.series}/{wildcards.route}",
        )
