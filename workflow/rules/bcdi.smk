include: "bcdi_common.smk"


# Everything that is kept, so that whatever is deleted is made again.
TARGETS += expand("results/bcdi/{particle}/{file}", particle=PARTICLES, file=["prepared.h5", "prepare.json"])
for particle, way in BCDI_WAYS:
    TARGETS += expand(
        f"results/bcdi/{particle}/{way}/{{file}}",
        file=[
            "objects.h5",
            f"{way}.json",
            "errors.png",
            "reconstruction.cxi",
            "reconstruction.vti",
            "statistics.csv",
            "slices.png",
            "particle.html",
            "strain.json",
            "metrics.csv",
            "curves.csv",
            "diffraction.png",
            "resolution.png",
            "metrics.json",
        ],
    )
    if way == "refine":
        TARGETS += expand(f"results/bcdi/{particle}/{{file}}", file=["inferred.h5", "infer.json"])
if BCDI_TRAINED:
    TARGETS += expand(
        f"{BCDI_FOLDER}/{{part}}/{{file}}",
        part=["train", "test"],
        file=[
            *(f"{store}.zarr{suffix}" for store in BCDI_STORES for suffix in ("", ".manifest.json")),
            "crystals.parquet",
            "simulate.json",
        ],
    )
    TARGETS += expand(
        f"{BCDI_FOLDER}/{{file}}",
        file=[
            "model.pt",
            "train.json",
            "train.png",
            "success.csv",
            "trials.parquet",
            "success.png",
            "evaluate.json",
        ],
    )


# Of its own, since constraints hold for all techniques.
wildcard_constraints:
    particle=names("bcdi"),
    way="phase|refine",
    part="train|test",


rule bcdi_simulate:
    output:
        amplitudes=directory(f"{BCDI_FOLDER}/{{part}}/amplitudes.zarr"),
        amplitudes_manifest=f"{BCDI_FOLDER}/{{part}}/amplitudes.zarr.manifest.json",
        objects=directory(f"{BCDI_FOLDER}/{{part}}/objects.zarr"),
        objects_manifest=f"{BCDI_FOLDER}/{{part}}/objects.zarr.manifest.json",
        good=directory(f"{BCDI_FOLDER}/{{part}}/good.zarr"),
        good_manifest=f"{BCDI_FOLDER}/{{part}}/good.zarr.manifest.json",
        table=f"{BCDI_FOLDER}/{{part}}/crystals.parquet",
        record=f"{BCDI_FOLDER}/{{part}}/simulate.json",
    log:
        logs("bcdi.simulate", f"{BCDI_MODEL_FOLDER}/{{part}}"),
    benchmark:
        benchmarks("bcdi.simulate", f"{BCDI_MODEL_FOLDER}/{{part}}")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        **resources("bcdi.simulate", mem_mb=4000, runtime=480),
    params:
        options=lambda wildcards: bcdi_simulate_options(wildcards.part),
        code=code("bcdi.simulate"),
    message:
        "Simulating crystals and their diffraction ({wildcards.part})"
    shell:
        "cathodeflow --log {log} --threads {threads} bcdi simulate --sample model/{wildcards.part}"
        " --out {output.amplitudes} --objects {output.objects} --good {output.good} --table {output.table}"
        " --record {output.record} {params.options}"


rule bcdi_train:
    input:
        manifests=expand(f"{BCDI_FOLDER}/train/{{store}}.zarr.manifest.json", store=["amplitudes", "objects"]),
        initial=[BCDI.train.initial] if BCDI.train.initial else [],
    output:
        model=f"{BCDI_FOLDER}/model.pt",
        record=f"{BCDI_FOLDER}/train.json",
        figure=report(
            f"{BCDI_FOLDER}/train.png",
            category="BCDI",
            subcategory="network",
            labels={"figure": "training"},
            caption="../report/bcdi_train.rst",
        ),
    log:
        logs("bcdi.train", BCDI_MODEL_FOLDER),
    benchmark:
        benchmarks("bcdi.train", BCDI_MODEL_FOLDER)
    conda:
        ENVIRONMENT
    threads: BCDI.train.threads
    resources:
        **PARALLEL,
        **resources("bcdi.train", mem_mb=8000, runtime=2880),
        gpu=gpus("bcdi.train"),
    params:
        **stage_params("bcdi.train"),
    message:
        "Training the network on simulated crystals"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} bcdi train results/bcdi/model/train/amplitudes.zarr"
        " results/bcdi/model/train/objects.zarr --sample model --out {output.model} --record {output.record}"
        " --figure {output.figure} --checkpoint results/checkpoints/bcdi.ckpt {params.options}"


rule bcdi_evaluate:
    input:
        model=f"{BCDI_FOLDER}/model.pt",
        manifests=expand(f"{BCDI_FOLDER}/test/{{store}}.zarr.manifest.json", store=BCDI_STORES),
        table=f"{BCDI_FOLDER}/test/crystals.parquet",
    output:
        table=f"{BCDI_FOLDER}/success.csv",
        trials=f"{BCDI_FOLDER}/trials.parquet",
        record=f"{BCDI_FOLDER}/evaluate.json",
        figure=report(
            f"{BCDI_FOLDER}/success.png",
            category="BCDI",
            subcategory="network",
            labels={"figure": "success against iterations"},
            caption="../report/bcdi_success.rst",
        ),
    log:
        logs("bcdi.evaluate", BCDI_MODEL_FOLDER),
    benchmark:
        benchmarks("bcdi.evaluate", BCDI_MODEL_FOLDER)
    conda:
        ENVIRONMENT
    threads: BCDI.evaluate.threads
    resources:
        **resources("bcdi.evaluate", mem_mb=4000, runtime=480),
        gpu=gpus("bcdi.evaluate"),
    params:
        **stage_params("bcdi.evaluate"),
    message:
        "Phasing unseen crystals from the network's image and from random starts"
    shell:
        "cathodeflow --log {log} bcdi evaluate {input.model} results/bcdi/model/test/amplitudes.zarr"
        " results/bcdi/model/test/objects.zarr results/bcdi/model/test/good.zarr {input.table} --sample model"
        " --out {output.table} --trials {output.trials} --record {output.record} --figure {output.figure}"
        " {params.options}"


rule bcdi_simulate_scan:
    output:
        **bcdi_data_sets.simulated_files("results/raw/bcdi/{particle}", BCDI.simulate_scan),
    log:
        logs("bcdi.simulate_scan", "{particle}"),
    benchmark:
        benchmarks("bcdi.simulate_scan", "{particle}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.simulate_scan", mem_mb=4000, runtime=20),
    params:
        **stage_params("bcdi.simulate_scan"),
        number=lambda wildcards: list(PARTICLES).index(wildcards.particle),
    message:
        "Simulating the raw frames of scan {wildcards.particle}"
    shell:
        "cathodeflow --log {log} --threads {threads} bcdi simulate-scan results/raw/bcdi/{wildcards.particle}"
        " --number {params.number} {params.options}"


rule bcdi_prepare:
    input:
        raw=lambda wildcards: bcdi_raw(wildcards.particle, "frames", "dark", "whitefield", "mask", "spec"),
    output:
        prepared="results/bcdi/{particle}/prepared.h5",
        record="results/bcdi/{particle}/prepare.json",
    log:
        logs("bcdi.prepare", "{particle}"),
    benchmark:
        benchmarks("bcdi.prepare", "{particle}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.prepare", mem_mb=8000, runtime=60),
    params:
        **stage_params("bcdi.prepare"),
        frames=lambda wildcards: fetched(bcdi_source(wildcards.particle, "frames")),
        files=lambda wildcards: bcdi_flags(wildcards.particle, "dark", "whitefield", "mask", "spec"),
    message:
        "Preparing the frames of scan {wildcards.particle}"
    shell:
        "cathodeflow --log {log} --threads {threads} bcdi prepare {params.frames:q} {params.files}"
        " --sample {wildcards.particle} --out {output.prepared} --record {output.record} {params.options}"


rule bcdi_phase:
    input:
        "results/bcdi/{particle}/prepared.h5",
    output:
        objects="results/bcdi/{particle}/phase/objects.h5",
        record="results/bcdi/{particle}/phase/phase.json",
        figure=report(
            "results/bcdi/{particle}/phase/errors.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "error", "way": "phase"},
            caption="../report/bcdi_errors.rst",
        ),
    log:
        logs("bcdi.phase", "{particle}/phase"),
    benchmark:
        benchmarks("bcdi.phase", "{particle}/phase")
    conda:
        ENVIRONMENT
    threads: BCDI.phase.threads
    resources:
        **resources("bcdi.phase", mem_mb=8000, runtime=480),
        gpu=gpus("bcdi.phase"),
    params:
        **stage_params("bcdi.phase"),
    message:
        "Phasing scan {wildcards.particle} from random starts"
    shell:
        "cathodeflow --log {log} bcdi phase {input} --sample {wildcards.particle}/phase --out {output.objects}"
        " --record {output.record} --figure {output.figure} {params.options}"


rule bcdi_infer:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        model=BCDI.infer.model or f"{BCDI_FOLDER}/model.pt",
    output:
        objects="results/bcdi/{particle}/inferred.h5",
        record="results/bcdi/{particle}/infer.json",
    log:
        logs("bcdi.infer", "{particle}"),
    benchmark:
        benchmarks("bcdi.infer", "{particle}")
    conda:
        ENVIRONMENT
    threads: BCDI.infer.threads
    resources:
        **resources("bcdi.infer", mem_mb=8000, runtime=60),
        gpu=gpus("bcdi.infer"),
    params:
        **stage_params("bcdi.infer"),
        model=lambda wildcards, input: "" if BCDI.infer.model else f"--model {shlex.quote(str(input.model))}",
    message:
        "Telling the object of scan {wildcards.particle} by the network"
    shell:
        "cathodeflow --log {log} bcdi infer {input.prepared} {params.model} --sample {wildcards.particle}"
        " --out {output.objects} --record {output.record} {params.options}"


rule bcdi_refine:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/inferred.h5",
    output:
        objects="results/bcdi/{particle}/refine/objects.h5",
        record="results/bcdi/{particle}/refine/refine.json",
        figure=report(
            "results/bcdi/{particle}/refine/errors.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "error", "way": "refine"},
            caption="../report/bcdi_errors.rst",
        ),
    log:
        logs("bcdi.refine", "{particle}/refine"),
    benchmark:
        benchmarks("bcdi.refine", "{particle}/refine")
    conda:
        ENVIRONMENT
    threads: BCDI.refine.threads
    resources:
        **resources("bcdi.refine", mem_mb=8000, runtime=60),
        gpu=gpus("bcdi.refine"),
    params:
        **stage_params("bcdi.refine"),
    message:
        "Refining the network's object of scan {wildcards.particle}"
    shell:
        "cathodeflow --log {log} bcdi refine {input.prepared} {input.objects} --sample {wildcards.particle}/refine"
        " --out {output.objects} --record {output.record} --figure {output.figure} {params.options}"


rule bcdi_strain:
    input:
        objects="results/bcdi/{particle}/{way}/objects.h5",
        geometry=lambda wildcards: bcdi_raw(wildcards.particle, "spec", "geometry"),
    output:
        cxi="results/bcdi/{particle}/{way}/reconstruction.cxi",
        vti="results/bcdi/{particle}/{way}/reconstruction.vti",
        statistics="results/bcdi/{particle}/{way}/statistics.csv",
        record="results/bcdi/{particle}/{way}/strain.json",
        figure=report(
            "results/bcdi/{particle}/{way}/slices.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "slices", "way": "{way}"},
            caption="../report/bcdi_slices.rst",
        ),
        page=report(
            "results/bcdi/{particle}/{way}/particle.html",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "surface in 3D", "way": "{way}"},
            caption="../report/bcdi_particle.rst",
        ),
    log:
        logs("bcdi.strain", "{particle}/{way}"),
    benchmark:
        benchmarks("bcdi.strain", "{particle}/{way}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.strain", mem_mb=4000, runtime=30),
    params:
        **stage_params("bcdi.strain"),
        files=lambda wildcards: bcdi_flags(wildcards.particle, "spec", "geometry"),
    message:
        "Strain of the object of scan {wildcards.particle} ({wildcards.way})"
    shell:
        "cathodeflow --log {log} --threads {threads} bcdi strain {input.objects} {params.files}"
        " --sample {wildcards.particle}/{wildcards.way} --out {output.cxi} --vti {output.vti}"
        " --statistics {output.statistics} --figure {output.figure} --page {output.page} --record {output.record}"
        " {params.options}"


rule bcdi_metrics:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{way}/objects.h5",
        cxi="results/bcdi/{particle}/{way}/reconstruction.cxi",
        truth=lambda wildcards: bcdi_raw(wildcards.particle, "truth") if PARTICLES[wildcards.particle].simulated else [],
    output:
        table="results/bcdi/{particle}/{way}/metrics.csv",
        curves="results/bcdi/{particle}/{way}/curves.csv",
        record="results/bcdi/{particle}/{way}/metrics.json",
        diffraction=report(
            "results/bcdi/{particle}/{way}/diffraction.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "diffraction", "way": "{way}"},
            caption="../report/bcdi_diffraction.rst",
        ),
        resolution=report(
            "results/bcdi/{particle}/{way}/resolution.png",
            category="BCDI",
            subcategory="scan {particle}",
            labels={"figure": "resolution", "way": "{way}"},
            caption="../report/bcdi_resolution.rst",
        ),
    log:
        logs("bcdi.metrics", "{particle}/{way}"),
    benchmark:
        benchmarks("bcdi.metrics", "{particle}/{way}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.metrics", mem_mb=8000, runtime=60),
    params:
        **stage_params("bcdi.metrics"),
        truth=lambda wildcards, input: f"--truth {input.truth}" if input.truth else "",
    message:
        "Figures of merit of scan {wildcards.particle} ({wildcards.way})"
    shell:
        "cathodeflow --log {log} --threads {threads} bcdi metrics {input.prepared} {input.objects} {input.cxi}"
        " {params.truth} --sample {wildcards.particle}/{wildcards.way} --out {output.table} --curves {output.curves}"
        " --diffraction {output.diffraction} --resolution {output.resolution} --record {output.record}"
        " {params.options}"
