"""Shards of answers → texts.h5: an explanation per sample, and whether it is true of its image."""

import hashlib
import json
from pathlib import Path

import numpy as np

from stages.core import cli, io
from stages.settings.explain import TextsSettings
from stages.text.describers import FIELDS, Answer
from stages.text.describers.faithfulness import agreement

_ABOUT = ("backend", "model", "revision", "prompt")
# How many failures a message shows.
_SHOWN = 5


def _read(shard: Path) -> tuple[dict[str, str], dict[str, Answer]]:
    (_, about), *entries = (json.loads(line) for line in shard.read_text("utf-8").split("\n")[:-1])
    return about, {name: Answer.model_validate(answer) for name, answer in entries}


def _check_failed(answers: dict[str, Answer], limit: float, shards: list[Path]) -> None:
    failed = {name: answer for name, answer in answers.items() if answer.problem}
    for name, answer in failed.items():
        cli.log.warning("%s: %s", name, answer.problem)
    if len(failed) > limit * len(answers):
        examples = "; ".join(f"{name}: {failed[name].problem}" for name in list(failed)[:_SHOWN])
        raise cli.BadInput(
            shards[0].parent,
            "explanations",
            found=f"{len(failed)} of {len(answers)} samples without a valid one: {examples}",
            expected=f"at most {limit:.0%} (explain.max_failed)",
            mend="read the raw answers in the shards; mend the table of imported texts, choose "
            "another model or prompt, or run `snakemake --forcerun explain` to ask for them again",
        )


def merge_texts(
    prepared: Path, gaze: Path, answers: list[Path], output: Path, settings: TextsSettings
) -> None:
    """Write texts.h5 from the answers of all shards.

    `text` (N, K) and `attributes` (N,), JSON of the values behind the sentences, are empty where
    there is no explanation. `failed` (N,) bool and `raw_answers` (N,), JSON, say why. Of the claims
    that can be measured: `area_error` (N,), claimed less looked-at area as a share of the image,
    NaN where none is claimed; `area_agrees` and `place_agrees` (N,) int8: 1 yes, 0 no, -1 nothing
    is claimed.

    Raises
    ------
    BadInput
        More samples failed than `settings.max_failed` allows; a shard is of other samples.
    """
    inputs = {"prepared": prepared, "gaze": gaze}
    inputs |= {f"answers {i}": file for i, file in enumerate(answers)}
    read = [_read(file) for file in answers]
    about = read[0][0]
    by_id = {name: answer for _, found in read for name, answer in found.items()}
    _check_failed(by_id, settings.max_failed, answers)
    with (
        io.open_h5(prepared, "sample_id") as source,
        io.open_h5(gaze, "pseudomask", "has_gaze", "sample_id") as looked,
        io.create_h5(output, "texts", inputs, settings) as file,
    ):
        io.check_same_samples(source, looked)
        sample_ids = io.read_strings(source, "sample_id")
        if set(sample_ids[looked["has_gaze"][()]]) != set(by_id):
            raise cli.BadInput(
                answers[0].parent,
                "samples",
                found=f"{len(by_id)} answers",
                expected=f"one for each of the {int(looked['has_gaze'][()].sum())} with gaze",
                mend="run `snakemake --forcerun explain`: the shards are of different data",
            )
        n = len(sample_ids)
        text = np.full((n, len(FIELDS)), "", object)
        attributes, raw = np.full(n, "{}", object), np.full(n, "[]", object)
        failed, area_error = np.zeros(n, bool), np.full(n, np.nan, np.float32)
        agrees = {name: np.full(n, -1, np.int8) for name in ("area_agrees", "place_agrees")}
        for i, name in enumerate(sample_ids):
            if (answer := by_id.get(name)) is None:
                continue
            raw[i] = json.dumps(answer.raw, ensure_ascii=False)
            failed[i] = bool(answer.problem)
            if (explanation := answer.explanation) is None:
                continue
            text[i] = explanation.sentences()
            attributes[i] = json.dumps(explanation.values, ensure_ascii=False, sort_keys=True)
            found = agreement(explanation, looked["pseudomask"][i])
            area_error[i] = found.area_error
            for key, values in agrees.items():
                if (verdict := getattr(found, key)) is not None:
                    values[i] = verdict
        for key, texts in (
            ("sample_id", sample_ids), ("text", text), ("attributes", attributes),
            ("raw_answers", raw),
        ):  # fmt: skip
            io.write_strings(file, key, texts)
        for key, numbers in (("failed", failed), ("area_error", area_error), *agrees.items()):
            file[key] = numbers
        for key in _ABOUT:
            file.attrs[key] = about[key]
        file.attrs["prompt_sha256"] = hashlib.sha256(about["prompt"].encode()).hexdigest()
        file.attrs["fields"] = list(FIELDS)


if __name__ == "__main__":
    cli.run(merge_texts)
