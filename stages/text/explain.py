"""Images and gaze → one shard of answers: a description of the region that was looked at."""

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from stages.core import cli, io, job_log
from stages.core.fingerprint import fingerprint
from stages.core.images import to_rgb8
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.settings.modules import explain_module
from stages.text.describers import Answer, BatchRefused, Describer, Sample, Setup
from stages.text.journal import Journal, to_lines

# The journal's entry with the revisions of the model that answered; no sample has this id.
_REVISIONS_ENTRY = ""
# Settings that do not change a valid answer; `prompt` and `source` count as input files. A failed
# sample is asked about again in any case.
_SETTINGS_NOT_IN_KEY = {"attempts", "max_failed", "shards", "prompt", "source"}


def read_sample(source: h5py.File, gaze: h5py.File, i: int) -> Sample:
    """Read sample `i` for a backend."""
    return Sample(
        source["sample_id"].asstr()[i],
        to_rgb8(source["image"][i]),
        gaze["heatmap"][i],
        gaze["pseudomask"][i],
    )


def _cache_key(inputs: dict[str, Path], settings: ExplainSettings, revision: str) -> str:
    """Return a hash of everything that the answers depend on."""
    # An endpoint answers each question on its own. For a local model the batch size changes the
    # rounding.
    excluded = _SETTINGS_NOT_IN_KEY | ({"batch_size"} if settings.backend == "openai" else set())
    key_parts = {
        "inputs": {name: io.sha256(path) for name, path in inputs.items()},
        "settings": settings.model_dump(mode="json", exclude=excluded),
        # The model in a folder may have been replaced.
        "revision": revision,
        "code": fingerprint("stages.text.explain", explain_module(settings.backend)),
    }
    return hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()[:16]


def _answered_ids(journal: Journal) -> Iterator[str]:
    """Yield the ids of the samples with a valid answer."""
    return (
        name for name, answer in journal.entries.items()
        if name != _REVISIONS_ENTRY and not answer["problem"]
    )  # fmt: skip


def _describe_batch(describer: Describer, samples: Sequence[Sample], journal: Journal) -> None:
    """Ask about a batch of samples and add the answers to the journal."""
    try:
        answers = describer.describe(samples)
    except BatchRefused as refused:
        # With the same settings, other samples were answered: these samples are the cause.
        if next(_answered_ids(journal), None) is None:
            raise
        problem = " ".join(str(refused).split())
        answers = [Answer(explanation=None, problem=problem) for _ in samples]
    entries: dict[str, Any] = {
        sample.sample_id: answer.model_dump(mode="json")
        for sample, answer in zip(samples, answers, strict=True)
    }
    # An endpoint reports its revision with the answers. Keep it even if the job is killed later.
    revisions = {*journal.entries.get(_REVISIONS_ENTRY, []), *describer.revision.split()}
    journal.add(entries | {_REVISIONS_ENTRY: sorted(revisions)})


def _write_lines(file: Path, entries: Iterable[tuple[str, Any]]) -> None:
    with io.atomic_file(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(to_lines(entries))


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

    The first line of `output` names the backend and its model. Each further line is the id and the
    answer of one sample, in the order of the samples. The folder `work` keeps each answer as soon
    as it arrives, so that a restarted job asks only about the samples without a valid answer. The
    job also reuses valid answers from the folder `cache`, which all workflows share.
    """
    inputs = {"prepared": prepared, "gaze": gaze}
    inputs |= {"prompt": prompt} if prompt else {}
    inputs |= {"source": source} if source else {}
    datasets = ("image", "sample_id"), ("heatmap", "pseudomask", "has_gaze", "sample_id")
    with (
        io.open_h5(prepared, *datasets[0]) as prepared_file,
        io.open_h5(gaze, *datasets[1]) as gaze_file,
    ):
        io.check_same_samples(prepared_file, gaze_file)
        sample_ids = io.read_strings(prepared_file, "sample_id")
        indices = np.flatnonzero(gaze_file["has_gaze"][()])[shard::shards].tolist()
        module = importlib.import_module(explain_module(settings.backend))
        setup = Setup(settings, endpoint, prompt, source, threads, gpus)
        describer = cast(Describer, module.make(setup))
        key = _cache_key(inputs, settings, describer.revision)
        shared = cache / "explain" / key if cache else None
        journal = Journal(work / key, f"{shard}of{shards}", shared)
        answered = set(_answered_ids(journal))
        pending = [i for i in indices if sample_ids[i] not in answered]
        if len(pending) < len(indices):
            cli.log.info("%d answers are reused from earlier jobs", len(indices) - len(pending))
        if not pending:
            job_log.log_reuse(shared or work / key)
        size = settings.batch_size
        if settings.backend == "openai":
            # A smaller batch could not keep `concurrency` requests under way.
            size = max(size, endpoint.concurrency)
        batches = [pending[i : i + size] for i in range(0, len(pending), size)]
        for batch in cli.progress(batches, "explain"):
            _describe_batch(
                describer, [read_sample(prepared_file, gaze_file, i) for i in batch], journal
            )
    header = {
        "backend": settings.backend,
        "model": describer.model,
        "revision": " ".join(journal.entries.get(_REVISIONS_ENTRY, [describer.revision])),
        "prompt": prompt.read_text("utf-8") if prompt else "",
    }

    def answers() -> Iterator[tuple[str, dict[str, Any]]]:
        return ((name, journal.entries[name]) for name in sample_ids[indices])

    if shared and indices:
        valid = (entry for entry in answers() if not entry[1]["problem"])
        revisions = (_REVISIONS_ENTRY, journal.entries[_REVISIONS_ENTRY])
        _write_lines(shared / f"{shard}of{shards}.jsonl", chain([revisions], valid))
    job_log.log_provenance(io.provenance("explain", inputs, settings))
    _write_lines(output, chain([("", header)], answers()))


if __name__ == "__main__":
    cli.run(explain)
