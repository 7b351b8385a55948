include: "bragg_common.smk"


TRAINING_SCANS = [name for name, scan in SCANS.items() if scan.role == "train"]
MODEL = CONFIG.bragg.locate.weights or "results/bragg/model/braggnn.pt"
FIGURES = ["patches", "distances", "intensity", "frame"]

# Everything that is kept, so that whatever is deleted is made again.
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=SCANS,
    file=[
        "frames.h5",
        "frames.json",
        "candidates.parquet",
        "candidates.json",
        "peaks.h5",
        "fit.json",
        "located.parquet",
        "located.h5",
        "locate.json",
        "compare.csv",
        "compare.json",
        *(f"figures/{figure}.png" for figure in FIGURES),
    ],
)
if not CONFIG.bragg.locate.weights:
    TARGETS += [MODEL, "results/bragg/model/train.json", "results/bragg/model/train.png"]
    TARGETS += expand("results/bragg/{scan}/{file}", scan=TRAINING_SCANS, file=["patches.h5", "patches.json"])


wildcard_constraints:
    scan=names("bragg"),


rule bragg_simulate:
    output:
        frames=[f"results/raw/bragg/{{scan}}/{file}" for file in scans.simulated_files(SIMULATE)],
        dark="results/raw/bragg/{scan}/dark.tif",
        mask="results/raw/bragg/{scan}/mask.tif",
        truth="results/raw/bragg/{scan}/truth.parquet",
    log:
        "results/logs/bragg/{scan}/simulate.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/simulate.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory("bragg.simulate", 1000),
        runtime=minutes("bragg.simulate", 10),
    params:
        state=lambda wildcards: SCANS[wildcards.scan].state_of_charge or 0.0,
        options=options("bragg.simulate"),
        code=code("bragg.simulate"),
    message:
        "Simulating the raw frames of scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg simulate results/raw/bragg/{wildcards.scan}"
        " --state-of-charge {params.state} {params.options}"


rule bragg_frames:
    input:
        raw=lambda wildcards: bragg_raw(wildcards.scan),
        corrections=lambda wildcards: stored(scans.correction_files(SCANS[wildcards.scan])),
    output:
        frames="results/bragg/{scan}/frames.h5",
        record="results/bragg/{scan}/frames.json",
    log:
        "results/logs/bragg/{scan}/frames.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/frames.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory("bragg.frames", 2000),
        runtime=minutes("bragg.frames", 60),
    params:
        source=lambda wildcards: fetched(scans.source(SCANS[wildcards.scan], SIMULATE)),
        corrections=lambda wildcards: fetched(scans.correction_flags(SCANS[wildcards.scan])),
        options=options("bragg.frames"),
        code=code("bragg.frames"),
    message:
        "Correcting the raw frames of scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg frames {params.source:q} {params.corrections}"
        " --sample {wildcards.scan} --out {output.frames} --record {output.record} {params.options}"


rule bragg_find_peaks:
    input:
        frames="results/bragg/{scan}/frames.h5",
    output:
        peaks="results/bragg/{scan}/candidates.parquet",
        record="results/bragg/{scan}/candidates.json",
    log:
        "results/logs/bragg/{scan}/find_peaks.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/find_peaks.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=memory("bragg.find_peaks", 2000),
        runtime=minutes("bragg.find_peaks", 60),
    params:
        options=options("bragg.find_peaks"),
        code=code("bragg.find_peaks"),
    message:
        "Finding Bragg peaks in scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg find-peaks {input.frames}"
        " --sample {wildcards.scan} --out {output.peaks} --record {output.record} {params.options}"


rule bragg_fit:
    input:
        frames="results/bragg/{scan}/frames.h5",
        candidates="results/bragg/{scan}/candidates.parquet",
    output:
        peaks="results/bragg/{scan}/peaks.h5",
        record="results/bragg/{scan}/fit.json",
    log:
        "results/logs/bragg/{scan}/fit.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/fit.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=memory("bragg.fit", 2000),
        runtime=minutes("bragg.fit", 60),
    params:
        options=options("bragg.fit"),
        code=code("bragg.fit"),
    message:
        "Fitting the peaks of scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg fit {input.frames} {input.candidates}"
        " --sample {wildcards.scan} --out {output.peaks} --record {output.record} {params.options}"


rule bragg_patches:
    input:
        frames="results/bragg/{scan}/frames.h5",
        peaks="results/bragg/{scan}/peaks.h5",
    output:
        patches="results/bragg/{scan}/patches.h5",
        record="results/bragg/{scan}/patches.json",
    log:
        "results/logs/bragg/{scan}/patches.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/patches.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory("bragg.patches", 2000),
        runtime=minutes("bragg.patches", 60),
    params:
        options=options("bragg.patches"),
        code=code("bragg.patches"),
    message:
        "Cutting training patches from scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg patches {input.frames} {input.peaks}"
        " --sample {wildcards.scan} --out {output.patches} --record {output.record} {params.options}"


rule bragg_train:
    input:
        patches=expand("results/bragg/{scan}/patches.h5", scan=TRAINING_SCANS),
        initial=[CONFIG.bragg.train.initial] if CONFIG.bragg.train.initial else [],
    output:
        model="results/bragg/model/braggnn.pt",
        record="results/bragg/model/train.json",
        figure=report(
            "results/bragg/model/train.png",
            category="Bragg peaks",
            subcategory="network",
            labels={"figure": "training"},
            caption="../report/bragg_train.rst",
        ),
    log:
        "results/logs/bragg/model/train.log",
    benchmark:
        "results/benchmarks/bragg/model/train.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.bragg.train.threads
    resources:
        **PARALLEL,
        mem_mb=memory("bragg.train", 4000),
        runtime=minutes("bragg.train", 240),
        gpu=gpus("bragg.train"),
    params:
        options=options("bragg.train"),
        code=code("bragg.train"),
    message:
        "Training BraggNN on {input.patches}"
    shell:
        "$CATHODEFLOW_LAUNCHER cathodeflow --log {log} bragg train {input.patches}"
        " --out {output.model} --record {output.record} --figure {output.figure}"
        " --checkpoint results/checkpoints/bragg.ckpt {params.options}"


rule bragg_locate:
    input:
        frames="results/bragg/{scan}/frames.h5",
        candidates="results/bragg/{scan}/candidates.parquet",
        model=MODEL,
    output:
        table="results/bragg/{scan}/located.parquet",
        peaks="results/bragg/{scan}/located.h5",
        record="results/bragg/{scan}/locate.json",
    log:
        "results/logs/bragg/{scan}/locate.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/locate.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=memory("bragg.locate", 2000),
        runtime=minutes("bragg.locate", 60),
        gpu=gpus("bragg.locate"),
    params:
        options=options("bragg.locate"),
        code=code("bragg.locate"),
    message:
        "Locating the peaks of scan {wildcards.scan} with the network"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg locate {input.frames} {input.candidates} {input.model:q}"
        " --sample {wildcards.scan} --table {output.table} --out {output.peaks} --record {output.record} {params.options}"


rule bragg_compare:
    input:
        frames="results/bragg/{scan}/frames.h5",
        fitted="results/bragg/{scan}/peaks.h5",
        located="results/bragg/{scan}/located.parquet",
        truth=lambda wildcards: scans.truth_files(SCANS[wildcards.scan]),
    output:
        table="results/bragg/{scan}/compare.csv",
        record="results/bragg/{scan}/compare.json",
        figures=[
            report(
                f"results/bragg/{{scan}}/figures/{figure}.png",
                category="Bragg peaks",
                subcategory="scan {scan}",
                labels={"figure": figure},
                caption=f"../report/bragg_{figure}.rst",
            )
            for figure in FIGURES
        ],
    log:
        "results/logs/bragg/{scan}/compare.log",
    benchmark:
        "results/benchmarks/bragg/{scan}/compare.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory("bragg.compare", 2000),
        runtime=minutes("bragg.compare", 30),
    params:
        truth=lambda wildcards, input: f"--truth {input.truth[0]}" if input.truth else "",
        options=options("bragg.compare"),
        code=code("bragg.compare"),
    message:
        "Comparing network, fit and truth in scan {wildcards.scan}"
    shell:
        "cathodeflow --log {log} --threads {threads} bragg compare {input.frames} {input.fitted} {input.located}"
        " {params.truth} --sample {wildcards.scan} --table {output.table} --record {output.record}"
        " --figures results/bragg/{wildcards.scan}/figures {params.options}"
