from cathodeflow.bcdi.exchange_options import EXPORT_FILES as BCDI_EXPORT_FILES

BCDI_EXPORTS = [file for kind in BCDI.export.formats for file in BCDI_EXPORT_FILES[kind]]
if BCDI_EXPORTS:
    for particle, route in BCDI_ROUTES:
        TARGETS += expand(f"results/bcdi/{particle}/{route}/{{file}}", file=["export.json", *BCDI_EXPORTS])


rule bcdi_export:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{route}/objects.h5",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
    output:
        record="results/bcdi/{particle}/{route}/export.json",
        files=[f"results/bcdi/{{particle}}/{{route}}/{file}" for file in BCDI_EXPORTS],
    log:
        logs("bcdi.export", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.export", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.export", mem_mb=4000, runtime=10),
    params:
        **stage_params("bcdi.export"),
    message:
        "Writing pattern and object of scan {wildcards.particle} for other programs ({wildcards.route})"
    shell:
        command(
            "bcdi export {input.prepared} --objects {input.objects} --reconstruction {input.cxi}"
            " --out results/bcdi/{wildcards.particle}/{wildcards.route}",
            "{wildcards.particle}/{wildcards.route}",
        )
