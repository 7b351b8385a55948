BCDI_FACETS = ["facets.csv", "profiles.csv", "directions.csv", "facets.json", "facets.png", "facet_figures.json"]
# Without the reflection only on request.
if BCDI.facets.reflection:
    for particle, route in BCDI_ROUTES:
        TARGETS += expand(f"results/bcdi/{particle}/{route}/{{file}}", file=BCDI_FACETS)


rule bcdi_facets:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{route}/objects.h5",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
        given=stored([BCDI.facets.cell.file] if BCDI.facets.cell.file else []),
    output:
        table="results/bcdi/{particle}/{route}/facets.csv",
        profiles="results/bcdi/{particle}/{route}/profiles.csv",
        directions="results/bcdi/{particle}/{route}/directions.csv",
        record="results/bcdi/{particle}/{route}/facets.json",
    log:
        logs("bcdi.facets", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.facets", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.facets", mem_mb=8000, runtime=30),
    params:
        **stage_params("bcdi.facets"),
    message:
        "Finding the facets of scan {wildcards.particle} ({wildcards.route})"
    shell:
        command(
            "bcdi facets {input.cxi} --pattern {input.prepared} --objects {input.objects} --out {output.table}"
            " --profiles {output.profiles} --directions {output.directions}",
            "{wildcards.particle}/{wildcards.route}",
        )


rule bcdi_facet_figures:
    input:
        table="results/bcdi/{particle}/{route}/facets.csv",
        profiles="results/bcdi/{particle}/{route}/profiles.csv",
        directions="results/bcdi/{particle}/{route}/directions.csv",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
    output:
        record="results/bcdi/{particle}/{route}/facet_figures.json",
        figure=report(
            "results/bcdi/{particle}/{route}/facets.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "facets", "route": "{route}"},
            caption="../report/bcdi_facets.rst",
        ),
    log:
        logs("bcdi.facet_figures", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.facet_figures", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.facet_figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bcdi.facet_figures"),
    message:
        "Drawing the facets of scan {wildcards.particle} ({wildcards.route})"
    shell:
        command(
            "bcdi facet-figures {input.table} --profiles {input.profiles} --directions {input.directions}"
            " --reconstruction {input.cxi} --out {output.figure}",
            "{wildcards.particle}/{wildcards.route}",
        )
