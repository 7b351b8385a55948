# Properties of the labels, of the test images by every method, and of segmented volumes.
FIBSEM_PROPERTIES = [
    "properties.csv",
    "properties.json",
    "properties_slices.csv",
    "properties_curves.csv",
    "properties.png",
]

TARGETS += expand(
    "results/fibsem/{volume}/properties/{file}",
    volume=LABELLED + NEW,
    file=[*FIBSEM_PROPERTIES, "sizes.png", "surface.html", "properties_record.json"],
)
TARGETS += expand(
    f"{RUN}/properties/{{file}}",
    volume=TRAINED,
    split=SPLITS,
    seed=FIBSEM.seeds,
    file=[*FIBSEM_PROPERTIES, "properties_record.json"],
)


rule fibsem_properties:
    input:
        manifest=lambda wildcards: f"{fibsem_labels(wildcards.volume)}.manifest.json",
    output:
        table="results/fibsem/{volume}/properties/properties.csv",
        data="results/fibsem/{volume}/properties/properties.json",
        slices="results/fibsem/{volume}/properties/properties_slices.csv",
        curves="results/fibsem/{volume}/properties/properties_curves.csv",
        page="results/fibsem/{volume}/properties/surface.html",
        record="results/fibsem/{volume}/properties/properties_record.json",
        figures=[
            report(
                f"results/fibsem/{{volume}}/properties/{name}.png",
                category="FIB-SEM",
                subcategory="volume {volume}",
                labels={"figure": name},
                caption=f"../report/fibsem_{name}.rst",
            )
            for name in ("properties", "sizes")
        ],
    log:
        logs("fibsem.properties", "{volume}"),
    benchmark:
        benchmarks("fibsem.properties", "{volume}")
    wildcard_constraints:
        volume=only(LABELLED + NEW),
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        **resources("fibsem.properties", mem_mb=4000, runtime=240),
        gpu=gpus("fibsem.properties"),
    params:
        **stage_params("fibsem.properties"),
        labels=lambda wildcards: fibsem_labels(wildcards.volume),
    message:
        "Measuring the properties of volume {wildcards.volume}"
    shell:
        command(
            "fibsem properties {params.labels:q} --out results/fibsem/{wildcards.volume}/properties",
            "{wildcards.volume}",
        )


rule fibsem_method_properties:
    input:
        manifest=f"{RUN}/test_labels.zarr.manifest.json",
        reference="results/fibsem/{volume}/image_labels.zarr.manifest.json",
        table=f"{RUN}/test.parquet",
    output:
        table=f"{RUN}/properties/properties.csv",
        data=f"{RUN}/properties/properties.json",
        slices=f"{RUN}/properties/properties_slices.csv",
        curves=f"{RUN}/properties/properties_curves.csv",
        record=f"{RUN}/properties/properties_record.json",
        figure=report(
            f"{RUN}/properties/properties.png",
            category="FIB-SEM",
            subcategory="volume {volume}, {split}",
            labels={"figure": "properties by every method", "seed": "{seed}"},
            caption="../report/fibsem_method_properties.rst",
        ),
    log:
        logs("fibsem.properties", "{volume}/{split}/seed{seed}"),
    benchmark:
        benchmarks("fibsem.properties", "{volume}/{split}/seed{seed}")
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        **resources("fibsem.properties", mem_mb=4000, runtime=240),
        gpu=gpus("fibsem.properties"),
    params:
        **stage_params("fibsem.properties"),
    message:
        "Measuring the properties by every method on volume {wildcards.volume} ({wildcards.split}, seed {wildcards.seed})"
    shell:
        command(
            f"fibsem properties {FIBSEM_RUN}/test_labels.zarr"
            " --reference results/fibsem/{wildcards.volume}/image_labels.zarr --table {input.table}"
            f" --out {FIBSEM_RUN}/properties",
            FIBSEM_SAMPLE,
        )
