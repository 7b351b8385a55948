include: "bragg_common.smk"


TRAINING_SCANS = [name for name, scan in SCANS.items() if scan.role == "train"]
MODEL = CONFIG.bragg.locate.model or "results/bragg/model/braggnn.pt"
LOCATE_OPTIONS = settings.to_flags(settings.stage_options(CONFIG, "bragg.locate").model_copy(update={"model": MODEL}))
NETWORK_SCANS = [name for name, scan in SCANS.items() if scan.role != "fit"]
# Measured by one job; the others stage by stage.
ONE_PASS = [name for name in SCANS if CONFIG.bragg.one_pass and name not in NETWORK_SCANS]
STAGED = [name for name in SCANS if name not in ONE_PASS]
GEOMETRY_SCANS = [name for name, scan in SCANS.items() if raw_data.geometry_source(scan)]
# The scans of the series, in the order of the sheet: those with a state of charge and a geometry.
SERIES_SCANS = [name for name in GEOMETRY_SCANS if SCANS[name].state_of_charge is not None]
SERIES_SCANS = SERIES_SCANS if len(SERIES_SCANS) > 1 else []
SERIES_SIMULATED = bool(SERIES_SCANS) and all(SCANS[name].simulated for name in SERIES_SCANS)
GRAIN_SCANS = [name for name, scan in SCANS.items() if scan.grains]
FIGURES = ["patches", "distances", "intensity", "frame"]
SERIES_FIGURES = ["tracks", "lattice"]
# A movie needs no geometry.
MOVIE_SCANS = raw_data.series(SCANS)
MOVIES = [f"results/bragg/series/movie.{kind}" for kind in ("mp4", "gif")[: 1 + CONFIG.bragg.movie.gif]]
# Only made on request, by the target `study`.
STUDIES = expand(
    "results/bragg/{scan}/{file}",
    scan=SCANS,
    file=["study.csv", "study.json", "study_figures.json", "figures/study.png"],
)
EXPORTS = raw_data.export_files(CONFIG.bragg.export)

# All files that are kept, so that deleted ones are made again.
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=STAGED,
    file=[
        "frames.h5",
        "frames.json",
        "candidates.parquet",
        "candidates.json",
        "peaks.h5",
        "fit.json",
    ],
)
TARGETS += expand("results/bragg/{scan}/{file}", scan=SCANS, file=["spots.parquet", "spots.json"])
if SERIES_SCANS:
    TARGETS += expand("results/bragg/series/{file}", file=["tracks.parquet", "tracks.json", "figures.json"])
    TARGETS += expand("results/bragg/series/{file}", file=["lattice.csv", "summary.csv", "lattice.json"])
    TARGETS += expand("results/bragg/series/figures/{figure}.png", figure=SERIES_FIGURES)
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=ONE_PASS,
    file=["frames.h5", "candidates.parquet", "peaks.h5", "measure.json"],
)
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=NETWORK_SCANS,
    file=[
        "located.parquet",
        "located.h5",
        "locate.json",
        "compare.csv",
        "compare_by_intensity.csv",
        "compare_by_amplitude.csv",
        "compare.json",
        "figures.json",
        *(f"figures/{figure}.png" for figure in FIGURES),
    ],
)
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=[name for name in SCANS if name not in NETWORK_SCANS],
    file=["fit_figures.json", "figures/fitted.png"],
)
TARGETS += expand("results/bragg/{scan}/{file}", scan=GEOMETRY_SCANS, file=["angles.parquet", "geometry.json"])
TARGETS += expand(
    "results/bragg/{scan}/{file}",
    scan=GRAIN_SCANS,
    file=["grains.parquet", "grain_spots.parquet", "grains.json", "grain_figures.json", "figures/grains.png"],
)
if NETWORK_SCANS and not CONFIG.bragg.locate.model:
    TARGETS += [MODEL, "results/bragg/model/train.json"]
    TARGETS += ["results/bragg/model/figures.json", "results/bragg/model/train.png"]
    TARGETS += expand("results/bragg/{scan}/{file}", scan=TRAINING_SCANS, file=["patches.h5", "patches.json"])
if EXPORTS:
    TARGETS += expand("results/bragg/{scan}/{file}", scan=SCANS, file=[*EXPORTS, "export.json"])
if MOVIE_SCANS:
    TARGETS += ["results/bragg/series/movie.json", *MOVIES]


wildcard_constraints:
    scan=names("bragg"),


ruleorder: bragg_measure > bragg_frames
ruleorder: bragg_measure > bragg_find_peaks
ruleorder: bragg_measure > bragg_fit


rule bragg_simulate:
    output:
        frames=[f"results/raw/bragg/{{scan}}/{file}" for file in raw_data.simulated_files(SIMULATE)],
        dark="results/raw/bragg/{scan}/dark.tif",
        mask="results/raw/bragg/{scan}/mask.tif",
        omega="results/raw/bragg/{scan}/omega.csv",
        geometry="results/raw/bragg/{scan}/geometry.poni",
        truth="results/raw/bragg/{scan}/truth.parquet",
    log:
        logs("bragg.simulate", "{scan}"),
    benchmark:
        benchmarks("bragg.simulate", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.simulate", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.simulate"),
        state=lambda wildcards: SCANS[wildcards.scan].state_of_charge or 0.0,
    message:
        "Simulating the raw frames of scan {wildcards.scan}"
    shell:
        command("bragg simulate results/raw/bragg/{wildcards.scan} --state-of-charge {params.state}")


rule bragg_frames:
    input:
        raw=lambda wildcards: stored(bragg_raw(wildcards.scan)),
        corrections=lambda wildcards: stored(raw_data.correction_files(SCANS[wildcards.scan])),
    output:
        frames="results/bragg/{scan}/frames.h5",
        record="results/bragg/{scan}/frames.json",
    log:
        logs("bragg.frames", "{scan}"),
    benchmark:
        benchmarks("bragg.frames", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.frames", mem_mb=2000, runtime=60),
    params:
        options=lambda wildcards: settings.to_flags(
            raw_data.frames_options(SCANS[wildcards.scan], settings.stage_options(CONFIG, "bragg.frames"))
        ),
        code=code("bragg.frames"),
        energy=lambda wildcards: raw_data.energy_flag(SCANS[wildcards.scan]),
        contents=lambda wildcards: bragg_contents(wildcards.scan),
        source=not_compared(lambda wildcards: fetched(raw_data.source(SCANS[wildcards.scan], SIMULATE))),
        corrections=not_compared(lambda wildcards: fetched(raw_data.correction_flags(SCANS[wildcards.scan]))),
    message:
        "Correcting the raw frames of scan {wildcards.scan}"
    shell:
        command(
            "bragg frames {params.source:q} {params.corrections} {params.energy} --out {output.frames}",
            "{wildcards.scan}",
        )


rule bragg_find_peaks:
    input:
        frames="results/bragg/{scan}/frames.h5",
    output:
        peaks="results/bragg/{scan}/candidates.parquet",
        record="results/bragg/{scan}/candidates.json",
    log:
        logs("bragg.find_peaks", "{scan}"),
    benchmark:
        benchmarks("bragg.find_peaks", "{scan}")
    conda:
        ENVIRONMENT
    threads: shared(2, SCANS)
    resources:
        **resources("bragg.find_peaks", mem_mb=2000, runtime=60),
    params:
        **stage_params("bragg.find_peaks"),
    message:
        "Finding Bragg peaks in scan {wildcards.scan}"
    shell:
        command("bragg find-peaks {input.frames} --out {output.peaks}", "{wildcards.scan}")


rule bragg_fit:
    input:
        frames="results/bragg/{scan}/frames.h5",
        candidates="results/bragg/{scan}/candidates.parquet",
    output:
        peaks="results/bragg/{scan}/peaks.h5",
        record="results/bragg/{scan}/fit.json",
    log:
        logs("bragg.fit", "{scan}"),
    benchmark:
        benchmarks("bragg.fit", "{scan}")
    conda:
        ENVIRONMENT
    threads: shared(8, SCANS)
    resources:
        **resources("bragg.fit", mem_mb=2000, runtime=60),
    params:
        **stage_params("bragg.fit"),
    message:
        "Fitting the peaks of scan {wildcards.scan}"
    shell:
        command("bragg fit {input.frames} {input.candidates} --out {output.peaks}", "{wildcards.scan}")


rule bragg_measure:
    input:
        raw=lambda wildcards: stored(bragg_raw(wildcards.scan)),
        corrections=lambda wildcards: stored(raw_data.correction_files(SCANS[wildcards.scan])),
    output:
        frames="results/bragg/{scan}/frames.h5",
        candidates="results/bragg/{scan}/candidates.parquet",
        peaks="results/bragg/{scan}/peaks.h5",
        record="results/bragg/{scan}/measure.json",
    log:
        logs("bragg.measure", "{scan}"),
    benchmark:
        benchmarks("bragg.measure", "{scan}")
    wildcard_constraints:
        scan=only(ONE_PASS),
    conda:
        ENVIRONMENT
    threads: shared(4, SCANS)
    resources:
        **resources("bragg.measure", mem_mb=3000, runtime=60),
    params:
        options=lambda wildcards: settings.to_flags(raw_data.measure_options(SCANS[wildcards.scan], CONFIG.bragg)),
        code=code("bragg.measure"),
        energy=lambda wildcards: raw_data.energy_flag(SCANS[wildcards.scan]),
        contents=lambda wildcards: bragg_contents(wildcards.scan),
        source=not_compared(lambda wildcards: fetched(raw_data.source(SCANS[wildcards.scan], SIMULATE))),
        corrections=not_compared(lambda wildcards: fetched(raw_data.correction_flags(SCANS[wildcards.scan]))),
    message:
        "Measuring the peaks of scan {wildcards.scan}"
    shell:
        command(
            "bragg measure {params.source:q} {params.corrections} {params.energy} --frames-out {output.frames}"
            " --candidates {output.candidates} --out {output.peaks}",
            "{wildcards.scan}",
        )


rule bragg_patches:
    input:
        frames="results/bragg/{scan}/frames.h5",
        peaks="results/bragg/{scan}/peaks.h5",
    output:
        patches="results/bragg/{scan}/patches.h5",
        record="results/bragg/{scan}/patches.json",
    log:
        logs("bragg.patches", "{scan}"),
    benchmark:
        benchmarks("bragg.patches", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.patches", mem_mb=2000, runtime=60),
    params:
        **stage_params("bragg.patches"),
    message:
        "Cutting training patches from scan {wildcards.scan}"
    shell:
        command("bragg patches {input.frames} {input.peaks} --out {output.patches}", "{wildcards.scan}")


rule bragg_train:
    input:
        patches=expand("results/bragg/{scan}/patches.h5", scan=TRAINING_SCANS),
        initial=stored([CONFIG.bragg.train.initial] if CONFIG.bragg.train.initial else []),
    output:
        model="results/bragg/model/braggnn.pt",
        record="results/bragg/model/train.json",
    log:
        logs("bragg.train", "model"),
    benchmark:
        benchmarks("bragg.train", "model")
    conda:
        ENVIRONMENT
    threads: CONFIG.bragg.train.threads
    resources:
        **PARALLEL,
        **resources("bragg.train", mem_mb=4000, runtime=240),
        gpu=gpus("bragg.train"),
    params:
        **stage_params("bragg.train"),
    message:
        "Training BraggNN on {input.patches}"
    shell:
        training_command("bragg train {input.patches} --out {output.model}", sample="model", checkpoint="bragg")


rule bragg_locate:
    input:
        frames="results/bragg/{scan}/frames.h5",
        candidates="results/bragg/{scan}/candidates.parquet",
        fitted="results/bragg/{scan}/peaks.h5",
        model=stored([MODEL]),
    output:
        table="results/bragg/{scan}/located.parquet",
        peaks="results/bragg/{scan}/located.h5",
        record="results/bragg/{scan}/locate.json",
    log:
        logs("bragg.locate", "{scan}"),
    benchmark:
        benchmarks("bragg.locate", "{scan}")
    conda:
        ENVIRONMENT
    threads: shared(2, SCANS)
    resources:
        **resources("bragg.locate", mem_mb=2000, runtime=60),
        gpu=gpus("bragg.locate"),
    params:
        options=not_compared(lambda wildcards: LOCATE_OPTIONS),
        compared=lambda wildcards: compared_stage("bragg.locate"),
        code=code("bragg.locate"),
    message:
        "Locating the peaks of scan {wildcards.scan} with the network"
    shell:
        command(
            "bragg locate {input.frames} {input.candidates} --fitted {input.fitted} --table {output.table}"
            " --out {output.peaks}",
            "{wildcards.scan}",
        )


rule bragg_compare:
    input:
        frames="results/bragg/{scan}/frames.h5",
        fitted="results/bragg/{scan}/peaks.h5",
        located="results/bragg/{scan}/located.parquet",
        truth=lambda wildcards: raw_data.truth_files(SCANS[wildcards.scan]),
    output:
        table="results/bragg/{scan}/compare.csv",
        record="results/bragg/{scan}/compare.json",
        by_intensity="results/bragg/{scan}/compare_by_intensity.csv",
        by_amplitude="results/bragg/{scan}/compare_by_amplitude.csv",
    log:
        logs("bragg.compare", "{scan}"),
    benchmark:
        benchmarks("bragg.compare", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.compare", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.compare"),
        truth=lambda wildcards, input: f"--truth {input.truth[0]}" if input.truth else "",
    message:
        "Comparing network, fit and truth in scan {wildcards.scan}"
    shell:
        command(
            "bragg compare {input.frames} {input.fitted} {input.located} {params.truth} --table {output.table}"
            " --by-intensity {output.by_intensity} --by-amplitude {output.by_amplitude}",
            "{wildcards.scan}",
        )


rule bragg_geometry:
    input:
        frames="results/bragg/{scan}/frames.h5",
        geometry=lambda wildcards: stored([raw_data.geometry_source(SCANS[wildcards.scan])]),
        fitted="results/bragg/{scan}/peaks.h5",
        located=lambda wildcards: [f"results/bragg/{wildcards.scan}/located.h5"] * (wildcards.scan in NETWORK_SCANS),
    output:
        table="results/bragg/{scan}/angles.parquet",
        record="results/bragg/{scan}/geometry.json",
    log:
        logs("bragg.geometry", "{scan}"),
    benchmark:
        benchmarks("bragg.geometry", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.geometry", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.geometry"),
        contents=lambda wildcards: bragg_geometry_contents(wildcards.scan),
        geometry=not_compared(lambda wildcards: fetched(raw_data.geometry_source(SCANS[wildcards.scan]))),
        located=lambda wildcards, input: f"--located {input.located[0]}" if input.located else "",
    message:
        "Computing scattering angles of the peaks of scan {wildcards.scan}"
    shell:
        command(
            "bragg geometry {input.frames} {params.geometry:q} --fitted {input.fitted} {params.located}"
            " --out {output.table}",
            "{wildcards.scan}",
        )


rule bragg_spots:
    input:
        frames="results/bragg/{scan}/frames.h5",
        peaks="results/bragg/{scan}/peaks.h5",
        geometry=lambda wildcards: stored(bragg_geometry_files(wildcards.scan)),
    output:
        spots="results/bragg/{scan}/spots.parquet",
        record="results/bragg/{scan}/spots.json",
    log:
        logs("bragg.spots", "{scan}"),
    benchmark:
        benchmarks("bragg.spots", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.spots", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.spots"),
        contents=lambda wildcards: bragg_geometry_contents(wildcards.scan),
        geometry=not_compared(lambda wildcards: bragg_geometry_flags(wildcards.scan)),
        detector=CONFIG.bragg.geometry.detector or "",
    message:
        "Joining the peaks of scan {wildcards.scan} to spots"
    shell:
        command(
            "bragg spots {input.frames} {input.peaks} {params.geometry} --out {output.spots}",
            "{wildcards.scan}",
        )


rule bragg_grains:
    input:
        frames="results/bragg/{scan}/frames.h5",
        spots="results/bragg/{scan}/spots.parquet",
        geometry=lambda wildcards: stored([raw_data.geometry_source(SCANS[wildcards.scan])]),
    output:
        grains="results/bragg/{scan}/grains.parquet",
        spots="results/bragg/{scan}/grain_spots.parquet",
        record="results/bragg/{scan}/grains.json",
    log:
        logs("bragg.grains", "{scan}"),
    benchmark:
        benchmarks("bragg.grains", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.grains", mem_mb=2000, runtime=60),
    params:
        **stage_params("bragg.grains"),
        contents=lambda wildcards: bragg_geometry_contents(wildcards.scan),
        geometry=not_compared(lambda wildcards: fetched(raw_data.geometry_source(SCANS[wildcards.scan]))),
        detector=bragg_detector_flag(),
        energy=lambda wildcards: raw_data.energy_flag(SCANS[wildcards.scan]),
    message:
        "Indexing the grains of scan {wildcards.scan}"
    shell:
        command(
            "bragg grains {input.frames} {input.spots} {params.geometry:q} {params.detector} {params.energy}"
            " --out {output.grains} --spots-out {output.spots}",
            "{wildcards.scan}",
        )


rule bragg_tracks:
    input:
        spots=expand("results/bragg/{scan}/spots.parquet", scan=SERIES_SCANS),
        truth=[file for name in SERIES_SCANS if SERIES_SIMULATED for file in raw_data.truth_files(SCANS[name])],
    output:
        tracks="results/bragg/series/tracks.parquet",
        record="results/bragg/series/tracks.json",
    log:
        logs("bragg.tracks", "series"),
    benchmark:
        benchmarks("bragg.tracks", "series")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.tracks", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.tracks"),
        scans=" ".join(f"--scan {name} --state-of-charge {SCANS[name].state_of_charge}" for name in SERIES_SCANS),
        truth=lambda wildcards, input: " ".join(f"--truth {file}" for file in input.truth),
    message:
        "Linking the spots of all states of charge"
    shell:
        command("bragg tracks {input.spots} {params.scans} {params.truth} --out {output.tracks}", "series")


rule bragg_lattice:
    input:
        tracks="results/bragg/series/tracks.parquet",
        given=stored([file for file in (CONFIG.bragg.lattice.cell.file, CONFIG.bragg.lattice.cycler.file) if file]),
        truth=[file for name in SERIES_SCANS if SERIES_SIMULATED for file in raw_data.truth_files(SCANS[name])],
        geometry=[raw_data.geometry_source(SCANS[name]) for name in SERIES_SCANS[:1] if SERIES_SIMULATED],
    output:
        table="results/bragg/series/lattice.csv",
        summary="results/bragg/series/summary.csv",
        record="results/bragg/series/lattice.json",
    log:
        logs("bragg.lattice", "series"),
    benchmark:
        benchmarks("bragg.lattice", "series")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.lattice", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.lattice"),
        times=" ".join(
            f"--scan-time {name}={SCANS[name].time}" for name in SERIES_SCANS if SCANS[name].time is not None
        ),
        truth=lambda wildcards, input: " ".join(
            [f"--truth {file}" for file in input.truth] + [f"--geometry {file}" for file in input.geometry]
        ),
    message:
        "Computing lattice parameters and strain over all states of charge"
    shell:
        command(
            "bragg lattice {input.tracks} {params.times} {params.truth} --out {output.table}"
            " --summary {output.summary}",
            "series",
        )


rule bragg_series_figures:
    input:
        tracks="results/bragg/series/tracks.parquet",
        lattice="results/bragg/series/lattice.csv",
        summary="results/bragg/series/summary.csv",
    output:
        record="results/bragg/series/figures.json",
        figures=[
            report(
                f"results/bragg/series/figures/{figure}.png",
                category="Bragg peaks",
                subcategory="series",
                labels={"figure": figure},
                caption=f"../report/bragg_{figure}.rst",
            )
            for figure in SERIES_FIGURES
        ],
    log:
        logs("bragg.series_figures", "series"),
    benchmark:
        benchmarks("bragg.series_figures", "series")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.series_figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.series_figures"),
    message:
        "Drawing the figures of the series"
    shell:
        command(
            "bragg series-figures --tracks {input.tracks} --lattice {input.lattice} --summary {input.summary}"
            " --out results/bragg/series/figures",
            "series",
        )


rule bragg_grain_figures:
    input:
        grains="results/bragg/{scan}/grains.parquet",
        spots="results/bragg/{scan}/grain_spots.parquet",
    output:
        record="results/bragg/{scan}/grain_figures.json",
        figure=report(
            "results/bragg/{scan}/figures/grains.png",
            category="Bragg peaks",
            subcategory="scan {scan}",
            labels={"figure": "grains"},
            caption="../report/bragg_grains.rst",
        ),
    log:
        logs("bragg.grain_figures", "{scan}"),
    benchmark:
        benchmarks("bragg.grain_figures", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.grain_figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.grain_figures"),
    message:
        "Drawing the grains of scan {wildcards.scan}"
    shell:
        command(
            "bragg grain-figures {input.grains} {input.spots}" " --out results/bragg/{wildcards.scan}/figures",
            "{wildcards.scan}",
        )


rule bragg_fit_figures:
    input:
        frames="results/bragg/{scan}/frames.h5",
        fitted="results/bragg/{scan}/peaks.h5",
    output:
        record="results/bragg/{scan}/fit_figures.json",
        figure=report(
            "results/bragg/{scan}/figures/fitted.png",
            category="Bragg peaks",
            subcategory="scan {scan}",
            labels={"figure": "fitted"},
            caption="../report/bragg_fitted.rst",
        ),
    log:
        logs("bragg.figures", "{scan}"),
    benchmark:
        benchmarks("bragg.figures", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.figures"),
    message:
        "Drawing the fitted peaks of scan {wildcards.scan}"
    shell:
        command(
            "bragg figures --frames {input.frames} --fitted {input.fitted} --out results/bragg/{wildcards.scan}/figures",
            "{wildcards.scan}",
        )


rule bragg_figures:
    input:
        frames="results/bragg/{scan}/frames.h5",
        fitted="results/bragg/{scan}/peaks.h5",
        located="results/bragg/{scan}/located.parquet",
        comparison="results/bragg/{scan}/compare.csv",
        by_intensity="results/bragg/{scan}/compare_by_intensity.csv",
        by_amplitude="results/bragg/{scan}/compare_by_amplitude.csv",
    output:
        record="results/bragg/{scan}/figures.json",
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
        logs("bragg.figures", "{scan}"),
    benchmark:
        benchmarks("bragg.figures", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("bragg.figures"),
    message:
        "Drawing the figures of scan {wildcards.scan}"
    shell:
        command(
            "bragg figures --frames {input.frames} --fitted {input.fitted} --located {input.located}"
            " --comparison {input.comparison} --by-intensity {input.by_intensity} --by-amplitude {input.by_amplitude}"
            " --out results/bragg/{wildcards.scan}/figures",
            "{wildcards.scan}",
        )


rule bragg_training_figures:
    input:
        training="results/bragg/model/train.json",
    output:
        record="results/bragg/model/figures.json",
        figure=report(
            "results/bragg/model/train.png",
            category="Bragg peaks",
            subcategory="network",
            labels={"figure": "training"},
            caption="../report/bragg_train.rst",
        ),
    log:
        logs("bragg.figures", "model"),
    benchmark:
        benchmarks("bragg.figures", "model")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.figures"),
    message:
        "Drawing the training curves of BraggNN"
    shell:
        command("bragg figures --training {input.training} --out results/bragg/model", "model")


rule bragg_movie:
    input:
        frames=expand("results/bragg/{scan}/frames.h5", scan=MOVIE_SCANS),
        peaks=expand("results/bragg/{scan}/peaks.h5", scan=MOVIE_SCANS),
        tracks=["results/bragg/series/tracks.parquet"] * bool(SERIES_SCANS),
        summary=["results/bragg/series/summary.csv"] * bool(SERIES_SCANS),
    output:
        record="results/bragg/series/movie.json",
        movies=[
            report(
                movie,
                category="Bragg peaks",
                subcategory="series",
                labels={"figure": "movie", "format": movie[-3:].upper()},
                caption="../report/bragg_movie.rst",
            )
            for movie in MOVIES
        ],
    log:
        logs("bragg.movie", "series"),
    benchmark:
        benchmarks("bragg.movie", "series")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.movie", mem_mb=2000, runtime=60),
    params:
        **stage_params("bragg.movie"),
        tracks=lambda wildcards, input: f"--tracks {input.tracks[0]}" if input.tracks else "",
        summary=lambda wildcards, input: f"--summary {input.summary[0]}" if input.summary else "",
        peaks=lambda wildcards, input: " ".join(f"--peaks {path}" for path in input.peaks),
        scans=" ".join(f"--scan {name} --state-of-charge {SCANS[name].state_of_charge}" for name in MOVIE_SCANS),
    message:
        "Making the movie of the series"
    shell:
        command(
            "bragg movie {input.frames} {params.peaks} {params.scans} {params.tracks} {params.summary}"
            " --out {output.movies[0]}",
            "series",
        )


rule bragg_export:
    input:
        frames="results/bragg/{scan}/frames.h5",
        tables=["results/bragg/{scan}/peaks.h5", "results/bragg/{scan}/spots.parquet"],
        geometry=lambda wildcards: stored(bragg_geometry_files(wildcards.scan)),
    output:
        record="results/bragg/{scan}/export.json",
        files=[f"results/bragg/{{scan}}/{file}" for file in EXPORTS],
    log:
        logs("bragg.export", "{scan}"),
    benchmark:
        benchmarks("bragg.export", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.export", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.export"),
        contents=lambda wildcards: bragg_geometry_contents(wildcards.scan),
        geometry=not_compared(lambda wildcards: bragg_geometry_flags(wildcards.scan)),
    message:
        "Writing the peaks and spots of scan {wildcards.scan} for other programs"
    shell:
        command(
            "bragg export {input.tables} --frames {input.frames} {params.geometry} --out results/bragg/{wildcards.scan}",
            "{wildcards.scan}",
        )


rule bragg_study:
    input:
        frames="results/bragg/{scan}/frames.h5",
        truth=lambda wildcards: raw_data.truth_files(SCANS[wildcards.scan]),
    output:
        table="results/bragg/{scan}/study.csv",
        record="results/bragg/{scan}/study.json",
    log:
        logs("bragg.study", "{scan}"),
    benchmark:
        benchmarks("bragg.study", "{scan}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.study", mem_mb=2000, runtime=120),
    params:
        **stage_params("bragg.study"),
        truth=lambda wildcards, input: f"--truth {input.truth[0]}" if input.truth else "",
    message:
        "Comparing search settings on scan {wildcards.scan}"
    shell:
        command("bragg study {input.frames} {params.truth} --out {output.table}", "{wildcards.scan}")


rule bragg_study_figures:
    input:
        study="results/bragg/{scan}/study.csv",
    output:
        record="results/bragg/{scan}/study_figures.json",
        figure=report(
            "results/bragg/{scan}/figures/study.png",
            category="Bragg peaks",
            subcategory="scan {scan}",
            labels={"figure": "search settings"},
            caption="../report/bragg_study.rst",
        ),
    log:
        logs("bragg.figures", "{scan}/study"),
    benchmark:
        benchmarks("bragg.figures", "{scan}/study")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("bragg.figures", mem_mb=1000, runtime=10),
    params:
        **stage_params("bragg.figures"),
    message:
        "Drawing the comparison of search settings of scan {wildcards.scan}"
    shell:
        command("bragg figures --study {input.study} --out results/bragg/{wildcards.scan}/figures", "{wildcards.scan}")
