import hashlib
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.core.cli import BadInput, BadInputGroup
from stages.text.describers import FIELDS
from stages.text.describers.faithfulness import PLACES
from stages.text.describers.prompts import load_prompt

FOLDER = Path(__file__).parents[3] / "workflow" / "prompts"
NAMES = ("generic", "polyp", "prostate", "skin")
PROMPTS = {name: load_prompt(FOLDER / f"{name}.yaml") for name in NAMES}
POLYP = PROMPTS["polyp"]

DIRECTIONS = {
    "left", "right", "upper", "lower", "up", "down", "above", "below", "top", "bottom",
    "superior", "inferior", "anterior", "posterior", "north", "south", "east", "west",
    "horizontal", "vertical", "clock", "clockwise", "quadrant", "quadrants", "oclock",
}  # fmt: skip

ANSWER = {
    "Location": "upper left",
    "Boundary": "smooth and well-defined",
    "Characteristics": ["pink", "red", "smooth", "sessile and dome-shaped", "seated on a fold"],
    "Area Percentage": 12.4,
    "Confidence": "high",
    "Remarks": "A pale cap. It lies on the left.",
}


def names_direction(text):
    plain = unicodedata.normalize("NFKC", text).casefold()
    return bool(set(re.findall(r"[^\W\d_]+", plain)) & DIRECTIONS)


def answer(**changed):
    return json.dumps(ANSWER | {name.replace("_", " "): value for name, value in changed.items()})


def reason(raw, prompt=POLYP):
    with pytest.raises(ValueError) as error:
        prompt.parse(raw)
    return str(error.value)


# The prompts that ship


@pytest.mark.parametrize("name", NAMES)
def test_the_text_names_all_words_and_keys(name):
    prompt = PROMPTS[name]
    text = prompt.text()
    groups = [word for words in prompt.characteristics.values() for word in words]
    for word in (*PLACES, *prompt.boundary, *prompt.characteristics, *groups, *prompt.confidence):
        assert word in text
    for key in ANSWER:
        assert f'"{key}"' in text
    assert prompt.subject in text
    assert not re.search(r"\{\w+\}", text)


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_is_the_hash_of_the_files_text(name):
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    assert PROMPTS[name].sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_a_prompt_is_accepted_in_an_answer(name):
    prompt = PROMPTS[name]
    for group, words in prompt.characteristics.items():
        for word in words:
            explanation = prompt.parse(
                answer(
                    Boundary=prompt.boundary[0],
                    Characteristics=[word],
                    Confidence=prompt.confidence[-1],
                )
            )
            assert explanation.characteristics.casefold() == f"{group}: {word}.".casefold()


# Reading an answer


def test_an_answer_becomes_sentences_and_values():
    explanation = POLYP.parse(answer())
    assert explanation.sentences() == [
        "The region lies near the border of the image.",
        "Its boundary is smooth and well-defined.",
        "Colour: pink, red; texture: smooth; shape: sessile and dome-shaped; "
        "relation to the surroundings: seated on a fold.",
        "It covers about 12 percent of the image.",
        "The confidence in this description is high.",
        "A pale cap.",
    ]
    assert explanation.values == {
        "place": "upper left",
        "boundary": "smooth and well-defined",
        "characteristics": "pink, red, smooth, sessile and dome-shaped, seated on a fold",
        "area": pytest.approx(0.124),
        "confidence": "high",
        "remarks": "A pale cap. It lies on the left.",
    }


REASONING_TAGS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "</THINK >"),
    ("<thinking budget=9>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(
    "raw",
    [
        f"```json\n{answer()}\n```",
        f"Here is the answer {{as asked}}:\n{answer()}\nI hope that it helps {{:-)}}.",
        *[
            f"{opens}A draft: {answer(Location='lower left')}{closes}\n{answer()}"
            for opens, closes in [*REASONING_TAGS, ("", "</think>"), ("", "</reasoning>")]
        ],
        f"{answer()}<think>It is done.</think>",
        f"<think>a</think><think>{answer(Location='lower left')}</think>{answer()}",
        f"<think>I write in <think>: {answer(Location='lower left')}</think>{answer()}",
        f"<think>{answer(Location='lower left')}</thinking>{answer()}",
        f"<answer>{answer()}</answer>",
        f"Between <words> and <number from 0 to 100>: {answer()}",
        json.dumps({key.lower().replace(" ", "_"): value for key, value in ANSWER.items()}),
        json.dumps({key.upper().replace(" ", "-"): value for key, value in ANSWER.items()}),
        json.dumps(ANSWER, indent=2) + "\n",
        answer(Location="Upper-Left.", Boundary=" smooth and WELL defined", Confidence="HIGH"),
        answer(Characteristics="seated on a fold, Smooth; red, sessile and dome_shaped,  pink."),
        answer(Characteristics=["red", "pink", "red", *ANSWER["Characteristics"]]),
        answer(Area_Percentage="12.4%"),
        answer(Area_Percentage=" About 12.4 percent."),
        answer(Diagnosis="adenoma"),
    ],
)
def test_variations_of_the_format_are_accepted(raw):
    assert POLYP.parse(raw) == POLYP.parse(answer())


def test_american_spelling_is_understood():
    explanation = PROMPTS["skin"].parse(
        answer(
            Location="upper center",
            Boundary="jagged",
            Characteristics=["blue-gray", "of the color of the skin"],
        )
    )
    assert explanation.values["place"] == "upper centre"
    assert explanation.characteristics == "Colour: blue-grey, of the colour of the skin."


@pytest.mark.parametrize(
    ("area", "value", "sentence"),
    [
        (0, 0.0, "It covers less than 1 percent of the image."),
        (0.4, 0.004, "It covers less than 1 percent of the image."),
        (1, 0.01, "It covers about 1 percent of the image."),
        ("12 %", 0.12, "It covers about 12 percent of the image."),
        ("~ 33.6", 0.336, "It covers about 34 percent of the image."),
        (100, 1.0, "It covers about 100 percent of the image."),
    ],
)
def test_the_area_is_a_percentage(area, value, sentence):
    explanation = POLYP.parse(answer(Area_Percentage=area))
    assert explanation.values["area"] == pytest.approx(value)
    assert explanation.area_percentage == sentence


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "it holds no valid JSON object"),
        ("I cannot help with that.", "it holds no valid JSON object"),
        (answer()[:-1], "it holds no valid JSON object"),
        (answer().replace('"', "'"), "it holds no valid JSON object"),
        ("{" * 300, "it holds no valid JSON object"),
        ("{" * 5000, "it holds more than 300 braces without an object"),
        ('{"a":' * 5000, "it holds more than 300 braces without an object"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "it holds no valid JSON object"),
        (f"[{answer()}, {answer()}]", "it holds 2 JSON objects, and one is wanted"),
        *[(f"{opens}A draft: {answer()} but", "it ends within its reasoning, before the answer")
          for opens, _ in REASONING_TAGS],
        (f"<think>a</think><think>{answer()} but", "it ends within its reasoning, before the "
         "answer"),
        (f"<think><reasoning>a</reasoning>{answer()} but", "it ends within its reasoning, before "
         "the answer"),
        (f"{answer()}<think>but", "it ends within its reasoning, before the answer"),
        (f"{answer()}</think>I cannot.", "it holds no valid JSON object"),
        ("{}", "keys are missing: Location, Boundary, Characteristics, Area Percentage, "
         "Confidence, Remarks"),
        (json.dumps({"answer": ANSWER}), "keys are missing: Location, Boundary, Characteristics, "
         "Area Percentage, Confidence, Remarks"),
        (json.dumps({k: v for k, v in ANSWER.items() if k != "Remarks"}),
         "keys are missing: Remarks"),
        (answer(location="lower left"), "the key Location is there more than once"),
        (answer(Location="top left"),
         'Location holds "top left", which is not among the words for it'),
        (answer(Location=["upper left"]), "Location is a list, and should be text"),
        (answer(Boundary=None), "Boundary is empty, and should be text"),
        (answer(Boundary="sharp" * 30), 'Boundary holds "...", which is not among the words '
         "for it"),
        (answer(Characteristics="pink, fuzzy"),
         'Characteristics holds "fuzzy", which is not among the words for it'),
        (answer(Characteristics=[]), "Characteristics holds none of the words for it"),
        (answer(Characteristics=" , "), "Characteristics holds none of the words for it"),
        (answer(Characteristics={"colour": "pink"}),
         "Characteristics is a dict, and should be a list"),
        (answer(Characteristics=["pink", 3]), "Characteristics is a int, and should be text"),
        (answer(Area_Percentage=100.5), "Area Percentage should be from 0 to 100"),
        (answer(Area_Percentage=-1), "Area Percentage should be from 0 to 100"),
        (answer(Area_Percentage=float("nan")), "Area Percentage should be from 0 to 100"),
        (answer(Area_Percentage=10**400), "Area Percentage should be from 0 to 100"),
        (answer(Area_Percentage=True), "Area Percentage is a bool, and should be a number"),
        (answer(Area_Percentage="10-15%"),
         'Area Percentage is "10-15%", and should be a number'),
        (answer(Area_Percentage=None), "Area Percentage is empty, and should be a number"),
        (answer(Confidence="0.9"),
         'Confidence holds "0.9", which is not among the words for it'),
        (answer(Remarks=["none"]), "Remarks is a list, and should be text"),
        (answer(Location="here", Area_Percentage=200, Confidence=1),
         'Location holds "here", which is not among the words for it; Area Percentage should be '
         "from 0 to 100; Confidence is a int, and should be text"),
    ],
)  # fmt: skip
def test_the_error_of_an_answer_is_named(raw, expected):
    assert reason(raw) == expected


def test_an_error_message_can_always_be_encoded():
    text = reason(answer(Location="\ud800\x00"))
    assert text == (r'Location holds "\ud800\u0000", which is not among the words for it')
    assert text.encode()


@pytest.mark.parametrize("remarks", [None, "", "  ", "Seen on the left only."])
def test_a_sentence_replaces_missing_remarks(remarks):
    explanation = POLYP.parse(answer(Remarks=remarks))
    assert explanation.remarks == "There is no further remark."
    assert explanation.values["remarks"] == (remarks or "").strip()


def test_characters_that_cannot_be_stored_are_removed_from_remarks():
    explanation = POLYP.parse(answer(Remarks="A\x00pale \ud800 cap,\n\twet \N{SNOWMAN}."))
    assert explanation.remarks == "A pale cap, wet \N{SNOWMAN}."
    assert explanation.values["remarks"] == explanation.remarks


def test_only_the_values_hold_all_of_long_remarks():
    sentence = "It is as long as forty characters are it."
    assert len(sentence) == 41
    explanation = POLYP.parse(answer(Remarks=" ".join([sentence] * 8)))
    # 4 sentences and 3 spaces are 167 characters, a fifth would make 209.
    assert explanation.remarks == " ".join([sentence] * 4)
    assert explanation.values["remarks"] == " ".join([sentence] * 8)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_sentences_are_the_same_for_a_flipped_image(place):
    row, column = PLACES[place]
    names = {number: name for name, number in PLACES.items()}
    flipped = [(2 - row, column), (row, 2 - column), (2 - row, 2 - column)]
    expected = POLYP.parse(answer(Location=place)).sentences()
    for other in flipped:
        assert POLYP.parse(answer(Location=names[other])).sentences() == expected


def test_each_place_becomes_a_distance_from_the_centre():
    said = {place: POLYP.parse(answer(Location=place)).location for place in PLACES}
    assert said["middle centre"] == "The region lies in the centre of the image."
    assert said["upper centre"] == "The region lies off the centre of the image."
    assert said["lower right"] == "The region lies near the border of the image."


PIECES = st.sampled_from(
    ["left", "Right", "UPPER", "lower", "top", "bottom", "above", "below", "superior", "inferior",
     "3 o'clock", "clockwise", "quadrant", "horizontal", "down", "pale", "cap", "0.5", "the"]
)  # fmt: skip
REMARKS = st.lists(
    st.one_of(PIECES, st.sampled_from([" ", ". ", "-", "_", "\n", "; ", "(", "."]), st.text()),
    max_size=30,
).map("".join)


@given(st.data())
def test_no_sentence_of_any_answer_names_a_direction(data):
    prompt = PROMPTS[data.draw(st.sampled_from(NAMES))]
    words = [word for group in prompt.characteristics.values() for word in group]
    remarks = data.draw(REMARKS)
    explanation = prompt.parse(
        answer(
            Location=data.draw(st.sampled_from(sorted(PLACES))),
            Boundary=data.draw(st.sampled_from(prompt.boundary)),
            Characteristics=data.draw(st.lists(st.sampled_from(words), min_size=1)),
            Area_Percentage=data.draw(st.floats(0, 100)),
            Confidence=data.draw(st.sampled_from(prompt.confidence)),
            Remarks=remarks,
        )
    )
    for field, sentence in zip(FIELDS, explanation.sentences(), strict=True):
        assert sentence, field
        assert not names_direction(sentence), field
        assert sentence.isprintable()
    assert len(explanation.remarks) <= 200
    assert json.dumps(explanation.values, ensure_ascii=False).encode()


@given(st.text(alphabet=st.sampled_from('{}[]":,\\u 0123abcLocation`'), max_size=200))
def test_any_other_text_raises_a_readable_error(text):
    assert re.search("JSON|missing", reason(text))


# Reading a prompt file


def write(tmp_path, **changed):
    content = yaml.safe_load((FOLDER / "polyp.yaml").read_text("utf-8")) | changed
    file = tmp_path / "lab.yaml"
    file.write_text(yaml.safe_dump(content), "utf-8")
    return file


def problem(file):
    with pytest.raises(BadInput) as error:
        load_prompt(file)
    return str(error.value).removeprefix(f"{file}: ")


MEND = "\n  to mend:  edit the prompt; workflow/prompts/generic.yaml is an example"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"confidence": ["low", False]},
         "confidence.1\n  found:    False\n  expected: Input should be a valid string"),
        ({"confidence": ["low"]},
         "confidence\n  found:    ['low']\n  expected: at least two words to choose from"),
        ({"boundary": ["Well-defined", "blurred", "well defined"]},
         "boundary\n  found:    ['Well-defined', 'blurred', 'well defined']\n  expected: different "
         "words; 'Well-defined' occurs more than once"),
        ({"boundary": ["sharp, even", "blurred"]},
         "boundary.0\n  found:    'sharp, even'\n  expected: words without comma, semicolon, "
         "colon, brace, quote or line break"),
        ({"characteristics": {"colour": ["red", "pink"], "site": ["on the left wall", "deep"]}},
         "characteristics.site.0\n  found:    'on the left wall'\n  expected: words without a "
         "direction, because training flips images"),
        ({"characteristics": {"upper half": ["red", "pink"]}},
         "characteristics.upper half\n  found:    'upper half'\n  expected: words without a "
         "direction, because training flips images"),
        ({"characteristics": {"colour": ["red", "pink"], "texture": ["smooth", "Red"]}},
         "characteristics\n  found:    {'colour': ['red', 'pink'], 'texture': ['smooth', 'Red']}\n"
         "  expected: different words; 'red' occurs more than once"),
        ({"question": "What is it? {location} {boundary} {subject} {confidence}"},
         "question\n  found:    'What is it? {location} {boundary} {subject} {confidence}'\n"
         "  expected: text with each placeholder of a prompt; {characteristics} is missing"),
        ({"question": "{subject} {location} {boundary} {characteristics} {confidence} {size}"},
         "question\n  found:    '{subject} {location} {boundary} {characteristics} {confidence} "
         "{size}'\n  expected: text with each placeholder of a prompt; {size} is unknown"),
        ({"vocabulary": ["red"]},
         "vocabulary\n  found:    ['red']\n  expected: only the keys version, subject, question, "
         "boundary, characteristics, confidence"),
        ({"version": 0},
         "version\n  found:    0\n  expected: Input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_fault_of_a_prompt_is_named(tmp_path, changed, message):
    assert problem(write(tmp_path, **changed)) == message + MEND


def test_a_missing_key_is_named(tmp_path):
    file = write(tmp_path)
    content = yaml.safe_load(file.read_text("utf-8"))
    del content["subject"]
    file.write_text(yaml.safe_dump(content))
    assert problem(file) == "subject\n  found:    no value\n  expected: a value" + MEND


def test_all_faults_are_named_at_once(tmp_path):
    with pytest.raises(BadInputGroup, match=r"(?s)2 problems:\n1\. .*version.*\n2\. .*subject"):
        load_prompt(write(tmp_path, version="one", subject=""))


@pytest.mark.parametrize("content", ["", "- a\n- b\n"])
def test_a_prompt_file_without_a_mapping_raises(tmp_path, content):
    file = tmp_path / "lab.yaml"
    file.write_text(content)
    assert problem(file).startswith("content\n  found:    ")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"version: [1\n", "line 2, column 1"),
        ("subject: Fl\u00e4che".encode("latin-1"), "can't decode byte 0xe4"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, found):
    file = tmp_path / "lab.yaml"
    if content is not None:
        file.write_bytes(content)
    message = problem(file)
    assert message.startswith("file\n  found:    ")
    assert found in message
    assert "expected: a prompt as a YAML file in UTF-8" in message


def test_braces_that_are_not_placeholders_are_kept(tmp_path):
    question = yaml.safe_load((FOLDER / "polyp.yaml").read_text("utf-8"))["question"]
    file = write(tmp_path, question=question + '\nSuch as {"a b": {}}', subject="{location}")
    text = load_prompt(file).text()
    assert 'Such as {"a b": {}}' in text
    # Placeholders in an inserted text are not replaced.
    assert "The picture is a {location}." in text


def test_a_copied_prompt_is_the_same_prompt(tmp_path):
    shutil.copy(FOLDER / "skin.yaml", tmp_path / "lab.yaml")
    copied = load_prompt(tmp_path / "lab.yaml")
    assert copied.sha256 == PROMPTS["skin"].sha256
    assert copied.text() == PROMPTS["skin"].text()
