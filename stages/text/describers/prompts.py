"""Prompt files: what a vision-language model is asked, and in which words it may answer.

A lab words the question and its vocabularies. The six keys of the answer and the nine places are
fixed: the text tokens are made of the ones, and the gaze is compared with the others.
"""

import hashlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from stages.core import cli
from stages.text.describers import Explanation, answers
from stages.text.describers.directions import names_direction, without_directions
from stages.text.describers.faithfulness import PLACES

# Of the remarks that become a token, characters.
_LONGEST = 200
_KEYS = (
    "Location", "Boundary", "Characteristics", "Area Percentage", "Confidence", "Remarks",
)  # fmt: skip
_FORM = f"""\
Answer in English, with one JSON object and nothing else, in this form:
{{"Location": "<words>", "Boundary": "<words>", "Characteristics": ["<words>", "<words>"], \
"Area Percentage": <number from 0 to 100>, "Confidence": "<words>", \
"Remarks": "<at most {_LONGEST} characters>"}}"""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_WANTED = ("subject", "location", "boundary", "characteristics", "confidence")


def _check_word(word: str) -> str:
    if not word.isprintable() or set(word) & set(",;:{}\"'"):
        raise ValueError("words without comma, semicolon, colon, brace, quote and line break")
    if names_direction(word):
        raise ValueError("words that name no direction: training flips images")
    return word


def _check_different(words: Sequence[str]) -> None:
    spellings = [answers.plain(word) for word in words]
    for word, spelling in zip(words, spellings):
        if spellings.count(spelling) > 1:
            raise ValueError(f"words that differ; {word!r} is there more than once")


def _check_vocabulary(words: tuple[str, ...]) -> tuple[str, ...]:
    # Pydantic's own limit would count a word that is refused as absent.
    if len(words) < 2:
        raise ValueError("at least two words to choose from")
    _check_different(words)
    return words


Word = Annotated[
    str,
    StringConstraints(min_length=1, max_length=60, strip_whitespace=True),
    AfterValidator(_check_word),
]
Vocabulary = Annotated[tuple[Word, ...], AfterValidator(_check_vocabulary)]


@contextmanager
def _note(wrong: list[str]) -> Iterator[None]:
    """Take note of a `ValueError` and go on behind the block."""
    try:
        yield
    except ValueError as error:
        wrong.append(str(error))


def _list_groups(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{group}: {', '.join(words)}" for group, words in groups.items())


def _distance(place: str) -> str:
    """How far from the centre a ninth of the image is, in words that are true of all of it."""
    away = sum(number != 1 for number in PLACES[place])
    return ("in the centre", "off the centre", "near the border")[away]


class Prompt(BaseModel):
    """A question about a picture, and the words that an answer may use.

    Attributes
    ----------
    version
        Of the wording; raised with each change of it.
    subject
        What the pictures are, such as "colonoscopy frame".
    question
        Text with each of the placeholders {subject}, {location}, {boundary}, {characteristics}
        and {confidence}.
    boundary, confidence
        Words of which an answer chooses one.
    characteristics
        Group → words; an answer chooses at least one of all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    subject: str = Field(min_length=1)
    question: str
    boundary: Vocabulary
    characteristics: dict[Word, Vocabulary] = Field(min_length=1)
    confidence: Vocabulary
    _sha256: str = PrivateAttr()

    @field_validator("question")
    @classmethod
    def _has_placeholders(cls, question: str) -> str:
        found = set(_PLACEHOLDER.findall(question))
        wrong = [f"{{{name}}} is missing" for name in _WANTED if name not in found]
        wrong += [f"{{{name}}} is unknown" for name in sorted(found - set(_WANTED))]
        if wrong:
            raise ValueError(f"text with the placeholders of a prompt; {', '.join(wrong)}")
        return question

    @field_validator("characteristics")
    @classmethod
    def _are_different(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _check_different([word for words in groups.values() for word in words])
        return groups

    @property
    def sha256(self) -> str:
        """Hash of the file's text, hexadecimal."""
        return self._sha256

    def text(self) -> str:
        """Return the question with its vocabularies, and the form of the answer."""
        words = {
            "subject": self.subject,
            "location": ", ".join(PLACES),
            "boundary": ", ".join(self.boundary),
            "characteristics": _list_groups(self.characteristics),
            "confidence": ", ".join(self.confidence),
        }
        question = _PLACEHOLDER.sub(lambda match: words[match[1]], self.question)
        return f"{question.strip()}\n\n{_FORM}"

    def parse(self, raw: str) -> Explanation:
        """Read a model's answer.

        Text and code fences around the JSON, other keys in it, upper and lower case, hyphens,
        underscores, American spelling, and "12%" for 12 are let pass.

        The sentences are templates filled with the values, and name no direction: of the remarks
        they hold the sentences without one, at most 200 characters. The values hold `place`,
        `boundary`, `characteristics`, `confidence`, `area` (0 to 1) and the whole `remarks`.

        Raises
        ------
        ValueError
            The answer cannot be used. The message lists all that is wrong with it, in words that
            can be sent back to the model, without a full stop.
        """
        found = answers.read_object(raw, _KEYS)
        wrong: list[str] = []
        with _note(wrong):
            place = answers.read_words(found["Location"], "Location", tuple(PLACES))
        with _note(wrong):
            boundary = answers.read_words(found["Boundary"], "Boundary", self.boundary)
        with _note(wrong):
            named = answers.read_groups(
                found["Characteristics"], "Characteristics", self.characteristics
            )
        with _note(wrong):
            area = answers.read_area(found["Area Percentage"])
        with _note(wrong):
            confidence = answers.read_words(found["Confidence"], "Confidence", self.confidence)
        with _note(wrong):
            remarks = answers.read_remarks(found["Remarks"])
        if wrong:
            raise ValueError("; ".join(wrong))
        listed = _list_groups(named)
        covered = "less than 1" if area < 0.01 else f"about {round(100 * area)}"
        return Explanation(
            location=f"The region lies {_distance(place)} of the image.",
            boundary=f"Its boundary is {boundary}.",
            characteristics=f"{listed[0].upper()}{listed[1:]}.",
            area_percentage=f"It covers {covered} percent of the image.",
            confidence=f"The confidence in this description is {confidence}.",
            remarks=without_directions(remarks, _LONGEST) or "There is no further remark.",
            values={
                "place": place,
                "boundary": boundary,
                "characteristics": ", ".join(word for words in named.values() for word in words),
                "area": area,
                "confidence": confidence,
                "remarks": remarks,
            },
        )


def _fault(file: Path, error: ErrorDetails) -> cli.BadInput:
    found, expected = repr(error["input"]), error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        found, expected = "nothing", "a value"
    elif error["type"] == "extra_forbidden":
        expected = f"only the keys {', '.join(Prompt.model_fields)}"
    return cli.BadInput(
        file,
        ".".join(str(part) for part in error["loc"] if part != "[key]") or "content",
        found=textwrap.shorten(found, 80, placeholder=" ..."),
        expected=expected,
        mend="edit the prompt; workflow/prompts/generic.yaml shows how one is written",
    )


def load_prompt(file: Path) -> Prompt:
    """Read a prompt file: YAML with the fields of `Prompt`.

    Raises
    ------
    BadInput
        It cannot be read, is no YAML, or lacks or holds what it should not; all that is wrong.
    """
    try:
        text = file.read_text("utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise cli.BadInput(
            file,
            "file",
            found=" ".join(str(error).split()),
            expected="a prompt in YAML, in UTF-8",
            mend="name one of workflow/prompts/, or mend the file at the place that is named",
        ) from error
    problems = cli.Problems()
    try:
        prompt = Prompt.model_validate(content)
    except ValidationError as error:
        problems.extend(_fault(file, fault) for fault in error.errors())
        problems.stop()
        raise
    prompt._sha256 = hashlib.sha256(text.encode()).hexdigest()
    return prompt
