ERRORS = FIBSEM.error_bars

if ERRORS:
    TARGETS += expand(
        [
            f"{RUN}/model_errors.json",
            f"{RUN}/calibrate_errors.json",
            f"{RUN}/property_errors.csv",
            f"{RUN}/compare_properties.json",
            f"{RUN}/property_figures.json",
            f"{RUN}/property_errors.png",
        ],
        volume=TRAINED,
        split=SPLITS,
        seed=FIBSEM.seeds,
    )
    TARGETS += fibsem_stores("results/fibsem", [f"{name}/measure" for name in NEW], ["phases"])
    TARGETS += expand(
        "results/fibsem/{volume}/measure/{file}",
        volume=NEW,
        file=["properties.csv", "properties.json", "measure.json"],
    )
    if FIBSEM.cells:
        TARGETS += expand(
            "results/fibsem/{volume}/measure/{file}",
            volume=NEW,
            file=["bpx.json", "discharge.csv", "cell.json", "property_figures.json", "discharge.png"],
        )


rule fibsem_calibrate_errors:
    input:
        model=f"{RUN}/model.pt",
        manifests=fibsem_manifests("results/fibsem/{volume}/", ["images", "image_labels"]),
        pairs="results/fibsem/{volume}/pairs.parquet",
    output:
        errors=f"{RUN}/model_errors.json",
        record=f"{RUN}/calibrate_errors.json",
    log:
        logs("fibsem.calibrate_errors", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.calibrate_errors", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.calibrate_errors.threads
    resources:
        **resources("fibsem.calibrate_errors", mem_mb=4000, runtime=240),
        gpu=gpus("fibsem.calibrate_errors"),
    params:
        **stage_params("fibsem.calibrate_errors"),
    message:
        "Measuring the segmentation error of properties on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem calibrate-errors {{input.model}} {FIBSEM_IMAGES} {{input.pairs}} --split {{wildcards.split}}"
            " --out {output.errors}",
            FIBSEM_SAMPLE,
        )


rule fibsem_compare_properties:
    input:
        errors=f"{RUN}/model_errors.json",
        manifest=f"{RUN}/test_labels.zarr.manifest.json",
        table=f"{RUN}/test.parquet",
        truth="results/fibsem/{volume}/image_labels.zarr.manifest.json",
    output:
        table=f"{RUN}/property_errors.csv",
        record=f"{RUN}/compare_properties.json",
    log:
        logs("fibsem.compare_properties", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.compare_properties", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.compare_properties.threads
    resources:
        **resources("fibsem.compare_properties", mem_mb=4000, runtime=240),
    params:
        **stage_params("fibsem.compare_properties"),
    message:
        "Comparing the properties of the test slices of volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem compare-properties {FIBSEM_RUN} results/fibsem/{{wildcards.volume}}/image_labels.zarr"
            " {input.errors} --out {output.table}",
            FIBSEM_SAMPLE,
        )


rule fibsem_property_figures:
    input:
        table=f"{RUN}/property_errors.csv",
        test=f"{RUN}/test.json",
    output:
        record=f"{RUN}/property_figures.json",
        figure=report(
            f"{RUN}/property_errors.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "properties with error bars", "seed": "{seed}"},
            caption="../report/fibsem_properties_errors.rst",
        ),
    log:
        logs("fibsem.property_figures", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.property_figures", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.property_figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("fibsem.property_figures"),
    message:
        "Drawing the properties of the test slices of volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem property-figures --comparison {{input.table}} --test {{input.test}} --out {FIBSEM_RUN}",
            FIBSEM_SAMPLE,
        )


rule fibsem_measure:
    input:
        raw=lambda wildcards: fibsem_raw(wildcards.volume, "images"),
        model=stored([FIBSEM.measure.model or fibsem_model()]),
        calibration=fibsem_calibration(),
    output:
        phases=directory("results/fibsem/{volume}/measure/phases.zarr"),
        phases_manifest="results/fibsem/{volume}/measure/phases.zarr.manifest.json",
        table="results/fibsem/{volume}/measure/properties.csv",
        properties="results/fibsem/{volume}/measure/properties.json",
        record="results/fibsem/{volume}/measure/measure.json",
        page="results/fibsem/{volume}/measure/surface.html",
        figure=report(
            "results/fibsem/{volume}/measure/properties.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "properties with error bars"},
            caption="../report/fibsem_measure.rst",
        ),
    log:
        logs("fibsem.measure", "{volume}"),
    benchmark:
        benchmarks("fibsem.measure", "{volume}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.measure.threads
    resources:
        **resources("fibsem.measure", mem_mb=8000, runtime=480),
        gpu=gpus("fibsem.measure"),
    params:
        options=not_compared(lambda wildcards: to_flags(fibsem_measure_options())),
        compared=lambda wildcards: compared_stage("fibsem.measure"),
        code=code("fibsem.measure"),
        contents=lambda wildcards: fibsem_contents(wildcards.volume, "images"),
        images=not_compared(lambda wildcards: fetched(fibsem_source(wildcards.volume, "images"))),
    message:
        "Measuring the properties of volume {wildcards.volume}"
    shell:
        command(
            "fibsem measure {params.images:q} --out results/fibsem/{wildcards.volume}/measure", "{wildcards.volume}"
        )


rule fibsem_cell:
    input:
        properties="results/fibsem/{volume}/measure/properties.csv",
        template=stored([FIBSEM.cell.template] if FIBSEM.cell.template else []),
    output:
        cell="results/fibsem/{volume}/measure/bpx.json",
        curves="results/fibsem/{volume}/measure/discharge.csv",
        record="results/fibsem/{volume}/measure/cell.json",
    log:
        logs("fibsem.cell", "{volume}"),
    benchmark:
        benchmarks("fibsem.cell", "{volume}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.cell", mem_mb=2000, runtime=120),
    params:
        **stage_params("fibsem.cell"),
    message:
        "Writing the parameters of a cell with the electrode of volume {wildcards.volume}"
    shell:
        command("fibsem cell {input.properties} --out {output.cell} --curves {output.curves}", "{wildcards.volume}")


rule fibsem_discharge_figure:
    input:
        curves="results/fibsem/{volume}/measure/discharge.csv",
    output:
        record="results/fibsem/{volume}/measure/property_figures.json",
        figure=report(
            "results/fibsem/{volume}/measure/discharge.png",
            category="FIB-SEM",
            subcategory="volume {volume}",
            labels={"figure": "discharge curves"},
            caption="../report/fibsem_discharge.rst",
        ),
    log:
        logs("fibsem.property_figures", "{volume}/measure"),
    benchmark:
        benchmarks("fibsem.property_figures", "{volume}/measure")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("fibsem.property_figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("fibsem.property_figures"),
    message:
        "Drawing the discharge curves of a cell with the electrode of volume {wildcards.volume}"
    shell:
        command(
            "fibsem property-figures --curves {input.curves} --out results/fibsem/{wildcards.volume}/measure",
            "{wildcards.volume}/measure",
        )
