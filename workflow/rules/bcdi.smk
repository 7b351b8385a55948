include: "bcdi_common.smk"


BCDI_FIGURES = {
    "errors.png": "error",
    "slices.png": "slices",
    "particle.html": "surface in 3D",
    "diffraction.png": "diffraction",
    "resolution.png": "resolution",
    "trust.png": "probability and errors",
}

# All files that are kept, so that deleted ones are made again.
TARGETS += expand("results/bcdi/{particle}/{file}", particle=PARTICLES, file=["prepared.h5", "prepare.json"])
for particle, route in BCDI_ROUTES:
    TARGETS += expand(
        f"results/bcdi/{particle}/{route}/{{file}}",
        file=[
            "objects.h5",
            f"{route}.json",
            "reconstruction.cxi",
            "reconstruction.vti",
            "statistics.csv",
            "strain.json",
            "metrics.csv",
            "curves.csv",
            "metrics.json",
            "figures.json",
            *BCDI_FIGURES,
        ],
    )
    if route == "refine":
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
            "figures.json",
        ],
    )


wildcard_constraints:
    particle=names("bcdi"),
    route="phase|refine",
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
        command(
            "bcdi simulate --out {output.amplitudes} --objects {output.objects} --good {output.good} --table {output.table}",
            f"{BCDI_MODEL_FOLDER}/{{wildcards.part}}",
        )


rule bcdi_train:
    input:
        manifests=expand(f"{BCDI_FOLDER}/train/{{store}}.zarr.manifest.json", store=["amplitudes", "objects"]),
        initial=stored([BCDI.train.initial] if BCDI.train.initial else []),
    output:
        model=f"{BCDI_FOLDER}/model.pt",
        record=f"{BCDI_FOLDER}/train.json",
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
        training_command(
            f"bcdi train {BCDI_FOLDER}/train/amplitudes.zarr {BCDI_FOLDER}/train/objects.zarr --out {{output.model}}",
            sample=BCDI_MODEL_FOLDER,
            checkpoint="bcdi",
        )


rule bcdi_evaluate:
    input:
        model=f"{BCDI_FOLDER}/model.pt",
        manifests=expand(f"{BCDI_FOLDER}/test/{{store}}.zarr.manifest.json", store=BCDI_STORES),
        table=f"{BCDI_FOLDER}/test/crystals.parquet",
    output:
        table=f"{BCDI_FOLDER}/success.csv",
        trials=f"{BCDI_FOLDER}/trials.parquet",
        record=f"{BCDI_FOLDER}/evaluate.json",
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
        "Phasing unseen crystals from the prediction of the network and from random starts"
    shell:
        command(
            f"bcdi evaluate {{input.model}} {BCDI_FOLDER}/test/amplitudes.zarr {BCDI_FOLDER}/test/objects.zarr"
            f" {BCDI_FOLDER}/test/good.zarr {{input.table}} --out {{output.table}} --trials {{output.trials}}",
            BCDI_MODEL_FOLDER,
        )


rule bcdi_simulate_scan:
    output:
        **bcdi_scans.simulated_files("results/raw/bcdi/{particle}", BCDI.simulate_scan.frames),
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
        number=lambda wildcards: bcdi_simulated_state(wildcards.particle),
    message:
        "Simulating the raw frames of scan {wildcards.particle}"
    shell:
        command("bcdi simulate-scan results/raw/bcdi/{wildcards.particle} {params.number}")


rule bcdi_prepare:
    input:
        raw=lambda wildcards: bcdi_raw(wildcards.particle, *BCDI_PREPARED),
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
        contents=lambda wildcards: bcdi_contents(wildcards.particle, *BCDI_PREPARED),
        frames=not_compared(lambda wildcards: fetched(bcdi_source(wildcards.particle, "frames"))),
        files=not_compared(lambda wildcards: bcdi_flags(wildcards.particle, *BCDI_PREPARED[1:])),
    message:
        "Preparing the frames of scan {wildcards.particle}"
    shell:
        command("bcdi prepare {params.frames:q} {params.files} --out {output.prepared}", "{wildcards.particle}")


rule bcdi_phase:
    input:
        "results/bcdi/{particle}/prepared.h5",
    output:
        objects="results/bcdi/{particle}/phase/objects.h5",
        record="results/bcdi/{particle}/phase/phase.json",
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
        command("bcdi phase {input} --out {output.objects}", "{wildcards.particle}/phase")


rule bcdi_infer:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        model=stored([BCDI_MODEL]),
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
        options=not_compared(lambda wildcards: to_flags(bcdi_infer_options())),
        compared=lambda wildcards: compared_stage("bcdi.infer"),
        code=code("bcdi.infer"),
    message:
        "Predicting the object of scan {wildcards.particle} with the network"
    shell:
        command("bcdi infer {input.prepared} --out {output.objects}", "{wildcards.particle}")


rule bcdi_refine:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/inferred.h5",
    output:
        objects="results/bcdi/{particle}/refine/objects.h5",
        record="results/bcdi/{particle}/refine/refine.json",
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
        "Refining the predicted object of scan {wildcards.particle}"
    shell:
        command("bcdi refine {input.prepared} {input.objects} --out {output.objects}", "{wildcards.particle}/refine")


rule bcdi_strain:
    input:
        objects="results/bcdi/{particle}/{route}/objects.h5",
        prepared="results/bcdi/{particle}/prepared.h5",
        geometry=lambda wildcards: bcdi_raw(wildcards.particle, "spec", "geometry"),
    output:
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
        vti="results/bcdi/{particle}/{route}/reconstruction.vti",
        statistics="results/bcdi/{particle}/{route}/statistics.csv",
        record="results/bcdi/{particle}/{route}/strain.json",
    log:
        logs("bcdi.strain", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.strain", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.strain", mem_mb=4000, runtime=30),
    params:
        **stage_params("bcdi.strain"),
        contents=lambda wildcards: bcdi_contents(wildcards.particle, "spec", "geometry"),
        files=not_compared(lambda wildcards: bcdi_flags(wildcards.particle, "spec", "geometry")),
    message:
        "Computing the strain of scan {wildcards.particle} ({wildcards.route})"
    shell:
        command(
            "bcdi strain {input.objects} --pattern {input.prepared} {params.files} --out {output.cxi} --vti {output.vti}"
            " --statistics {output.statistics}",
            "{wildcards.particle}/{wildcards.route}",
        )


rule bcdi_metrics:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{route}/objects.h5",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
        truth=lambda wildcards: bcdi_raw(wildcards.particle, "truth") if PARTICLES[wildcards.particle].simulated else [],
    output:
        table="results/bcdi/{particle}/{route}/metrics.csv",
        curves="results/bcdi/{particle}/{route}/curves.csv",
        record="results/bcdi/{particle}/{route}/metrics.json",
    log:
        logs("bcdi.metrics", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.metrics", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.metrics", mem_mb=8000, runtime=60),
    params:
        **stage_params("bcdi.metrics"),
        truth=lambda wildcards, input: f"--truth {input.truth}" if input.truth else "",
    message:
        "Computing the figures of merit of scan {wildcards.particle} ({wildcards.route})"
    shell:
        command(
            "bcdi metrics {input.prepared} {input.objects} {input.cxi} {params.truth} --out {output.table}"
            " --curves {output.curves}",
            "{wildcards.particle}/{wildcards.route}",
        )


rule bcdi_figures:
    input:
        prepared="results/bcdi/{particle}/prepared.h5",
        objects="results/bcdi/{particle}/{route}/objects.h5",
        phasing="results/bcdi/{particle}/{route}/{route}.json",
        cxi="results/bcdi/{particle}/{route}/reconstruction.cxi",
        curves="results/bcdi/{particle}/{route}/curves.csv",
        trust="results/bcdi/{particle}/{route}/trust.csv",
        strain_errors="results/bcdi/{particle}/{route}/strain_errors.cxi",
    output:
        record="results/bcdi/{particle}/{route}/figures.json",
        figures=[
            report(
                f"results/bcdi/{{particle}}/{{route}}/{file}",
                category="BCDI",
                subcategory="scan {particle}",
                labels={"figure": figure, "route": "{route}"},
                caption=f"../report/bcdi_{Path(file).stem}.rst",
            )
            for file, figure in BCDI_FIGURES.items()
        ],
    log:
        logs("bcdi.figures", "{particle}/{route}"),
    benchmark:
        benchmarks("bcdi.figures", "{particle}/{route}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.figures", mem_mb=8000, runtime=30),
    params:
        **stage_params("bcdi.figures"),
    message:
        "Drawing the figures of scan {wildcards.particle} ({wildcards.route})"
    shell:
        command(
            "bcdi figures --pattern {input.prepared} --objects {input.objects} --phasing {input.phasing}"
            " --reconstruction {input.cxi} --curves {input.curves}"
            " --trust {input.trust} --strain-errors {input.strain_errors}"
            " --out results/bcdi/{wildcards.particle}/{wildcards.route}",
            "{wildcards.particle}/{wildcards.route}",
        )


rule bcdi_training_figures:
    input:
        training=f"{BCDI_FOLDER}/train.json",
        success=f"{BCDI_FOLDER}/success.csv",
    output:
        record=f"{BCDI_FOLDER}/figures.json",
        training=report(
            f"{BCDI_FOLDER}/train.png",
            category="BCDI",
            subcategory="network",
            labels={"figure": "training"},
            caption="../report/bcdi_train.rst",
        ),
        success=report(
            f"{BCDI_FOLDER}/success.png",
            category="BCDI",
            subcategory="network",
            labels={"figure": "success rate against iterations"},
            caption="../report/bcdi_success.rst",
        ),
    log:
        logs("bcdi.figures", BCDI_MODEL_FOLDER),
    benchmark:
        benchmarks("bcdi.figures", BCDI_MODEL_FOLDER)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bcdi.figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bcdi.figures"),
    message:
        "Drawing the training curves and success rates of the network"
    shell:
        command(
            f"bcdi figures --training {{input.training}} --success-rates {{input.success}} --out {BCDI_FOLDER}",
            BCDI_MODEL_FOLDER,
        )
