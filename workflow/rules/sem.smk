include: "sem_common.smk"


# All files that are kept, so that deleted ones are made again.
TARGETS += expand(
    "results/sem/{set}/{file}", set=[*LABELLED, *TESTED], file=["index.parquet", "index.csv", "index.json"]
)
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
        "predictions.csv",
        "predictions_crops.csv",
        "metrics.csv",
        "calibration.csv",
        "test.json",
        "audit.csv",
        "audit.json",
        "explain.h5",
        "explain_crops.csv",
        "explain_images.csv",
        "explain.json",
        "figures.json",
        *(f"{figure}.png" for figure in SEM_FIGURES),
        *(f"map_{number}.png" for number in SEM_MAPS),
    ],
)
TARGETS += expand(
    "results/sem/{set}/{version}/{file}",
    set=TESTED,
    version=PREDICTORS,
    file=["predictions.csv", "predictions_crops.csv", "metrics.csv", "calibration.csv", "test.json"],
)
TARGETS += expand(
    "results/sem/{set}/{file}",
    set=UNLABELLED,
    file=[
        name
        for version in PREDICTORS
        for name in (f"{version}.csv", f"{version}.json", f"{version}.png", f"figures_{version}.json")
    ],
)

if SEM.pages:
    TARGETS += expand(
        "results/sem/{set}/{file}",
        set=UNLABELLED,
        file=[name for version in PREDICTORS for name in (f"{version}.html", f"page_{version}.json")],
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
        command("sem simulate results/raw/sem/{wildcards.set} --labelled")


rule sem_simulate_unlabelled:
    output:
        images=sem_data_sets.unlabelled_files("results/raw/sem/{set}", SEM.simulate),
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
        "Simulating the micrographs of data set {wildcards.set}, some of which belong to no class"
    shell:
        command("sem simulate results/raw/sem/{wildcards.set} --no-labelled")


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
        contents=lambda wildcards: sem_contents(wildcards.set),
        images=not_compared(lambda wildcards: sem_images(wildcards.set)),
    message:
        "Listing the images of data set {wildcards.set}"
    shell:
        command(
            "sem index {params.images:q} --out {output.table} --readable {output.readable}",
            "{wildcards.set}",
        )


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
        command("sem split {input.tables} --out {output.table} --readable {output.readable}", "pooled")


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
        contents=lambda wildcards: sem_contents(*LABELLED),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Cutting crops from the labelled images"
    shell:
        command("sem crops {input.table} --out {output.store} --sheet {params.sheet:q}", "pooled")


rule sem_train:
    input:
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        weights=lambda wildcards: stored(sem_weights(wildcards.version)),
    output:
        model="results/sem/{version}/model.pt",
        record="results/sem/{version}/train.json",
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
        gpu=lambda wildcards: gpus_of(sem_train_options(wildcards.version)),
    params:
        options=not_compared(lambda wildcards: to_flags(sem_train_options(wildcards.version))),
        compared=lambda wildcards: sem_compared(wildcards.version),
        code=code("sem.train"),
    message:
        "Training the SEM network {wildcards.version}"
    shell:
        training_command(
            "sem train results/sem/pooled/crops.zarr --out {output.model}",
            sample="{wildcards.version}",
            checkpoint="sem_{wildcards.version}",
        )


rule sem_test:
    input:
        manifest="results/sem/pooled/crops.zarr.manifest.json",
        crops="results/sem/pooled/crops.parquet",
        model="results/sem/{version}/model.pt",
    output:
        images="results/sem/{version}/predictions.csv",
        crops="results/sem/{version}/predictions_crops.csv",
        metrics="results/sem/{version}/metrics.csv",
        calibration="results/sem/{version}/calibration.csv",
        record="results/sem/{version}/test.json",
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
        command(
            "sem test {input.model} results/sem/pooled/crops.zarr --out {output.images} --crops-table {output.crops}"
            " --metrics-table {output.metrics} --calibration {output.calibration}",
            "{wildcards.version}",
        )


rule sem_test_set:
    input:
        table="results/sem/{set}/index.parquet",
        raw=lambda wildcards: sem_raw([wildcards.set]),
        model=lambda wildcards: stored([sem_model(wildcards.version)]),
    output:
        images="results/sem/{set}/{version}/predictions.csv",
        crops="results/sem/{set}/{version}/predictions_crops.csv",
        metrics="results/sem/{set}/{version}/metrics.csv",
        calibration="results/sem/{set}/{version}/calibration.csv",
        record="results/sem/{set}/{version}/test.json",
    log:
        logs("sem.test", "{set}/{version}"),
    benchmark:
        benchmarks("sem.test", "{set}/{version}")
    conda:
        ENVIRONMENT
    threads: SEM.test.threads
    resources:
        **resources("sem.test", mem_mb=4000, runtime=60),
        gpu=gpus("sem.test"),
    params:
        **stage_params("sem.test"),
        contents=lambda wildcards: sem_contents(wildcards.set),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Testing the SEM network {wildcards.version} on the images of data set {wildcards.set}"
    shell:
        command(
            "sem test {input.model} {input.table} --out {output.images} --crops-table {output.crops}"
            " --metrics-table {output.metrics} --calibration {output.calibration} --sheet {params.sheet:q}",
            "{wildcards.set}/{wildcards.version}",
        )


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
        classes="results/sem/{version}/audit_classes.csv",
        record="results/sem/{version}/audit.json",
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
        contents=lambda wildcards: sem_contents(*LABELLED),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Comparing the SEM network {wildcards.version} with trivial features"
    shell:
        command(
            "sem audit {input.split} {input.model} results/sem/pooled/crops.zarr {input.images} --out {output.table}"
            " --classes-table {output.classes} --sheet {params.sheet:q}",
            "{wildcards.version}",
        )


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
        maps="results/sem/{version}/explain.h5",
        crops="results/sem/{version}/explain_crops.csv",
        images="results/sem/{version}/explain_images.csv",
        record="results/sem/{version}/explain.json",
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
        contents=lambda wildcards: sem_contents(*LABELLED),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Computing class activation maps of the SEM network {wildcards.version}"
    shell:
        command(
            "sem explain {input.split} {input.model} results/sem/pooled/crops.zarr {input.images} {input.predicted}"
            " --out {output.maps} --crops-table {output.crops} --images-table {output.images}"
            " --sheet {params.sheet:q}",
            "{wildcards.version}",
        )


rule sem_predict:
    input:
        raw=lambda wildcards: sem_raw([wildcards.set]),
        model=lambda wildcards: stored([sem_model(wildcards.version)]),
    output:
        table="results/sem/{set}/{version}.csv",
        record="results/sem/{set}/{version}.json",
    log:
        logs("sem.predict", "{set}/{version}"),
    benchmark:
        benchmarks("sem.predict", "{set}/{version}")
    conda:
        ENVIRONMENT
    threads: SEM.predict.threads
    resources:
        **resources("sem.predict", mem_mb=4000, runtime=60),
        gpu=gpus("sem.predict"),
    params:
        options=not_compared(lambda wildcards: sem_predict_flags(wildcards.version)),
        compared=lambda wildcards: compared_stage("sem.predict"),
        code=code("sem.predict"),
        contents=lambda wildcards: sem_contents(wildcards.set),
        images=not_compared(lambda wildcards: sem_images(wildcards.set)),
    message:
        "Classifying the images of data set {wildcards.set} with the SEM network {wildcards.version}"
    shell:
        command("sem predict {params.images:q} --out {output.table}", "{wildcards.set}")


rule sem_figures:
    input:
        training="results/sem/{version}/train.json",
        images="results/sem/{version}/predictions.csv",
        metrics="results/sem/{version}/metrics.csv",
        calibration="results/sem/{version}/calibration.csv",
        audit="results/sem/{version}/audit.csv",
        maps="results/sem/{version}/explain.h5",
        mapped_crops="results/sem/{version}/explain_crops.csv",
        mapped_images="results/sem/{version}/explain_images.csv",
    output:
        record="results/sem/{version}/figures.json",
        figures=[
            report(
                f"results/sem/{{version}}/{figure}.png",
                category="SEM",
                subcategory="network {version}",
                labels={"figure": title},
                caption=f"../report/sem_{figure}.rst",
            )
            for figure, title in SEM_FIGURES.items()
        ],
        maps=[
            report(
                f"results/sem/{{version}}/map_{number}.png",
                category="SEM",
                subcategory="network {version}",
                labels={"figure": f"whole image {number}"},
                caption="../report/sem_maps.rst",
            )
            for number in SEM_MAPS
        ],
    log:
        logs("sem.figures", "{version}"),
    benchmark:
        benchmarks("sem.figures", "{version}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("sem.figures"),
    message:
        "Drawing the figures of the SEM network {wildcards.version}"
    shell:
        command(
            "sem figures --training {input.training} --images {input.images} --metrics-table {input.metrics}"
            " --calibration {input.calibration} --audited {input.audit} --maps {input.maps}"
            " --mapped-crops {input.mapped_crops} --mapped-images {input.mapped_images}"
            " --out results/sem/{wildcards.version}",
            "{wildcards.version}",
        )


rule sem_prediction_figures:
    input:
        predictions="results/sem/{set}/{version}.csv",
    output:
        record="results/sem/{set}/figures_{version}.json",
        figure=report(
            "results/sem/{set}/{version}.png",
            category="SEM",
            subcategory="data set {set}",
            labels={"figure": "predictions"},
            caption="../report/sem_predict.rst",
        ),
    log:
        logs("sem.figures", "{set}/{version}"),
    benchmark:
        benchmarks("sem.figures", "{set}/{version}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("sem.figures"),
    message:
        "Drawing the predictions for data set {wildcards.set} by the SEM network {wildcards.version}"
    shell:
        command("sem figures --predictions {input.predictions} --out results/sem/{wildcards.set}", "{wildcards.set}")


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
