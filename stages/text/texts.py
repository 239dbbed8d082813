"""Shards of answers → texts.h5: one explanation per sample, compared with the gaze."""

import hashlib
import json
from pathlib import Path

import numpy as np

from stages.core import cli, io
from stages.core.contents import parse_json
from stages.settings.explain import TextsSettings
from stages.text.describers import FIELDS, Answer
from stages.text.describers.faithfulness import compare_with_gaze

# What the first line of a shard says about the backend.
_BACKEND_KEYS = ("backend", "model", "revision", "prompt")
# How many failures an error message shows, and how many the log names.
_MAX_EXAMPLES, _MAX_LOGGED = 5, 100


def _read_shard(shard: Path) -> tuple[dict[str, str], dict[str, Answer]]:
    """Read the first line of a shard, and the answer of each sample."""
    try:
        lines = shard.read_text("utf-8").split("\n")[:-1]
        (_, header), *entries = (parse_json(line) for line in lines)
        header = {key: header[key] for key in _BACKEND_KEYS}
        return header, {name: Answer.model_validate(answer) for name, answer in entries}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise cli.BadInput(
            shard,
            "file",
            found=error,
            expected="a line about the backend, and a line for each answer, as JSON",
            mend="delete it and run snakemake again: its rule will make it again",
        ) from error


def _check_failure_share(answers: dict[str, Answer], limit: float, shards: list[Path]) -> None:
    failed = {name: answer for name, answer in answers.items() if answer.problem}
    for name in list(failed)[:_MAX_LOGGED]:
        cli.log.warning("%s: %s", name, failed[name].problem)
    if len(failed) > _MAX_LOGGED:
        cli.log.warning(
            "and %d more samples without a valid answer: the shards tell why",
            len(failed) - _MAX_LOGGED,
        )
    if len(failed) > limit * len(answers):
        examples = "; ".join(
            f"{name}: {failed[name].problem}" for name in list(failed)[:_MAX_EXAMPLES]
        )
        raise cli.BadInput(
            shards[0].parent,
            "explanations",
            found=f"{len(failed)} of {len(answers)} samples without a valid answer: {examples}",
            expected=f"at most {limit:.0%} (explain.max_failed)",
            mend="read the raw answers in the shards; correct the table of imported texts, choose "
            "another model or prompt, or run `snakemake --forcerun explain` to retry these samples",
        )


def merge_texts(
    prepared: Path, gaze: Path, answers: list[Path], output: Path, settings: TextsSettings
) -> None:
    """Write texts.h5 from the answers of all shards.

    `text` (N, K) holds the sentences, and `attributes` (N,) their values as JSON; both are empty
    for a sample without an explanation. `failed` (N,) bool and `raw_answers` (N,) JSON tell why.
    Three datasets compare the explanation with the gaze: `area_error` (N,) is the claimed area
    minus the area of the broad pseudomask, as a share of the image, NaN without a claim;
    `area_agrees` and `place_agrees` (N,) int8 are 1 for yes, 0 for no and -1 without a claim.

    Raises
    ------
    BadInput
        More samples failed than `settings.max_failed` allows, or a shard belongs to other samples.
    """
    inputs = {"prepared": prepared, "gaze": gaze}
    inputs |= {f"answers {i}": file for i, file in enumerate(answers)}
    shards = [_read_shard(file) for file in answers]
    header = shards[0][0]
    answers_by_id = {name: answer for _, shard in shards for name, answer in shard.items()}
    _check_failure_share(answers_by_id, settings.max_failed, answers)
    with (
        io.open_h5(prepared, "sample_id") as prepared_file,
        io.open_h5(gaze, "pseudomask", "has_gaze", "sample_id") as gaze_file,
        io.create_h5(output, "texts", inputs, settings) as file,
    ):
        io.check_same_samples(prepared_file, gaze_file)
        sample_ids = io.read_strings(prepared_file, "sample_id")
        if set(sample_ids[gaze_file["has_gaze"][()]]) != set(answers_by_id):
            raise cli.BadInput(
                answers[0].parent,
                "samples",
                found=f"{len(answers_by_id)} answers",
                expected=f"one for each of the {int(gaze_file['has_gaze'][()].sum())} samples with "
                "gaze",
                mend="run `snakemake --forcerun explain`: the shards belong to other data",
            )
        n = len(sample_ids)
        text = np.full((n, len(FIELDS)), "", object)
        attributes, raw = np.full(n, "{}", object), np.full(n, "[]", object)
        failed, area_error = np.zeros(n, bool), np.full(n, np.nan, np.float32)
        verdicts = {name: np.full(n, -1, np.int8) for name in ("area_agrees", "place_agrees")}
        for i, name in enumerate(sample_ids):
            if (answer := answers_by_id.get(name)) is None:
                continue
            raw[i] = json.dumps(answer.raw, ensure_ascii=False)
            failed[i] = bool(answer.problem)
            if (explanation := answer.explanation) is None:
                continue
            text[i] = explanation.sentences()
            attributes[i] = json.dumps(explanation.values, ensure_ascii=False, sort_keys=True)
            agreement = compare_with_gaze(explanation.values, gaze_file["pseudomask"][i])
            area_error[i] = agreement.area_error
            for key, values in verdicts.items():
                if (verdict := getattr(agreement, key)) is not None:
                    values[i] = verdict
        for key, texts in (
            ("sample_id", sample_ids), ("text", text), ("attributes", attributes),
            ("raw_answers", raw),
        ):  # fmt: skip
            io.write_strings(file, key, texts)
        for key, numbers in (("failed", failed), ("area_error", area_error), *verdicts.items()):
            file[key] = numbers
        for key in _BACKEND_KEYS:
            file.attrs[key] = header[key]
        file.attrs["prompt_sha256"] = hashlib.sha256(header["prompt"].encode()).hexdigest()
        file.attrs["fields"] = list(FIELDS)


if __name__ == "__main__":
    cli.run(merge_texts)
