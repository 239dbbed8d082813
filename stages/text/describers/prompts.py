"""Prompt files: the question for a vision-language model, and the words it may answer with.

A lab chooses the question and the vocabularies. The six keys of the answer are fixed, because they
become the text tokens; the nine places are fixed, because they are compared with the gaze.
"""

import hashlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

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
from stages.text.describers.directions import names_direction, remove_directional_sentences
from stages.text.describers.faithfulness import PLACES

# Longest remarks that become a token, characters.
_MAX_REMARKS_CHARS = 200
_ANSWER_KEYS = (
    "Location", "Boundary", "Characteristics", "Area Percentage", "Confidence", "Remarks",
)  # fmt: skip
_ANSWER_FORMAT = f"""\
Answer in English, with one JSON object and nothing else, in this form:
{{"Location": "<words>", "Boundary": "<words>", "Characteristics": ["<words>", "<words>"], \
"Area Percentage": <number from 0 to 100>, "Confidence": "<words>", \
"Remarks": "<at most {_MAX_REMARKS_CHARS} characters>"}}"""
_PLACEHOLDER_PATTERN = re.compile(r"\{(\w+)\}")
_PLACEHOLDERS = ("subject", "location", "boundary", "characteristics", "confidence")


def _check_word(word: str) -> str:
    if not word.isprintable() or set(word) & set(",;:{}\"'"):
        raise ValueError("words without comma, semicolon, colon, brace, quote or line break")
    if names_direction(word):
        raise ValueError("words without a direction, because training flips images")
    return word


def _check_unique(words: Sequence[str]) -> None:
    spellings = [answers.normalise_spelling(word) for word in words]
    for word, spelling in zip(words, spellings):
        if spellings.count(spelling) > 1:
            raise ValueError(f"different words; {word!r} occurs more than once")


def _check_vocabulary(words: tuple[str, ...]) -> tuple[str, ...]:
    # Pydantic's own minimum length would not count a word that is invalid.
    if len(words) < 2:
        raise ValueError("at least two words to choose from")
    _check_unique(words)
    return words


Word = Annotated[
    str,
    StringConstraints(min_length=1, max_length=60, strip_whitespace=True),
    AfterValidator(_check_word),
]
Vocabulary = Annotated[tuple[Word, ...], AfterValidator(_check_vocabulary)]


@contextmanager
def _collect_error(errors: list[str]) -> Iterator[None]:
    """Append the message of a `ValueError` to `errors` and continue after the block."""
    try:
        yield
    except ValueError as error:
        errors.append(str(error))


def _format_groups(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{group}: {', '.join(words)}" for group, words in groups.items())


def _describe_distance(place: str) -> str:
    """Return words for the distance of a ninth of the image from the centre, without direction."""
    n_off_centre = sum(number != 1 for number in PLACES[place])
    return ("in the centre", "off the centre", "near the border")[n_off_centre]


class Prompt(BaseModel):
    """A question about a picture, and the words that the answer may use.

    Attributes
    ----------
    version
        Version of the wording; a lab increases it with each change.
    subject
        What the pictures show, such as "colonoscopy frame".
    question
        Text with each of the placeholders {subject}, {location}, {boundary}, {characteristics}
        and {confidence}.
    boundary, confidence
        Vocabularies; an answer chooses one word of each.
    characteristics
        Group → vocabulary; an answer chooses at least one word in total.
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
    def _check_placeholders(cls, question: str) -> str:
        found = set(_PLACEHOLDER_PATTERN.findall(question))
        errors = [f"{{{name}}} is missing" for name in _PLACEHOLDERS if name not in found]
        errors += [f"{{{name}}} is unknown" for name in sorted(found - set(_PLACEHOLDERS))]
        if errors:
            raise ValueError(f"text with each placeholder of a prompt; {', '.join(errors)}")
        return question

    @field_validator("characteristics")
    @classmethod
    def _check_unique_words(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _check_unique([word for words in groups.values() for word in words])
        return groups

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's text, hexadecimal."""
        return self._sha256

    def text(self) -> str:
        """Return the question with its vocabularies, and the format of the answer."""
        words = {
            "subject": self.subject,
            "location": ", ".join(PLACES),
            "boundary": ", ".join(self.boundary),
            "characteristics": _format_groups(self.characteristics),
            "confidence": ", ".join(self.confidence),
        }
        question = _PLACEHOLDER_PATTERN.sub(lambda match: words[match[1]], self.question)
        return f"{question.strip()}\n\n{_ANSWER_FORMAT}"

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the answers that `parse` accepts in the given spelling."""
        words = [word for group in self.characteristics.values() for word in group]
        values: tuple[dict[str, Any], ...] = (
            {"type": "string", "enum": list(PLACES)},
            {"type": "string", "enum": list(self.boundary)},
            {"type": "array", "items": {"type": "string", "enum": words}},
            {"type": "number"},
            {"type": "string", "enum": list(self.confidence)},
            {"type": "string"},
        )
        return {
            "type": "object",
            "properties": dict(zip(_ANSWER_KEYS, values, strict=True)),
            "required": list(_ANSWER_KEYS),
            "additionalProperties": False,
        }

    def parse(self, raw: str) -> Explanation:
        """Read a model's answer.

        These variations are accepted: text and code fences around the JSON, additional keys, upper
        and lower case, hyphens, underscores, American spelling, and "12%" for 12.

        The sentences are templates filled with the values, and name no direction: sentences of the
        remarks that name one are left out, and the rest has at most 200 characters. The values hold
        `place`, `boundary`, `characteristics`, `confidence`, `area` (0 to 1) and the complete
        `remarks`.

        Raises
        ------
        ValueError
            The answer cannot be used. The message lists all errors, in words that can be sent back
            to the model, without a full stop.
        """
        found = answers.read_json_object(raw, _ANSWER_KEYS)
        errors: list[str] = []
        with _collect_error(errors):
            place = answers.read_term(found["Location"], "Location", tuple(PLACES))
        with _collect_error(errors):
            boundary = answers.read_term(found["Boundary"], "Boundary", self.boundary)
        with _collect_error(errors):
            terms = answers.read_grouped_terms(
                found["Characteristics"], "Characteristics", self.characteristics
            )
        with _collect_error(errors):
            area = answers.read_area(found["Area Percentage"])
        with _collect_error(errors):
            confidence = answers.read_term(found["Confidence"], "Confidence", self.confidence)
        with _collect_error(errors):
            remarks = answers.read_remarks(found["Remarks"])
        if errors:
            raise ValueError("; ".join(errors))
        characteristics_text = _format_groups(terms)
        area_text = "less than 1" if area < 0.01 else f"about {round(100 * area)}"
        return Explanation(
            location=f"The region lies {_describe_distance(place)} of the image.",
            boundary=f"Its boundary is {boundary}.",
            characteristics=f"{characteristics_text[0].upper()}{characteristics_text[1:]}.",
            area_percentage=f"It covers {area_text} percent of the image.",
            confidence=f"The confidence in this description is {confidence}.",
            remarks=remove_directional_sentences(remarks, _MAX_REMARKS_CHARS)
            or "There is no further remark.",
            values={
                "place": place,
                "boundary": boundary,
                "characteristics": ", ".join(word for words in terms.values() for word in words),
                "area": area,
                "confidence": confidence,
                "remarks": remarks,
            },
        )


def _to_bad_input(file: Path, error: ErrorDetails) -> cli.BadInput:
    found, expected = repr(error["input"]), error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        found, expected = "no value", "a value"
    elif error["type"] == "extra_forbidden":
        expected = f"only the keys {', '.join(Prompt.model_fields)}"
    return cli.BadInput(
        file,
        ".".join(str(part) for part in error["loc"] if part != "[key]") or "content",
        found=textwrap.shorten(found, 80, placeholder=" ..."),
        expected=expected,
        mend="edit the prompt; workflow/prompts/generic.yaml is an example",
    )


def load_prompt(file: Path) -> Prompt:
    """Read a prompt file: YAML with the fields of `Prompt`.

    Raises
    ------
    BadInput
        The file cannot be read, is not YAML, or has missing, unknown or invalid fields. The message
        lists all problems.
    """
    try:
        text = file.read_text("utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise cli.BadInput(
            file,
            "file",
            found=" ".join(str(error).split()),
            expected="a prompt as a YAML file in UTF-8",
            mend="choose a file of workflow/prompts/, or correct the file at the named position",
        ) from error
    problems = cli.Problems()
    try:
        prompt = Prompt.model_validate(content)
    except ValidationError as error:
        problems.extend(_to_bad_input(file, detail) for detail in error.errors())
        problems.raise_all()
        raise
    prompt._sha256 = hashlib.sha256(text.encode()).hexdigest()
    return prompt
