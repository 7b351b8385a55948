SEM_PARTICLES = [
    "particles.csv",
    "particle_distributions.csv",
    "particle_images.csv",
    "particle_outlines.parquet",
    "particles.json",
    "particles.png",
    "particle_outlines.png",
    "particle_figures.json",
]
# Without the section in the configuration only on request.
if "particles" in SEM.model_fields_set:
    TARGETS += expand("results/sem/{set}/{file}", set=[*LABELLED, *TESTED], file=SEM_PARTICLES)


rule sem_particles:
    input:
        table="results/sem/{set}/index.parquet",
        raw=lambda wildcards: sem_raw([wildcards.set]),
    output:
        table="results/sem/{set}/particles.csv",
        distributions="results/sem/{set}/particle_distributions.csv",
        images="results/sem/{set}/particle_images.csv",
        outlines="results/sem/{set}/particle_outlines.parquet",
        record="results/sem/{set}/particles.json",
    log:
        logs("sem.particles", "{set}"),
    benchmark:
        benchmarks("sem.particles", "{set}")
    conda:
        ENVIRONMENT
    threads: SEM.particles.threads
    resources:
        **resources("sem.particles", mem_mb=4000, runtime=120),
    params:
        **stage_params("sem.particles"),
        contents=lambda wildcards: sem_contents(wildcards.set),
        sheet=not_compared(lambda wildcards: SEM.samples),
    message:
        "Measuring the particles in the images of data set {wildcards.set}"
    shell:
        command(
            "sem particles {input.table} --out {output.table} --distributions-table {output.distributions}"
            " --images-table {output.images} --outlines {output.outlines} --sheet {params.sheet:q}",
            "{wildcards.set}",
        )


rule sem_particle_figures:
    input:
        table="results/sem/{set}/particles.csv",
        distributions="results/sem/{set}/particle_distributions.csv",
        images="results/sem/{set}/particle_images.csv",
        outlines="results/sem/{set}/particle_outlines.parquet",
        raw=lambda wildcards: sem_raw([wildcards.set]),
    output:
        record="results/sem/{set}/particle_figures.json",
        figure=report(
            "results/sem/{set}/particles.png",
            category="SEM",
            subcategory="data set {set}",
            labels={"figure": "particles"},
            caption="../report/sem_particles.rst",
        ),
        sheet=report(
            "results/sem/{set}/particle_outlines.png",
            category="SEM",
            subcategory="data set {set}",
            labels={"figure": "outlines of particles"},
            caption="../report/sem_particle_outlines.rst",
        ),
    log:
        logs("sem.particle_figures", "{set}"),
    benchmark:
        benchmarks("sem.particle_figures", "{set}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("sem.particle_figures", mem_mb=2000, runtime=30),
    params:
        **stage_params("sem.particle_figures"),
    message:
        "Drawing the particles of data set {wildcards.set}"
    shell:
        command(
            "sem particle-figures {input.table} --distributions-table {input.distributions}"
            " --images-table {input.images} --outlines {input.outlines} --out {output.figure} --sheet {output.sheet}",
            "{wildcards.set}",
        )
