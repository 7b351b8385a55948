localrules:
    mlflow,


rule mlflow:
    input:
        [target for target in TARGETS if target.endswith(".json")],
    output:
        "results/mlflow.json",
    log:
        "results/logs/mlflow.log",
    benchmark:
        "results/benchmarks/mlflow.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        tracking=f"--uri {CONFIG.tracking.uri:q} --experiment {CONFIG.tracking.experiment:q}",
    message:
        "Recording the runs in MLflow"
    shell:
        "cathodeflow --log {log} track results {params.tracking} --out {output}"
