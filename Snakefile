from snakemake.utils import min_version

min_version("9.10")

# A configuration given with --configfile replaces this one, which is the demo.
if not workflow.configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


for technique in SAMPLES:

    include: f"workflow/rules/{technique}.smk"

    # Stages that were added later may have a file of their own, such as bragg_strain.smk.
    for path in rule_files(technique):

        include: path


include: "workflow/rules/mlflow.smk"


rule all:
    default_target: True
    input:
        # Also records, although `mlflow` reads them: Snakemake creates a deleted file again only if it is a target.
        TARGETS,
        "results/mlflow.json",
