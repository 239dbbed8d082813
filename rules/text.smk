"""What each looked-at region is, in words and in vectors."""

from rules.text import (
    answer_files,
    embed_contents,
    embed_inputs,
    explain_gpus,
    explain_inputs,
    explain_model_contents,
)
from stages.settings.explain import TextsSettings
from stages.settings.modules import encoder_module, explain_module


rule explain:
    """Explain a share of the images that somebody looked at."""
    input:
        unpack(from_config(explain_inputs)),
    output:
        answers="results/{dataset}/texts/{shard}of{shards}.jsonl",
    log:
        "results/{dataset}/logs/explain_{shard}of{shards}.log",
    benchmark:
        "results/{dataset}/benchmarks/explain_{shard}of{shards}.tsv"
    priority: 1
    conda:
        "../envs/text.yaml"
    threads: dataset_threads
    resources:
        gpu=from_config(explain_gpus),
        # Not a parameter: it changes where a result comes from, not what it is.
        cache=CONFIG.cache,
        # Nor how an endpoint is reached.
        endpoint=dataset_setting(lambda dataset: dataset.endpoint.model_dump_json()),
    params:
        # Not an output: answers outlive a killed job, and a changed setting is asked anew.
        work="results/{dataset}/work/explain",
        gpus=count_gpus,
        prompt=option("prompt"),
        source=option("source"),
        model=from_config(explain_model_contents),
        settings=lambda wildcards: CONFIG.dataset(
            wildcards.dataset
        ).explain.model_dump_json(exclude={"shards", "max_failed"}),
        code=lambda wildcards: fingerprint(
            "stages.text.explain",
            explain_module(CONFIG.dataset(wildcards.dataset).explain.backend),
        ),
    shell:
        "exec python -m stages.text.explain --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " {params.prompt} {params.source} --output {output.answers:q}"
        " --settings {params.settings:q} --endpoint {resources.endpoint:q}"
        " --shard {wildcards.shard}"
        " --shards {wildcards.shards} --work {params.work:q} --threads {threads}"
        " --gpus {params.gpus} --cache {resources.cache:q}"
        " --code {params.code} --log {log:q}"


rule texts:
    """Put the shares together, and hold them against the gaze."""
    input:
        prepared="results/{dataset}/prepared.h5",
        gaze="results/{dataset}/gaze.h5",
        answers=from_config(answer_files),
    output:
        texts="results/{dataset}/texts.h5",
    log:
        "results/{dataset}/logs/texts.log",
    benchmark:
        "results/{dataset}/benchmarks/texts.tsv"
    priority: 1
    conda:
        "../envs/text.yaml"
    threads: 1
    params:
        settings=lambda wildcards: TextsSettings(
            max_failed=CONFIG.dataset(wildcards.dataset).explain.max_failed
        ).model_dump_json(),
        code=fingerprint("stages.text.texts"),
    shell:
        "python -m stages.text.texts --prepared {input.prepared:q} --gaze {input.gaze:q}"
        " --answers {input.answers:q} --output {output.texts:q}"
        " --settings {params.settings:q} --code {params.code} --log {log:q}"


rule embed:
    """Turn the sentences into vectors."""
    input:
        unpack(paths_from_config(embed_inputs)),
        texts="results/{dataset}/texts.h5",
    output:
        explanations="results/{dataset}/explanations.h5",
    log:
        "results/{dataset}/logs/embed.log",
    benchmark:
        "results/{dataset}/benchmarks/embed.tsv"
    priority: 1
    conda:
        "../envs/text.yaml"
    threads: dataset_threads
    resources:
        gpu=one_gpu,
        cache=CONFIG.cache,
    params:
        source=option("source"),
        folders=from_config(embed_contents),
        settings=dataset_setting(lambda dataset: dataset.embed.model_dump_json()),
        code=lambda wildcards: fingerprint(
            "stages.text.embed",
            encoder_module(CONFIG.dataset(wildcards.dataset).embed.encoder),
        ),
    shell:
        "python -m stages.text.embed --texts {input.texts:q} {params.source}"
        " --output {output.explanations:q} --settings {params.settings:q}"
        " --threads {threads} --gpus {resources.gpu} --cache {resources.cache:q}"
        " --code {params.code} --log {log:q}"
