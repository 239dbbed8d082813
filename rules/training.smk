"""Teacher, student, and their predictions."""


rule teacher:
    """Train the teacher on the precise gaze region, fused with the text."""
    input:
        unpack(left_out),
        unpack(told),
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
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
        gpu=training_gpus,
        # Not a parameter: where the data lie changes no result.
        resident_mb=lambda wildcards: CONFIG.dataset(wildcards.dataset).resident_mb,
    params:
        launch=launch,
        gpus=count_gpus,
        # Not an output: a checkpoint outlives a killed job.
        work="results/{dataset}/{experiment}/seed{seed}/work",
        quality=optional("quality"),
        explanations=optional("explanations"),
        settings=lambda wildcards: CONFIG.experiment(
            wildcards.dataset, wildcards.experiment
        ).teacher.model_dump_json(),
        code=fingerprint("stages.training.teacher"),
    shell:
        "{params.launch} stages.training.teacher --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " {params.quality} {params.explanations} --output {output.weights:q}"
        " --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --work {params.work:q} --threads {threads}"
        " --gpus {params.gpus} --resident-mb {resources.resident_mb}"
        " --code {params.code} --log {log:q}"


rule pseudolabels:
    """Draw what the teacher says of the training images to their edges."""
    input:
        unpack(teacher_inputs),
        prepared="results/{dataset}/prepared.h5",
    output:
        pseudolabels="results/{dataset}/{experiment}/seed{seed}/pseudolabels.h5",
    log:
        "results/{dataset}/{experiment}/seed{seed}/logs/pseudolabels.log",
    benchmark:
        "results/{dataset}/{experiment}/seed{seed}/benchmarks/pseudolabels.tsv"
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: CONFIG.dataset(wildcards.dataset).threads
    resources:
        gpu=one_gpu,
    params:
        explanations=optional("explanations"),
        settings=lambda wildcards: CONFIG.experiment(
            wildcards.dataset, wildcards.experiment
        ).student.target_crf.model_dump_json(),
        code=fingerprint("stages.training.pseudolabels"),
    shell:
        "python -m stages.training.pseudolabels --prepared {input.prepared:q}"
        " {params.explanations} --teacher {input.teacher:q}"
        " --output {output.pseudolabels:q} --settings {params.settings:q}"
        " --threads {threads} --gpus {resources.gpu} --code {params.code} --log {log:q}"


rule student:
    """Train the student by the experiment's method."""
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
        gpu=training_gpus,
        # Not a parameter: where the data lie changes no result.
        resident_mb=lambda wildcards: CONFIG.dataset(wildcards.dataset).resident_mb,
    params:
        launch=launch,
        gpus=count_gpus,
        work="results/{dataset}/{experiment}/seed{seed}/work",
        gaze=optional("gaze"),
        quality=optional("quality"),
        explanations=optional("explanations"),
        teacher=optional("teacher"),
        pseudolabels=optional("pseudolabels"),
        settings=student_settings,
        code=lambda wildcards: fingerprint(
            "stages.training.student",
            method_module(
                CONFIG.experiment(
                    wildcards.dataset, wildcards.experiment
                ).student.method
            ),
        ),
    shell:
        "{params.launch} stages.training.student --prepared {input.prepared:q} {params.gaze}"
        " {params.quality} {params.explanations} {params.teacher} {params.pseudolabels}"
        " --output {output.weights:q} --history {output.history:q} --settings {params.settings:q}"
        " --seed {wildcards.seed} --work {params.work:q} --threads {threads}"
        " --gpus {params.gpus} --resident-mb {resources.resident_mb}"
        " --code {params.code} --log {log:q}"


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
        gpu=one_gpu,
    params:
        gpus=count_gpus,
        explanations=optional("explanations"),
        teacher=optional("teacher"),
        settings=predict_settings,
        code=fingerprint("stages.evaluation.predict"),
    shell:
        "python -m stages.evaluation.predict --prepared {input.prepared:q}"
        " --student {input.student:q} {params.explanations} {params.teacher}"
        " --output {output.predictions:q} --settings {params.settings:q}"
        " --threads {threads} --gpus {params.gpus} --code {params.code} --log {log:q}"
