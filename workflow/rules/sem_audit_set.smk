if VERSIONS and SEM.predict.model is None:
    TARGETS += expand(
        "results/sem/{set}/{version}/{file}",
        set=TESTED,
        version=VERSIONS,
        file=["audit.csv", "audit_classes.csv", "audit.json"],
    )


rule sem_audit_set:
    input:
        split="results/sem/pooled/split.parquet",
        raw=lambda wildcards: sem_raw([*LABELLED, wildcards.set]),
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        model="results/sem/{version}/model.pt",
        images="results/sem/{set}/{version}/predictions.csv",
        listed="results/sem/{set}/index.parquet",
    output:
        table="results/sem/{set}/{version}/audit.csv",
        classes="results/sem/{set}/{version}/audit_classes.csv",
        record="results/sem/{set}/{version}/audit.json",
    log:
        logs("sem.audit", "{set}/{version}"),
    benchmark:
        benchmarks("sem.audit", "{set}/{version}")
    conda:
        ENVIRONMENT
    threads: SEM.audit.threads
    resources:
        **resources("sem.audit", mem_mb=4000, runtime=60),
        gpu=gpus("sem.audit"),
    params:
        **stage_params("sem.audit"),
        contents=lambda wildcards: sem_contents(*LABELLED, wildcards.set),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Comparing the SEM network {wildcards.version} with trivial features on the images of data set {wildcards.set}"
    shell:
        command(
            "sem audit {input.split} {input.model} results/sem/pooled/crops.zarr {input.images} --out {output.table}"
            " --classes-table {output.classes} --listed {input.listed} --sheet {params.sheet:q}",
            "{wildcards.set}/{wildcards.version}",
        )
