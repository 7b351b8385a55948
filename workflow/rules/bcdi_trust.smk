for particle, route in BCDI_ROUTES:
    TARGETS += expand(
        f"results/bcdi/{particle}/{route}/{{file}}", file=["trust.csv", "spread.csv", "strain_errors.cxi", "trust.json"]
    )


rule bcdi_trust:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{route}/objects.h5",
        phasing="results/bcdi/{particle}/{route}/{route}.json",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
    output:
        table="results/bcdi/{particle}/{route}/trust.csv",
        spread="results/bcdi/{particle}/{route}/spread.csv",
        errors="results/bcdi/{particle}/{route}/strain_errors.cxi",
        record="results/bcdi/{particle}/{route}/trust.json",
    log:
        logs("bcdi.trust", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.trust", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: BCDI.trust.threads
    resources:
        **resources("bcdi.trust", mem_mb=8000, runtime=120),
        gpu=gpus("bcdi.trust"),
    params:
        **stage_params("bcdi.trust"),
    message:
        "Estimating how far the objects of scan {wildcards.particle} ({wildcards.route}) can be trusted"
    shell:
        command(
            "bcdi trust {input.prepared} {input.objects} {input.phasing} {input.cxi} --out {output.table}"
            " --spread {output.spread} --errors {output.errors}",
            "{wildcards.particle}/{wildcards.route}",
        )
