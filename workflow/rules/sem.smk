include: "sem_common.smk"


# Everything that is kept, so that whatever is deleted is made again.
TARGETS += expand("results/sem/{set}/{file}", set=LABELLED, file=["index.parquet", "index.csv", "index.json"])
if LABELLED:
    TARGETS += expand(
        "results/sem/pooled/{file}",
        file=[
            "split.parquet",
            "split.csv",
            "split.json",
            "crops.zarr",
            "crops.zarr.manifest.json",
            "crops.parquet",
            "crops.json",
        ],
    )
TARGETS += expand(
    "results/sem/{version}/{file}",
    version=VERSIONS,
    file=[
        "model.pt",
        "train.json",
        "train.png",
        "predictions.csv",
        "predictions_crops.csv",
        "test.json",
        "audit.csv",
        "audit.json",
        "audit.png",
        "explain.json",
        "explain.png",
        *(f"map_{number}.png" for number in range(1, SEM.explain.whole + 1)),
        *(f"{figure}.png" for figure in SEM_FIGURES),
    ],
)
TARGETS += expand(
    "results/sem/{set}/{version}.{suffix}", set=UNLABELLED, version=PREDICTORS, suffix=["csv", "json", "png"]
)


wildcard_constraints:
    set=names("sem"),
    version="|".join(map(re.escape, {**dict.fromkeys(VERSIONS), **dict.fromkeys(PREDICTORS)})),


rule sem_simulate:
    output:
        images=sem_data_sets.simulated_files("results/raw/sem/{set}", SEM.simulate),
    log:
        logs("sem.simulate", "{set}"),
    benchmark:
        benchmarks("sem.simulate", "{set}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.simulate", mem_mb=1000, runtime=10),
    params:
        **stage_params("sem.simulate"),
    message:
        "Simulating the labelled micrographs of data set {wildcards.set}"
    shell:
        "cathodeflow --log {log} --threads {threads} sem simulate results/raw/sem/{wildcards.set} --labelled {params.options}"


rule sem_simulate_foreign:
    output:
        images=sem_data_sets.foreign_files("results/raw/sem/{set}", SEM.simulate),
    log:
        logs("sem.simulate", "{set}"),
    benchmark:
        benchmarks("sem.simulate", "{set}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.simulate", mem_mb=1000, runtime=10),
    params:
        **stage_params("sem.simulate"),
    message:
        "Simulating the micrographs of data set {wildcards.set}, some of them of no class"
    shell:
        "cathodeflow --log {log} --threads {threads} sem simulate results/raw/sem/{wildcards.set} --no-labelled {params.options}"


rule sem_index:
    input:
        raw=lambda wildcards: sem_raw([wildcards.set]),
    output:
        table="results/sem/{set}/index.parquet",
        readable="results/sem/{set}/index.csv",
        record="results/sem/{set}/index.json",
    log:
        logs("sem.index", "{set}"),
    benchmark:
        benchmarks("sem.index", "{set}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.index", mem_mb=2000, runtime=60),
    params:
        **stage_params("sem.index"),
        images=lambda wildcards: sem_images(wildcards.set),
    message:
        "Listing the images of data set {wildcards.set}"
    shell:
        "cathodeflow --log {log} --threads {threads} sem index {params.images:q} --sample {wildcards.set} --out {output.table}"
        " --readable {output.readable} --record {output.record} {params.options}"


rule sem_split:
    input:
        tables=expand("results/sem/{set}/index.parquet", set=LABELLED),
    output:
        table="results/sem/pooled/split.parquet",
        readable="results/sem/pooled/split.csv",
        record="results/sem/pooled/split.json",
    log:
        logs("sem.split", "pooled"),
    benchmark:
        benchmarks("sem.split", "pooled")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.split", mem_mb=1000, runtime=10),
    params:
        **stage_params("sem.split"),
    message:
        "Splitting the images into training, validation and test"
    shell:
        "cathodeflow --log {log} --threads {threads} sem split {input.tables} --out {output.table} --readable {output.readable}"
        " --record {output.record} {params.options}"


rule sem_crops:
    input:
        table="results/sem/pooled/split.parquet",
        raw=sem_raw(LABELLED),
    output:
        store=directory("results/sem/pooled/crops.zarr"),
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        table="results/sem/pooled/crops.parquet",
        record="results/sem/pooled/crops.json",
    log:
        logs("sem.crops", "pooled"),
    benchmark:
        benchmarks("sem.crops", "pooled")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        **resources("sem.crops", mem_mb=4000, runtime=60),
    params:
        **stage_params("sem.crops"),
    message:
        "Cutting crops from the labelled images"
    shell:
        "cathodeflow --log {log} --threads {threads} sem crops {input.table} --out {output.store} --record {output.record}"
        " {params.options}"


rule sem_train:
    input:
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        weights=lambda wildcards: sem_weights(wildcards.version),
    output:
        model="results/sem/{version}/model.pt",
        record="results/sem/{version}/train.json",
        figure=report(
            "results/sem/{version}/train.png",
            category="SEM",
            subcategory="network {version}",
            labels={"figure": "training"},
            caption="../report/sem_train.rst",
        ),
    log:
        logs("sem.train", "{version}"),
    benchmark:
        benchmarks("sem.train", "{version}")
    conda:
        ENVIRONMENT
    threads: lambda wildcards: SEM.networks[wildcards.version].threads
    resources:
        **PARALLEL,
        **resources("sem.train", mem_mb=8000, runtime=1440),
        gpu=lambda wildcards: sem_gpus(wildcards.version),
    params:
        options=lambda wildcards: sem_train_flags(wildcards.version),
        code=code("sem.train"),
    message:
        "Training the SEM network {wildcards.version}"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} sem train results/sem/pooled/crops.zarr --sample {wildcards.version}"
        " --out {output.model} --record {output.record} --figure {output.figure}"
        " --checkpoint results/checkpoints/sem_{wildcards.version}.ckpt {params.options}"


rule sem_test:
    input:
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        model="results/sem/{version}/model.pt",
    output:
        images="results/sem/{version}/predictions.csv",
        crops="results/sem/{version}/predictions_crops.csv",
        record="results/sem/{version}/test.json",
        figures=[
            report(
                f"results/sem/{{version}}/{figure}.png",
                category="SEM",
                subcategory="network {version}",
                labels={"figure": figure},
                caption=f"../report/sem_{figure}.rst",
            )
            for figure in SEM_FIGURES
        ],
    log:
        logs("sem.test", "{version}"),
    benchmark:
        benchmarks("sem.test", "{version}")
    conda:
        ENVIRONMENT
    threads: SEM.test.threads
    resources:
        **resources("sem.test", mem_mb=4000, runtime=60),
        gpu=gpus("sem.test"),
    params:
        **stage_params("sem.test"),
    message:
        "Testing the SEM network {wildcards.version}"
    shell:
        "cathodeflow --log {log} sem test {input.model} results/sem/pooled/crops.zarr"
        " --sample {wildcards.version} --out {output.images} --crops-table {output.crops} --record {output.record}"
        " --figures results/sem/{wildcards.version} {params.options}"


rule sem_audit:
    input:
        split="results/sem/pooled/split.parquet",
        raw=sem_raw(LABELLED),
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        model="results/sem/{version}/model.pt",
        images="results/sem/{version}/predictions.csv",
    output:
        table="results/sem/{version}/audit.csv",
        record="results/sem/{version}/audit.json",
        figure=report(
            "results/sem/{version}/audit.png",
            category="SEM",
            subcategory="network {version}",
            labels={"figure": "audit"},
            caption="../report/sem_audit.rst",
        ),
    log:
        logs("sem.audit", "{version}"),
    benchmark:
        benchmarks("sem.audit", "{version}")
    conda:
        ENVIRONMENT
    threads: SEM.audit.threads
    resources:
        **resources("sem.audit", mem_mb=4000, runtime=60),
        gpu=gpus("sem.audit"),
    params:
        **stage_params("sem.audit"),
    message:
        "Auditing what the SEM network {wildcards.version} can have learnt"
    shell:
        "cathodeflow --log {log} sem audit {input.split} {input.model} results/sem/pooled/crops.zarr"
        " {input.images} --sample {wildcards.version} --out {output.table}"
        " --record {output.record} --figure {output.figure} {params.options}"


rule sem_explain:
    input:
        split="results/sem/pooled/split.parquet",
        raw=sem_raw(LABELLED),
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        model="results/sem/{version}/model.pt",
        images="results/sem/{version}/predictions.csv",
        predicted="results/sem/{version}/predictions_crops.csv",
    output:
        record="results/sem/{version}/explain.json",
        sheet=report(
            "results/sem/{version}/explain.png",
            category="SEM",
            subcategory="network {version}",
            labels={"figure": "where it looks"},
            caption="../report/sem_explain.rst",
        ),
        maps=[
            report(
                f"results/sem/{{version}}/map_{number}.png",
                category="SEM",
                subcategory="network {version}",
                labels={"figure": f"whole image {number}"},
                caption="../report/sem_maps.rst",
            )
            for number in range(1, SEM.explain.whole + 1)
        ],
    log:
        logs("sem.explain", "{version}"),
    benchmark:
        benchmarks("sem.explain", "{version}")
    conda:
        ENVIRONMENT
    threads: SEM.explain.threads
    resources:
        **resources("sem.explain", mem_mb=4000, runtime=60),
        gpu=gpus("sem.explain"),
    params:
        **stage_params("sem.explain"),
    message:
        "Drawing where the SEM network {wildcards.version} looks"
    shell:
        "cathodeflow --log {log} sem explain {input.split} {input.model} results/sem/pooled/crops.zarr"
        " {input.images} {input.predicted} --sample {wildcards.version} --sheet {output.sheet} --maps results/sem/{wildcards.version}"
        " --record {output.record} {params.options}"


rule sem_predict:
    input:
        raw=lambda wildcards: sem_raw([wildcards.set]),
        model=SEM.predict.model or "results/sem/{version}/model.pt",
    output:
        table="results/sem/{set}/{version}.csv",
        record="results/sem/{set}/{version}.json",
        figure=report(
            "results/sem/{set}/{version}.png",
            category="SEM",
            subcategory="data set {set}",
            labels={"figure": "predictions"},
            caption="../report/sem_predict.rst",
        ),
    log:
        "results/logs/sem/{set}/predict_{version}.log",
    benchmark:
        "results/benchmarks/sem/{set}/predict_{version}.tsv"
    conda:
        ENVIRONMENT
    threads: SEM.predict.threads
    resources:
        **resources("sem.predict", mem_mb=4000, runtime=60),
        gpu=gpus("sem.predict"),
    params:
        **stage_params("sem.predict"),
        images=lambda wildcards: sem_images(wildcards.set),
        model=lambda wildcards, input: "" if SEM.predict.model else f"--model {shlex.quote(str(input.model))}",
    message:
        "Predicting the images of data set {wildcards.set}"
    shell:
        "cathodeflow --log {log} sem predict {params.images:q} {params.model} --sample {wildcards.set}"
        " --out {output.table} --record {output.record} --figure {output.figure} {params.options}"
