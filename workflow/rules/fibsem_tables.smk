PAPER_TABLES = [f"results/fibsem/{{volume}}/table_{number}" for number in FIBSEM.paper_tables]
TARGETS += expand("results/fibsem/{volume}/tables.json", volume=TRAINED if PAPER_TABLES else [])
TARGETS += expand("{table}.{ending}", table=expand(PAPER_TABLES, volume=TRAINED), ending=["csv", "md", "png"])


rule fibsem_tables:
    input:
        comparison="results/fibsem/{volume}/metrics.csv",
        models=expand(f"{RUN}/model.pt", split=SPLITS, seed=FIBSEM.seeds, allow_missing=True),
        tested=expand(f"{RUN}/test.parquet", split=SPLITS, seed=FIBSEM.seeds, allow_missing=True),
        manifest="results/fibsem/{volume}/images.zarr.manifest.json",
    output:
        tables=expand("{table}.{ending}", table=PAPER_TABLES, ending=["csv", "md"]),
        figures=[
            report(
                f"{table}.png",
                category="FIB-SEM",
                subcategory="volume {volume}",
                labels={"figure": f"table {number} of the MatPhase paper"},
                caption="../report/fibsem_tables.rst",
            )
            for number, table in zip(FIBSEM.paper_tables, PAPER_TABLES)
        ],
        record="results/fibsem/{volume}/tables.json",
    log:
        logs("fibsem.tables", "{volume}"),
    benchmark:
        benchmarks("fibsem.tables", "{volume}")
    conda:
        ENVIRONMENT
    threads: FIBSEM.tables.threads
    resources:
        **resources("fibsem.tables", mem_mb=4000, runtime=120),
        gpu=gpus("fibsem.tables"),
    params:
        **stage_params("fibsem.tables"),
        numbers=",".join(map(str, FIBSEM.paper_tables)),
        folders=lambda wildcards: expand(RUN, volume=wildcards.volume, split=SPLITS, seed=FIBSEM.seeds),
    message:
        "Writing the tables of the MatPhase paper for volume {wildcards.volume}"
    shell:
        command(
            "fibsem tables {params.folders} --comparison {input.comparison}"
            " --images results/fibsem/{wildcards.volume}/images.zarr --numbers {params.numbers}"
            " --out results/fibsem/{wildcards.volume}",
            "{wildcards.volume}",
        )
