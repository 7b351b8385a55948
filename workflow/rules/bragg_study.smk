# Compare search settings on all scans: snakemake study
rule study:
    input:
        STUDIES,
    localrule: True
