import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from stages.settings.base import InputPath, Settings, is_partial


class ViewSettings(Settings):
    """The picture of an image and its gaze that a vision-language model receives."""

    show: Literal["overlay", "crop", "image"] = Field(
        default="overlay",
        description="overlay: the image with the heatmap and the precise pseudomask's outline; "
        "crop: the image around the broad pseudomask, with that outline; image: the image alone",
    )
    side: int = Field(default=448, ge=64, le=2048, description="longer side of the picture, px")
    margin: float = Field(
        default=0.25, ge=0, le=2, description="crop: margin on each side, as a share of the region"
    )

    def unused_fields(self) -> set[str]:
        """Return the margin, unless the picture is a crop."""
        return set() if self.show == "crop" else {"margin"}


def _check_field_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]*", name):
        raise ValueError(f"found {name!r}; allowed: letters, digits, _ and -, or an empty text")
    return name


FieldName = Annotated[str, AfterValidator(_check_field_name)]


class NameSettings(Settings):
    """Names of the request's fields at an endpoint (explain.backend: openai); "" leaves one out.

    Without a setting, a field that the endpoint refuses by name is renamed or left out.
    """

    max_tokens: FieldName = Field(
        default="max_tokens", description='such as max_completion_tokens; "": no limit'
    )
    temperature: FieldName = Field(
        default="temperature", description='"": the endpoint\'s own temperature'
    )
    seed: FieldName = Field(default="seed", description='"": sampled answers cannot be repeated')

    @model_validator(mode="after")
    def _check_unique(self, info: ValidationInfo[Any]) -> "NameSettings":
        names = ["model", "messages", "response_format", *filter(None, dict(self).values())]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice and not is_partial(info):
            raise ValueError(
                f"the request would have two fields {twice[0]}; allowed: different names, and none "
                "of model, messages and response_format"
            )
        return self


# Settings that each backend or encoder uses, among those that only some of them use.
_LANGUAGE_MODEL_FIELDS = {
    "model", "prompt", "view", "batch_size", "max_tokens", "temperature", "seed", "attempts",
}  # fmt: skip
_BACKEND_FIELDS = {
    "measured": set[str](),
    "transformers": _LANGUAGE_MODEL_FIELDS | {"revision", "dtype", "trust_remote_code"},
    "openai": _LANGUAGE_MODEL_FIELDS | {"url", "names", "json_schema"},
    "import": {"source"},
}
_ENCODER_FIELDS = {
    "minilm": {"tokens", "batch_size"},
    "transformers": {"tokens", "batch_size", "model", "revision", "pooling"},
    "open_clip": {"tokens", "batch_size", "model", "weights"},
    "import": {"source"},
}


class EndpointSettings(Settings):
    """Connection to an endpoint (explain.backend: openai); it never changes an answer."""

    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="environment variable with the API key; the key is never stored",
    )
    concurrency: int = Field(default=4, ge=1, le=256, description="parallel requests")
    timeout_s: float = Field(default=120, gt=0, description="time limit of one request, s")
    retries: int = Field(
        default=6, ge=0, description="retries of a request that was refused, failed or timed out"
    )


class ExplainSettings(Settings):
    """The backend that explains images, and how it is asked."""

    backend: Literal["measured", "transformers", "openai", "import"] = Field(
        default="measured",
        description="measured: words for image features measured inside the gaze region, without a "
        "language model; transformers: an image-text-to-text model; openai: an HTTP endpoint with "
        "OpenAI's chat protocol; import: texts from another source",
    )
    model: str = Field(
        default="",
        description="transformers: local folder or hub id; openai: model name at the endpoint",
    )
    revision: str = Field(
        default="", description="transformers: commit of a hub id, so that it cannot change"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="bfloat16", description="transformers: type of the weights"
    )
    trust_remote_code: bool = Field(
        default=False, description="transformers: run code from the model's files"
    )
    url: str = Field(default="", description="openai: base URL, such as http://localhost:8000/v1")
    names: NameSettings = NameSettings()
    json_schema: bool = Field(
        default=False,
        description="openai: the endpoint forces the answer into the prompt's JSON schema "
        "(response_format); not every endpoint can",
    )
    prompt: InputPath = Field(
        default="workflow/prompts/generic.yaml",
        description="transformers, openai: file with the question to the model and the words "
        "that it may answer with",
    )
    source: InputPath = Field(default="", description="import: CSV or JSONL file with the texts")
    view: ViewSettings = ViewSettings()
    batch_size: int = Field(default=8, ge=1, description="samples per batch")
    max_tokens: int = Field(default=400, ge=16, description="longest answer, tokens")
    temperature: float = Field(
        default=0, ge=0, le=2, description="0: always the most likely token; above 0: sampled"
    )
    seed: int = Field(default=0, ge=0, description="random seed of sampled answers")
    attempts: int = Field(
        default=3, ge=1, le=10, description="attempts per sample until an answer is valid"
    )
    max_failed: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="largest share of samples without a valid answer; a larger share stops the run",
    )
    shards: int = Field(
        default=1, ge=1, le=1000, description="number of jobs that the samples are divided among"
    )

    def unused_fields(self) -> set[str]:
        """Return the fields that only other backends use."""
        others = set().union(*_BACKEND_FIELDS.values()) - _BACKEND_FIELDS[self.backend]
        if self.backend == "transformers" and self.temperature == 0:
            others.add("seed")
        return others

    @model_validator(mode="after")
    def _check_required(self, info: ValidationInfo[Any]) -> "ExplainSettings":
        if is_partial(info):
            return self
        needed = {"transformers": ("model",), "openai": ("model", "url"), "import": ("source",)}
        for name in needed.get(self.backend, ()):
            if not getattr(self, name):
                raise ValueError(f"explain.{name} must be set for the backend {self.backend}")
        return self


class EmbedSettings(Settings):
    """The encoder that turns texts into vectors."""

    encoder: Literal["minilm", "transformers", "open_clip", "import"] = Field(
        default="minilm",
        description="minilm: all-MiniLM-L6-v2, 384 dimensions, installed with the environment; "
        "transformers: a text encoder such as RoBERTa; open_clip: the text tower of a CLIP model; "
        "import: vectors from another source, such as the authors'",
    )
    model: str = Field(
        default="",
        description="transformers: local folder or hub id; open_clip: name of an architecture "
        "(ViT-B-32), or local-dir:<folder> for a folder with config, weights and tokenizer",
    )
    revision: str = Field(
        default="", description="transformers: commit of a hub id, so that it cannot change"
    )
    weights: InputPath = Field(
        default="",
        description="open_clip: weights of the architecture: a file, or the name of published "
        "weights",
    )
    pooling: Literal["mean", "first"] = Field(
        default="mean",
        description="transformers: mean over the tokens of a sentence, or its first token",
    )
    tokens: Literal["fields", "one"] = Field(
        default="fields",
        description="fields: one vector for each field of an explanation; one: one vector for the "
        "whole explanation; import: as many vectors as the files contain",
    )
    source: InputPath = Field(default="", description="import: folder of <id>.npy files")
    batch_size: int = Field(default=64, ge=1, description="sentences per batch")

    def unused_fields(self) -> set[str]:
        """Return the fields that only other encoders use."""
        return set().union(*_ENCODER_FIELDS.values()) - _ENCODER_FIELDS[self.encoder]

    @model_validator(mode="after")
    def _check_required(self, info: ValidationInfo[Any]) -> "EmbedSettings":
        if is_partial(info):
            return self
        needed = {"transformers": "model", "open_clip": "model", "import": "source"}
        name = needed.get(self.encoder)
        if name and not getattr(self, name):
            raise ValueError(f"embed.{name} must be set for the encoder {self.encoder}")
        is_folder = self.model.startswith("local-dir:")
        if self.encoder == "open_clip" and bool(self.weights) == is_folder:
            raise ValueError(
                "embed.weights must be set for an architecture of open_clip, and empty for a "
                "folder (local-dir:), which has its own weights"
            )
        return self


class TextsSettings(Settings):
    """How many samples may stay without an explanation."""

    max_failed: float = Field(ge=0, le=1)
