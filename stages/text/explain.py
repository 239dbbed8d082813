"""Images and gaze → one shard of answers: what each image's looked-at region is, in words."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from stages.core import cli, io, job_log
from stages.core.fingerprint import fingerprint
from stages.core.images import to_rgb8
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.settings.modules import explain_module
from stages.text import journal
from stages.text.describers import Answer, Describer, Refused, Sample, Setup

# Under no sample's id, the journal holds the revisions of the model that answered.
_REVISIONS = ""
# What changes how the answers are got, and not what they are: one that failed is asked for again.
_MANNER = {"attempts", "max_failed", "shards", "prompt", "source"}


def read_sample(source: h5py.File, gaze: h5py.File, i: int) -> Sample:
    """Sample `i` as a backend sees it."""
    return Sample(
        source["sample_id"].asstr()[i],
        to_rgb8(source["image"][i]),
        gaze["heatmap"][i],
        gaze["pseudomask"][i],
    )


def _key(inputs: dict[str, Path], settings: ExplainSettings, revision: str) -> str:
    """Name what the answers depend on."""
    # What an endpoint is asked together it answers apart; of a model here the sums differ.
    manner = _MANNER | ({"batch_size"} if settings.backend == "openai" else set())
    about = {
        "inputs": {name: io.sha256(path) for name, path in inputs.items()},
        "settings": settings.model_dump(mode="json", exclude=manner),
        # A folder's model may have been replaced.
        "revision": revision,
        "code": fingerprint("stages.text.explain", explain_module(settings.backend)),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _answered(finished: journal.Journal) -> set[str]:
    """Name the samples that have an answer that did not fail."""
    return {
        name for name, answer in finished.finished.items()
        if name != _REVISIONS and not answer["problem"]
    }  # fmt: skip


def _answer(describer: Describer, samples: Sequence[Sample], finished: journal.Journal) -> None:
    try:
        answers = describer.describe(samples)
    except Refused as refused:
        # Where an earlier job got answers with the same settings, these samples are at fault.
        if not _answered(finished):
            raise
        problem = " ".join(str(refused).split())
        answers = [Answer(explanation=None, problem=problem) for _ in samples]
    entries: dict[str, Any] = {
        sample.sample_id: answer.model_dump(mode="json")
        for sample, answer in zip(samples, answers, strict=True)
    }
    # An endpoint tells its revision with its answers, also to a job that is killed later.
    known = {*finished.finished.get(_REVISIONS, []), *describer.revision.split()}
    finished.add(entries | {_REVISIONS: sorted(known)})


def explain(
    prepared: Path,
    gaze: Path,
    output: Path,
    settings: ExplainSettings,
    endpoint: EndpointSettings,
    shard: int,
    shards: int,
    work: Path,
    threads: int,
    gpus: int,
    prompt: Path | None = None,
    source: Path | None = None,
    cache: Path | None = None,
) -> None:
    """Explain every `shards`-th sample with gaze, from the `shard`-th on, and write the answers.

    `output` has a first line that says what answered, and a line per sample: its id and its
    answer, in the order of the samples. Answers are kept in the folder `work` as they come, so that
    a killed job asks only for what it lacks; those that failed are asked for again. What a job of
    any workflow has put into the folder `cache` is not asked for either.
    """
    inputs = {"prepared": prepared, "gaze": gaze}
    inputs |= {"prompt": prompt} if prompt else {}
    inputs |= {"source": source} if source else {}
    names = ("image", "sample_id"), ("heatmap", "pseudomask", "has_gaze", "sample_id")
    with io.open_h5(prepared, *names[0]) as images, io.open_h5(gaze, *names[1]) as looked:
        io.check_same_samples(images, looked)
        sample_ids = io.read_strings(images, "sample_id")
        indices = np.flatnonzero(looked["has_gaze"][()])[shard::shards].tolist()
        module = importlib.import_module(explain_module(settings.backend))
        setup = Setup(settings, endpoint, prompt, source, threads, gpus)
        describer = cast(Describer, module.make(setup))
        key = _key(inputs, settings, describer.revision)
        shared = cache / "explain" / key if cache else None
        finished = journal.Journal(work / key, f"{shard}of{shards}", shared)
        kept = _answered(finished)
        open_ones = [i for i in indices if sample_ids[i] not in kept]
        if len(open_ones) < len(indices):
            cli.log.info("%d answers are there from before", len(indices) - len(open_ones))
        if not open_ones:
            job_log.taken_from(shared or work / key)
        size = settings.batch_size
        if settings.backend == "openai":
            # Else fewer requests than may be would be under way.
            size = max(size, endpoint.concurrency)
        batches = [open_ones[i : i + size] for i in range(0, len(open_ones), size)]
        for batch in cli.progress(batches, "explain"):
            _answer(describer, [read_sample(images, looked, i) for i in batch], finished)
    about = {
        "backend": settings.backend,
        "model": describer.model,
        "revision": " ".join(finished.finished.get(_REVISIONS, [describer.revision])),
        "prompt": prompt.read_text("utf-8") if prompt else "",
    }
    answers = [(name, finished.finished[name]) for name in sample_ids[indices]]
    if shared and answers:
        good = [(name, answer) for name, answer in answers if not answer["problem"]]
        told = [(_REVISIONS, finished.finished[_REVISIONS]), *good]
        with io.atomic(shared / f"{shard}of{shards}.jsonl") as temporary:
            temporary.write_text("".join(journal.lines(told)), "utf-8")
    job_log.made_from(io.provenance("explain", inputs, settings))
    with io.atomic(output) as temporary:
        temporary.write_text("".join(journal.lines([("", about), *answers])), "utf-8")


if __name__ == "__main__":
    cli.run(explain)
