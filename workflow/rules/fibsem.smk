include: "fibsem_common.smk"


# All files that are kept, so that deleted ones are made again.
TARGETS += fibsem_stores("results/fibsem", LABELLED, ["slices", "labels"])
TARGETS += fibsem_stores("results/fibsem", TRAINED, ["images", "image_labels"])
TARGETS += expand("results/fibsem/{volume}/volume.json", volume=LABELLED)
TARGETS += expand(
    "results/fibsem/{volume}/{file}",
    volume=TRAINED,
    file=[
        "pairs.parquet",
        "augment.json",
        "metrics.csv",
        "metrics_slices.csv",
        "differences.csv",
        "metrics.json",
        "figures.json",
        "methods.png",
        "fractions.png",
    ],
)
TARGETS += expand(
    [
        f"{RUN}/{{network}}.pt",
        f"{RUN}/{{network}}.json",
        f"{RUN}/{{network}}.png",
        f"{RUN}/{{network}}_images.parquet",
        f"{RUN}/{{network}}_global.json",
        *fibsem_stores(RUN, ["{network}"], ["logits", "entropy", "labels"], between="_"),
    ],
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    network=FIBSEM.networks,
)
TARGETS += expand(
    [
        f"{RUN}/{{method}}_idk.pt",
        f"{RUN}/{{method}}_idk.json",
        f"{RUN}/{{method}}_local.pt",
        f"{RUN}/{{method}}_local.json",
        f"{RUN}/{{method}}_entropy.parquet",
        f"{RUN}/{{method}}_local.png",
        f"{RUN}/{{method}}_pacing.png",
    ],
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    method=FIBSEM.methods,
)
TARGETS += expand(
    [
        f"{RUN}/model.pt",
        f"{RUN}/test.parquet",
        f"{RUN}/test.json",
        *fibsem_stores(RUN, ["test"], ["labels", "probabilities", "uncertainty", "idk"], between="_"),
        f"{RUN}/figures.json",
        f"{RUN}/slices.png",
    ],
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
)
TARGETS += expand(
    "results/fibsem/{volume}/{file}", volume=NEW, file=["predict.json", "predict_figures.json", "predict.png"]
)
TARGETS += fibsem_stores("results/fibsem", NEW, ["phases", "probabilities", "uncertainty"])


wildcard_constraints:
    volume=SAMPLE_NAME,
    split="|".join(SPLITS),
    seed="|".join(map(str, FIBSEM.seeds)),
    network="|".join(map(re.escape, FIBSEM.networks)),
    method="|".join(map(re.escape, FIBSEM.methods)),


rule fibsem_simulate:
    output:
        slices=FIBSEM.simulate.files("results/raw/fibsem/{volume}")[0],
        labels=FIBSEM.simulate.files("results/raw/fibsem/{volume}")[1],
    log:
        logs("fibsem.simulate", "{volume}"),
    benchmark:
        benchmarks("fibsem.simulate", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.simulate", mem_mb=2000, runtime=20),
    params:
        **stage_params("fibsem.simulate"),
        number=lambda wildcards: list(VOLUMES).index(wildcards.volume),
    message:
        "Simulating the slices of volume {wildcards.volume}"
    shell:
        command("fibsem simulate results/raw/fibsem/{wildcards.volume} --number {params.number}")


rule fibsem_volume:
    input:
        images=lambda wildcards: fibsem_raw(wildcards.volume, "images"),
        labels=lambda wildcards: fibsem_raw(wildcards.volume, "labels"),
    output:
        slices=directory("results/fibsem/{volume}/slices.zarr"),
        slices_manifest="results/fibsem/{volume}/slices.zarr.manifest.json",
        labels=directory("results/fibsem/{volume}/labels.zarr"),
        labels_manifest="results/fibsem/{volume}/labels.zarr.manifest.json",
        record="results/fibsem/{volume}/volume.json",
    log:
        logs("fibsem.volume", "{volume}"),
    benchmark:
        benchmarks("fibsem.volume", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.volume", mem_mb=4000, runtime=60),
    params:
        **stage_params("fibsem.volume"),
        contents=lambda wildcards: fibsem_contents(wildcards.volume, "images", "labels"),
        images=not_compared(lambda wildcards: fetched(fibsem_source(wildcards.volume, "images"))),
        labels=not_compared(lambda wildcards: fetched(fibsem_source(wildcards.volume, "labels"))),
    message:
        "Writing the slices and labels of volume {wildcards.volume} to stores"
    shell:
        command(
            "fibsem volume {params.images:q} --labels {params.labels:q} --out {output.slices} --labels-out {output.labels}",
            "{wildcards.volume}",
        )


rule fibsem_augment:
    input:
        manifests=lambda wildcards: [
            manifest
            for member in fibsem_members(wildcards.volume)
            for manifest in fibsem_manifests(f"results/fibsem/{member}/", ["slices", "labels"])
        ],
    output:
        images=directory("results/fibsem/{volume}/images.zarr"),
        images_manifest="results/fibsem/{volume}/images.zarr.manifest.json",
        labels=directory("results/fibsem/{volume}/image_labels.zarr"),
        labels_manifest="results/fibsem/{volume}/image_labels.zarr.manifest.json",
        pairs="results/fibsem/{volume}/pairs.parquet",
        record="results/fibsem/{volume}/augment.json",
    log:
        logs("fibsem.augment", "{volume}"),
    benchmark:
        benchmarks("fibsem.augment", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.augment", mem_mb=4000, runtime=60),
    params:
        **stage_params("fibsem.augment"),
        first=lambda wildcards: f"results/fibsem/{fibsem_members(wildcards.volume)[0]}",
        more=lambda wildcards: fibsem_pooled(wildcards.volume),
    message:
        "Making and splitting the images of volume {wildcards.volume}"
    shell:
        command(
            "fibsem augment {params.first}/slices.zarr {params.first}/labels.zarr {params.more}"
            " --out {output.images} --labels-out {output.labels} --pairs {output.pairs}",
            "{wildcards.volume}",
        )


rule fibsem_train_global:
    input:
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
        pairs="results/fibsem/{volume}/pairs.parquet",
    output:
        model=f"{RUN}/{{network}}.pt",
        record=f"{RUN}/{{network}}.json",
    log:
        logs("fibsem.train_global", "{volume}/{split}/seed{seed}/{network}"),
    benchmark:
        benchmarks("fibsem.train_global", "{volume}/{split}/seed{seed}/{network}")
    conda:
        ENVIRONMENT
    threads: lambda wildcards: fibsem_network_options(wildcards.network).threads
    resources:
        **PARALLEL,
        **resources("fibsem.train_global", mem_mb=8000, runtime=1440),
        gpu=lambda wildcards: gpus_of(fibsem_network_options(wildcards.network)),
    params:
        cross_fit=lambda wildcards: (
            "--cross-fit"
            if wildcards.network in {method.network for method in FIBSEM.methods.values()}
            else "--no-cross-fit"
        ),
        options=not_compared(lambda wildcards: to_flags(fibsem_network_options(wildcards.network))),
        compared=lambda wildcards: compared(
            fibsem_network_options(wildcards.network), f"fibsem.train_global {wildcards.network}"
        ),
        code=code("fibsem.train_global"),
    message:
        "Training the network {wildcards.network} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        training_command(
            f"fibsem train-global {FIBSEM_IMAGES} {{input.pairs}} --split {{wildcards.split}} --repeat {{wildcards.seed}}"
            " {params.cross_fit} --out {output.model}",
            sample=f"{FIBSEM_SAMPLE}/{{wildcards.network}}",
            checkpoint="fibsem_{wildcards.volume}_{wildcards.split}_{wildcards.seed}_{wildcards.network}",
        )


rule fibsem_predict_global:
    input:
        model=f"{RUN}/{{network}}.pt",
        manifest="results/fibsem/{volume}/images.zarr.manifest.json",
        pairs="results/fibsem/{volume}/pairs.parquet",
    output:
        logits=directory(f"{RUN}/{{network}}_logits.zarr"),
        logits_manifest=f"{RUN}/{{network}}_logits.zarr.manifest.json",
        entropy=directory(f"{RUN}/{{network}}_entropy.zarr"),
        entropy_manifest=f"{RUN}/{{network}}_entropy.zarr.manifest.json",
        labels=directory(f"{RUN}/{{network}}_labels.zarr"),
        labels_manifest=f"{RUN}/{{network}}_labels.zarr.manifest.json",
        table=f"{RUN}/{{network}}_images.parquet",
        record=f"{RUN}/{{network}}_global.json",
    log:
        logs("fibsem.predict_global", "{volume}/{split}/seed{seed}/{network}"),
    benchmark:
        benchmarks("fibsem.predict_global", "{volume}/{split}/seed{seed}/{network}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.predict_global.threads
    resources:
        **resources("fibsem.predict_global", mem_mb=4000, runtime=240),
        gpu=gpus("fibsem.predict_global"),
    params:
        **stage_params("fibsem.predict_global"),
    message:
        "Predicting with the network {wildcards.network} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            "fibsem predict-global {input.model} results/fibsem/{wildcards.volume}/images.zarr {input.pairs}"
            " --split {wildcards.split} --out {output.logits} --entropy {output.entropy} --labels {output.labels}"
            " --table {output.table}",
            f"{FIBSEM_SAMPLE}/{{wildcards.network}}",
        )


rule fibsem_train_idk:
    input:
        manifest=lambda wildcards: f"{fibsem_network(wildcards)}_logits.zarr.manifest.json",
        table=lambda wildcards: f"{fibsem_network(wildcards)}_images.parquet",
        truth="results/fibsem/{volume}/image_labels.zarr.manifest.json",
    output:
        model=f"{RUN}/{{method}}_idk.pt",
        record=f"{RUN}/{{method}}_idk.json",
    log:
        logs("fibsem.train_idk", "{volume}/{split}/seed{seed}/{method}"),
    benchmark:
        benchmarks("fibsem.train_idk", "{volume}/{split}/seed{seed}/{method}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.train_idk.threads
    resources:
        **PARALLEL,
        **resources("fibsem.train_idk", mem_mb=8000, runtime=240),
        gpu=gpus("fibsem.train_idk"),
    params:
        network=lambda wildcards: FIBSEM.methods[wildcards.method].network,
        options=not_compared(lambda wildcards: to_flags(fibsem_method_options(wildcards.method, "train_idk"))),
        compared=lambda wildcards: compared(
            fibsem_method_options(wildcards.method, "train_idk"), f"fibsem.train_idk {wildcards.method}"
        ),
        code=code("fibsem.train_idk"),
    message:
        "Training the IDK classifier of {params.network} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        training_command(
            f"fibsem train-idk {FIBSEM_RUN}/{{params.network}}_logits.zarr {{input.table}}"
            " results/fibsem/{wildcards.volume}/image_labels.zarr --repeat {wildcards.seed} --out {output.model}",
            sample=f"{FIBSEM_SAMPLE}/{{wildcards.method}}",
            checkpoint="fibsem_{wildcards.volume}_{wildcards.split}_{wildcards.seed}_{wildcards.method}_idk",
        )


rule fibsem_train_local:
    input:
        network=lambda wildcards: f"{fibsem_network(wildcards)}.pt",
        idk=f"{RUN}/{{method}}_idk.pt",
        manifest=lambda wildcards: f"{fibsem_network(wildcards)}_logits.zarr.manifest.json",
        table=lambda wildcards: f"{fibsem_network(wildcards)}_images.parquet",
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
    output:
        model=f"{RUN}/{{method}}_local.pt",
        record=f"{RUN}/{{method}}_local.json",
        entropies=f"{RUN}/{{method}}_entropy.parquet",
    log:
        logs("fibsem.train_local", "{volume}/{split}/seed{seed}/{method}"),
    benchmark:
        benchmarks("fibsem.train_local", "{volume}/{split}/seed{seed}/{method}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.train_local.threads
    resources:
        **PARALLEL,
        **resources("fibsem.train_local", mem_mb=8000, runtime=480),
        gpu=gpus("fibsem.train_local"),
    params:
        network=lambda wildcards: FIBSEM.methods[wildcards.method].network,
        options=not_compared(lambda wildcards: to_flags(fibsem_method_options(wildcards.method, "train_local"))),
        compared=lambda wildcards: compared(
            fibsem_method_options(wildcards.method, "train_local"), f"fibsem.train_local {wildcards.method}"
        ),
        code=code("fibsem.train_local"),
    message:
        "Training LCGAR for {wildcards.method} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        training_command(
            f"fibsem train-local {{input.network}} {{input.idk}} {FIBSEM_RUN}/{{params.network}}_logits.zarr"
            f" {{input.table}} {FIBSEM_IMAGES} --repeat {{wildcards.seed}} --out {{output.model}}"
            " --entropies {output.entropies}",
            sample=f"{FIBSEM_SAMPLE}/{{wildcards.method}}",
            checkpoint="fibsem_{wildcards.volume}_{wildcards.split}_{wildcards.seed}_{wildcards.method}",
        )


rule fibsem_test:
    input:
        networks=expand(f"{RUN}/{{network}}.pt", network=FIBSEM.networks, allow_missing=True),
        outputs=expand(f"{RUN}/{{network}}_logits.zarr.manifest.json", network=FIBSEM.networks, allow_missing=True),
        tables=expand(f"{RUN}/{{network}}_images.parquet", network=FIBSEM.networks, allow_missing=True),
        helpers=expand(
            f"{RUN}/{{method}}_{{part}}.pt", method=FIBSEM.methods, part=["idk", "local"], allow_missing=True
        ),
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
    output:
        model=f"{RUN}/model.pt",
        labels=directory(f"{RUN}/test_labels.zarr"),
        labels_manifest=f"{RUN}/test_labels.zarr.manifest.json",
        probabilities=directory(f"{RUN}/test_probabilities.zarr"),
        probabilities_manifest=f"{RUN}/test_probabilities.zarr.manifest.json",
        uncertainty=directory(f"{RUN}/test_uncertainty.zarr"),
        uncertainty_manifest=f"{RUN}/test_uncertainty.zarr.manifest.json",
        idk=directory(f"{RUN}/test_idk.zarr"),
        idk_manifest=f"{RUN}/test_idk.zarr.manifest.json",
        table=f"{RUN}/test.parquet",
        record=f"{RUN}/test.json",
    log:
        logs("fibsem.test", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.test", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.test.threads
    resources:
        **resources("fibsem.test", mem_mb=8000, runtime=240),
        gpu=gpus("fibsem.test"),
    params:
        **stage_params("fibsem.test"),
        networks=",".join(FIBSEM.networks),
        # Without a local method there is no flag: an empty one would take the next flag for its value.
        methods=" ".join(
            ["--methods " + ",".join(method.flag(name) for name, method in FIBSEM.methods.items())]
            if FIBSEM.methods
            else []
        ),
    message:
        "Testing all methods on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem test {FIBSEM_RUN} {FIBSEM_IMAGES} --networks {{params.networks:q}} {{params.methods}}"
            " --split {wildcards.split} --repeat {wildcards.seed}",
            FIBSEM_SAMPLE,
        )


rule fibsem_metrics:
    input:
        manifests=expand(
            f"{RUN}/test_{{part}}.zarr.manifest.json",
            split=SPLITS,
            seed=FIBSEM.seeds,
            part=["labels", "probabilities"],
            allow_missing=True,
        ),
        tables=expand(f"{RUN}/test.parquet", split=SPLITS, seed=FIBSEM.seeds, allow_missing=True),
        truth="results/fibsem/{volume}/image_labels.zarr.manifest.json",
    output:
        table="results/fibsem/{volume}/metrics.csv",
        slices="results/fibsem/{volume}/metrics_slices.csv",
        differences="results/fibsem/{volume}/differences.csv",
        record="results/fibsem/{volume}/metrics.json",
    log:
        logs("fibsem.metrics", "{volume}"),
    benchmark:
        benchmarks("fibsem.metrics", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.metrics", mem_mb=4000, runtime=60),
    params:
        **stage_params("fibsem.metrics"),
        folders=lambda wildcards: expand(RUN, volume=wildcards.volume, split=SPLITS, seed=FIBSEM.seeds),
    message:
        "Comparing all methods with the reference on volume {wildcards.volume}"
    shell:
        command(
            "fibsem metrics {params.folders} --truth results/fibsem/{wildcards.volume}/image_labels.zarr"
            " --out {output.table} --per-slice {output.slices} --differences {output.differences}",
            "{wildcards.volume}",
        )


rule fibsem_predict:
    input:
        raw=lambda wildcards: fibsem_raw(wildcards.volume, "images"),
        model=stored([fibsem_model()]),
    output:
        labels=directory("results/fibsem/{volume}/phases.zarr"),
        labels_manifest="results/fibsem/{volume}/phases.zarr.manifest.json",
        probabilities=directory("results/fibsem/{volume}/probabilities.zarr"),
        probabilities_manifest="results/fibsem/{volume}/probabilities.zarr.manifest.json",
        uncertainty=directory("results/fibsem/{volume}/uncertainty.zarr"),
        uncertainty_manifest="results/fibsem/{volume}/uncertainty.zarr.manifest.json",
        record="results/fibsem/{volume}/predict.json",
    log:
        logs("fibsem.predict", "{volume}"),
    benchmark:
        benchmarks("fibsem.predict", "{volume}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.predict.threads
    resources:
        **resources("fibsem.predict", mem_mb=4000, runtime=480),
        gpu=gpus("fibsem.predict"),
    params:
        options=not_compared(lambda wildcards: to_flags(fibsem_predict_options())),
        compared=lambda wildcards: compared_stage("fibsem.predict"),
        code=code("fibsem.predict"),
        contents=lambda wildcards: fibsem_contents(wildcards.volume, "images"),
        images=not_compared(lambda wildcards: fetched(fibsem_source(wildcards.volume, "images"))),
    message:
        "Segmenting the slices of volume {wildcards.volume}"
    shell:
        command(
            "fibsem predict {params.images:q} --out {output.labels} --probabilities {output.probabilities}"
            " --uncertainty {output.uncertainty}",
            "{wildcards.volume}",
        )


rule fibsem_figures:
    input:
        comparison="results/fibsem/{volume}/metrics.csv",
    output:
        record="results/fibsem/{volume}/figures.json",
        methods=report(
            "results/fibsem/{volume}/methods.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "methods"},
            caption="../report/fibsem_methods.rst",
        ),
        fractions=report(
            "results/fibsem/{volume}/fractions.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "phase fractions"},
            caption="../report/fibsem_fractions.rst",
        ),
    log:
        logs("fibsem.figures", "{volume}"),
    benchmark:
        benchmarks("fibsem.figures", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("fibsem.figures"),
    message:
        "Drawing the comparison of all methods on volume {wildcards.volume}"
    shell:
        command(
            "fibsem figures --comparison {input.comparison} --out results/fibsem/{wildcards.volume}",
            "{wildcards.volume}",
        )


rule fibsem_training_figures:
    input:
        records=[
            *expand(f"{RUN}/{{network}}.json", network=FIBSEM.networks, allow_missing=True),
            *expand(f"{RUN}/{{method}}_local.json", method=FIBSEM.methods, allow_missing=True),
        ],
        entropies=expand(f"{RUN}/{{method}}_entropy.parquet", method=FIBSEM.methods, allow_missing=True),
        test=f"{RUN}/test.parquet",
        stores=fibsem_manifests(f"{RUN}/test_", ["labels", "uncertainty", "idk"]),
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
    output:
        record=f"{RUN}/figures.json",
        slices=report(
            f"{RUN}/slices.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "slices", "seed": "{seed}"},
            caption="../report/fibsem_slices.rst",
        ),
        training=[
            report(
                f"{RUN}/{name}.png",
                category="FIB-SEM",
                subcategory="volume {volume}, {split}",
                labels={"figure": f"training of {name.removesuffix('_local')}", "seed": "{seed}"},
                caption="../report/fibsem_train.rst",
            )
            for name in [*FIBSEM.networks, *(f"{method}_local" for method in FIBSEM.methods)]
        ],
        pacing=[
            report(
                f"{RUN}/{method}_pacing.png",
                category="FIB-SEM",
                subcategory="volume {volume}, {split}",
                labels={"figure": f"curriculum of {method}", "seed": "{seed}"},
                caption="../report/fibsem_pacing.rst",
            )
            for method in FIBSEM.methods
        ],
    log:
        logs("fibsem.figures", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.figures", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("fibsem.figures"),
    message:
        "Drawing the trainings and test slices of volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem figures --run {FIBSEM_RUN} --images results/fibsem/{{wildcards.volume}}/images.zarr"
            f" --labels results/fibsem/{{wildcards.volume}}/image_labels.zarr --out {FIBSEM_RUN}",
            FIBSEM_SAMPLE,
        )


rule fibsem_predict_figures:
    input:
        raw=lambda wildcards: fibsem_raw(wildcards.volume, "images"),
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["phases", "uncertainty"]),
    output:
        record="results/fibsem/{volume}/predict_figures.json",
        figure=report(
            "results/fibsem/{volume}/predict.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "phases"},
            caption="../report/fibsem_predict.rst",
        ),
    log:
        logs("fibsem.figures", "{volume}/predict"),
    benchmark:
        benchmarks("fibsem.figures", "{volume}/predict")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("fibsem.figures"),
        contents=lambda wildcards: fibsem_contents(wildcards.volume, "images"),
        images=not_compared(lambda wildcards: fetched(fibsem_source(wildcards.volume, "images"))),
    message:
        "Drawing slices of volume {wildcards.volume} with their phases"
    shell:
        command(
            "fibsem figures --slices {params.images:q} --phases results/fibsem/{wildcards.volume}/phases.zarr"
            " --uncertainty results/fibsem/{wildcards.volume}/uncertainty.zarr --out results/fibsem/{wildcards.volume}",
            "{wildcards.volume}/predict",
        )
