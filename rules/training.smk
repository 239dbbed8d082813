"""Teacher, student, and their predictions."""


rule teacher:
    """Train the teacher on the precise gaze region, fused with the text."""
    input:
        unpack(left_out),
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
        explanations="results/{dataset}/explanations.h5",
    output:
        weights="results/{dataset}/{experiment}/seed{seed}/teacher.safetensors",
        history="results/{dataset}/{experiment}/seed{seed}/teacher_history.csv",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/teacher.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/teacher.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    resources:
        gpu=lambda wildcards: CONFIG.dataset(wildcards.dataset).gpus,
        mem_mb=8000,
        runtime=1440,
    params:
        quality=optional("quality"),
        settings=lambda wildcards: CONFIG.experiment(
            wildcards.dataset, wildcards.experiment
        ).teacher.model_dump_json(),
        code=fingerprint("stages.teacher"),
    shell:
        "python -m stages.teacher --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " {params.quality} --explanations {input.explanations:q} --output {output.weights:q}"
        " --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --threads {threads} --gpus {resources.gpu} --log {log:q}"


rule student:
    """Train the student: distilled from the teacher, or on one label alone."""
    input:
        unpack(student_inputs),
    output:
        weights="results/{dataset}/{experiment}/seed{seed}/student.safetensors",
        history="results/{dataset}/{experiment}/seed{seed}/student_history.csv",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/student.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/student.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    resources:
        gpu=lambda wildcards: CONFIG.dataset(wildcards.dataset).gpus,
        mem_mb=8000,
        runtime=1440,
    params:
        gaze=optional("gaze"),
        quality=optional("quality"),
        explanations=optional("explanations"),
        teacher=optional("teacher"),
        settings=lambda wildcards: CONFIG.experiment(
            wildcards.dataset, wildcards.experiment
        ).student.model_dump_json(),
        code=fingerprint("stages.student"),
    shell:
        "python -m stages.student --prepared {input.prepared:q} {params.gaze} {params.quality}"
        " {params.explanations} {params.teacher} --output {output.weights:q}"
        " --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --threads {threads} --gpus {resources.gpu} --log {log:q}"


rule predict:
    """Predict the validation and test images."""
    input:
        unpack(teacher_inputs),
        prepared="results/{dataset}/prepared.h5",
        student="results/{dataset}/{experiment}/seed{seed}/student.safetensors",
    output:
        predictions="results/{dataset}/{experiment}/seed{seed}/predictions.h5",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/predict.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/predict.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    resources:
        gpu=lambda wildcards: CONFIG.dataset(wildcards.dataset).gpus,
        mem_mb=4000,
        runtime=60,
    params:
        explanations=optional("explanations"),
        teacher=optional("teacher"),
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).predict.model_dump_json(),
        code=fingerprint("stages.predict"),
    shell:
        "python -m stages.predict --prepared {input.prepared:q}"
        " --student {input.student:q} {params.explanations} {params.teacher}"
        " --output {output.predictions:q} --settings {params.settings:q} --threads {threads} --gpus {resources.gpu} --log {log:q}"
