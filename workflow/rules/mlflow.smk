from cathodeflow.tracking import next_attempt

RECORDS = [target for target in TARGETS if target.endswith(".json") and not target.endswith(".manifest.json")]


localrules:
    mlflow,


rule mlflow:
    input:
        RECORDS,
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
        sheets=" ".join(
            f"--sheet {technique}={shlex.quote(getattr(CONFIG, technique).samples)}" for technique in SAMPLES
        ),
        folders=" ".join(
            f"--folder {technique}={name}" for technique in SAMPLES for name in getattr(CONFIG, technique).folders()
        ),
        uri=CONFIG.tracking.uri,
        experiment=CONFIG.tracking.experiment,
        attempt=f"--attempt {next_attempt('results/mlflow.json', CONFIG.tracking.uri)}",
    message:
        "Recording the runs in MLflow"
    shell:
        "cathodeflow --log {log} track results {params.sheets} {params.folders} --uri {params.uri:q}"
        " --experiment {params.experiment:q} --out {output} {params.attempt}"
