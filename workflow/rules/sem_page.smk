# Pages of predictions, where `sem.pages` asks for them.
if SEM.pages:
    TARGETS += expand(
        "results/sem/{set}/{file}",
        set=UNLABELLED,
        file=[name for version in PREDICTORS for name in (f"{version}.html", f"page_{version}.json")],
    )


rule sem_page:
    input:
        table="results/sem/{set}/{version}.csv",
        raw=lambda wildcards: sem_raw([wildcards.set]),
        model=lambda wildcards: stored([sem_model(wildcards.version)]),
    output:
        page="results/sem/{set}/{version}.html",
        record="results/sem/{set}/page_{version}.json",
    log:
        logs("sem.page", "{set}/{version}"),
    benchmark:
        benchmarks("sem.page", "{set}/{version}")
    conda:
        ENVIRONMENT
    threads: SEM.page.threads
    resources:
        **resources("sem.page", mem_mb=4000, runtime=60),
        gpu=gpus("sem.page"),
    params:
        **stage_params("sem.page"),
        model=not_compared(lambda wildcards: sem_model(wildcards.version)),
    message:
        "Showing the predictions for data set {wildcards.set} by the SEM network {wildcards.version} on a page"
    shell:
        command("sem page {input.table} {params.model:q} --out {output.page}", "{wildcards.set}")
