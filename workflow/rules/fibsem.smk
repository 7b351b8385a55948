include: "fibsem_common.smk"


# Everything that is kept, so that whatever is deleted is made again.
TARGETS += fibsem_stores("results/fibsem", TRAINED, ["slices", "labels", "images", "image_labels"])
TARGETS += expand(
    "results/fibsem/{volume}/{file}",
    volume=TRAINED,
    file=["volume.json", "pairs.parquet", "augment.json", *FIBSEM_METRICS],
)
TARGETS += expand(
    f"{RUN}/{{network}}{{suffix}}",
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    network=FIBSEM.networks,
    suffix=[
        ".pt",
        ".json",
        ".png",
        "_images.parquet",
        "_global.json",
        *(f"_{part}.zarr{suffix}" for part in ("logits", "entropy", "labels") for suffix in STORE),
    ],
)
TARGETS += expand(
    f"{RUN}/{{method}}_{{file}}",
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    method=FIBSEM.methods,
    file=["idk.pt", "idk.json", "local.pt", "local.json", "local.png", "pacing.png"],
)
TARGETS += expand(
    f"{RUN}/{{file}}",
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    file=[
        "model.pt",
        "test.parquet",
        "test.json",
        "slices.png",
        *(f"test_{part}.zarr{suffix}" for part in ("labels", "probabilities", "uncertainty") for suffix in STORE),
    ],
)
TARGETS += expand("results/fibsem/{volume}/{file}", volume=NEW, file=["predict.json", "predict.png"])
TARGETS += fibsem_stores("results/fibsem", NEW, ["phases", "probabilities", "uncertainty"])


wildcard_constraints:
    volume=names("fibsem"),
    split="|".join(SPLITS),
    seed="|".join(map(str, FIBSEM.seeds)),
    network="|".join(map(re.escape, FIBSEM.networks)),
    method="|".join(map(re.escape, FIBSEM.methods)),


rule fibsem_simulate:
    output:
        slices=fibsem_data_sets.simulated_files("results/raw/fibsem/{volume}", FIBSEM.simulate)[0],
        labels=fibsem_data_sets.simulated_files("results/raw/fibsem/{volume}", FIBSEM.simulate)[1],
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
        "cathodeflow --log {log} --threads {threads} fibsem simulate results/raw/fibsem/{wildcards.volume}"
        " --number {params.number} {params.options}"


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
        images=lambda wildcards: fetched(fibsem_source(wildcards.volume, "images")),
        labels=lambda wildcards: fetched(fibsem_source(wildcards.volume, "labels")),
    message:
        "Bringing the slices and labels of volume {wildcards.volume} into stores"
    shell:
        "cathodeflow --log {log} --threads {threads} fibsem volume {params.images:q} --labels {params.labels:q}"
        " --sample {wildcards.volume} --out {output.slices} --labels-out {output.labels} --record {output.record}"
        " {params.options}"


rule fibsem_augment:
    input:
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["slices", "labels"]),
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
    message:
        "Making and dividing the images of volume {wildcards.volume}"
    shell:
        "cathodeflow --log {log} --threads {threads} fibsem augment results/fibsem/{wildcards.volume}/slices.zarr"
        " results/fibsem/{wildcards.volume}/labels.zarr --sample {wildcards.volume} --out {output.images}"
        " --labels-out {output.labels} --pairs {output.pairs} --record {output.record} {params.options}"


rule fibsem_train_global:
    input:
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
        pairs="results/fibsem/{volume}/pairs.parquet",
    output:
        model=f"{RUN}/{{network}}.pt",
        record=f"{RUN}/{{network}}.json",
        figure=report(
            f"{RUN}/{{network}}.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "training of {network}", "seed": "{seed}"},
            caption="../report/fibsem_train.rst",
        ),
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
        crosswise=lambda wildcards: (
            "--cross-fit" if wildcards.network in FIBSEM.methods.values() else "--no-cross-fit"
        ),
        options=lambda wildcards: to_flags(fibsem_network_options(wildcards.network)),
        code=code("fibsem.train_global"),
    message:
        "Training the network {wildcards.network} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} fibsem train-global results/fibsem/{wildcards.volume}/images.zarr"
        " results/fibsem/{wildcards.volume}/image_labels.zarr {input.pairs}"
        " --sample {wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{wildcards.network} --split {wildcards.split}"
        " --repeat {wildcards.seed} {params.crosswise} --out {output.model} --record {output.record}"
        " --figure {output.figure} --checkpoint"
        " results/checkpoints/fibsem_{wildcards.volume}_{wildcards.split}_{wildcards.seed}_{wildcards.network}.ckpt"
        " {params.options}"


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
        "Applying the network {wildcards.network} to volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        "cathodeflow --log {log} fibsem predict-global {input.model} results/fibsem/{wildcards.volume}/images.zarr"
        " {input.pairs} --sample {wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{wildcards.network}"
        " --split {wildcards.split} --out {output.logits} --entropy {output.entropy} --labels {output.labels}"
        " --table {output.table} --record {output.record} {params.options}"


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
        **stage_params("fibsem.train_idk"),
        network=lambda wildcards: FIBSEM.methods[wildcards.method],
    message:
        "Training where {params.network} is wrong on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} fibsem train-idk"
        " results/fibsem/{wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{params.network}_logits.zarr"
        " {input.table} results/fibsem/{wildcards.volume}/image_labels.zarr"
        " --sample {wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{wildcards.method}"
        " --repeat {wildcards.seed} --out {output.model} --record {output.record} {params.options}"


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
        figure=report(
            f"{RUN}/{{method}}_local.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "training of {method}", "seed": "{seed}"},
            caption="../report/fibsem_train.rst",
        ),
        pacing=report(
            f"{RUN}/{{method}}_pacing.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "curriculum of {method}", "seed": "{seed}"},
            caption="../report/fibsem_pacing.rst",
        ),
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
        **stage_params("fibsem.train_local"),
        network=lambda wildcards: FIBSEM.methods[wildcards.method],
    message:
        "Training LCGAR for {wildcards.method} on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} fibsem train-local {input.network} {input.idk}"
        " results/fibsem/{wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{params.network}_logits.zarr"
        " {input.table} results/fibsem/{wildcards.volume}/images.zarr results/fibsem/{wildcards.volume}/image_labels.zarr"
        " --sample {wildcards.volume}/{wildcards.split}/seed{wildcards.seed}/{wildcards.method}"
        " --repeat {wildcards.seed} --out {output.model} --record {output.record} --figure {output.figure}"
        " --pacing-figure {output.pacing} --checkpoint"
        " results/checkpoints/fibsem_{wildcards.volume}_{wildcards.split}_{wildcards.seed}_{wildcards.method}.ckpt"
        " {params.options}"


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
        table=f"{RUN}/test.parquet",
        record=f"{RUN}/test.json",
        figure=report(
            f"{RUN}/slices.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "slices", "seed": "{seed}"},
            caption="../report/fibsem_slices.rst",
        ),
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
        methods=",".join(f"{method}={network}" for method, network in FIBSEM.methods.items()),
    message:
        "Testing all methods on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        "cathodeflow --log {log} fibsem test results/fibsem/{wildcards.volume}/{wildcards.split}/seed{wildcards.seed}"
        " results/fibsem/{wildcards.volume}/images.zarr results/fibsem/{wildcards.volume}/image_labels.zarr"
        " --sample {wildcards.volume}/{wildcards.split}/seed{wildcards.seed} --networks {params.networks:q}"
        " --methods {params.methods:q} --split {wildcards.split} --repeat {wildcards.seed}"
        " --record {output.record} {params.options}"


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
        "Comparing all methods with the truth on volume {wildcards.volume}"
    shell:
        "cathodeflow --log {log} --threads {threads} fibsem metrics {params.folders}"
        " --truth results/fibsem/{wildcards.volume}/image_labels.zarr --sample {wildcards.volume} --out {output.table}"
        " --per-slice {output.slices} --differences {output.differences} --record {output.record}"
        " --figures results/fibsem/{wildcards.volume} {params.options}"


rule fibsem_predict:
    input:
        raw=lambda wildcards: fibsem_raw(wildcards.volume, "images"),
        model=fibsem_model,
    output:
        labels=directory("results/fibsem/{volume}/phases.zarr"),
        labels_manifest="results/fibsem/{volume}/phases.zarr.manifest.json",
        probabilities=directory("results/fibsem/{volume}/probabilities.zarr"),
        probabilities_manifest="results/fibsem/{volume}/probabilities.zarr.manifest.json",
        uncertainty=directory("results/fibsem/{volume}/uncertainty.zarr"),
        uncertainty_manifest="results/fibsem/{volume}/uncertainty.zarr.manifest.json",
        record="results/fibsem/{volume}/predict.json",
        figure=report(
            "results/fibsem/{volume}/predict.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "phases"},
            caption="../report/fibsem_predict.rst",
        ),
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
        **stage_params("fibsem.predict"),
        images=lambda wildcards: fetched(fibsem_source(wildcards.volume, "images")),
        model=lambda wildcards, input: "" if FIBSEM.predict.model else f"--model {shlex.quote(str(input.model))}",
    message:
        "Segmenting the slices of volume {wildcards.volume}"
    shell:
        "cathodeflow --log {log} fibsem predict {params.images:q} {params.model} --sample {wildcards.volume}"
        " --out {output.labels} --probabilities {output.probabilities} --uncertainty {output.uncertainty}"
        " --record {output.record} --figure {output.figure} {params.options}"
