for route, name in BCDI_SERIES:
    TARGETS += expand(
        f"results/bcdi/series/{name}/{route}/{{file}}",
        file=["series.csv", "aligned.h5", "series.json", "series.png", "series_figures.json"],
    )


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
