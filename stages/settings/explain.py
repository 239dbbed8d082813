from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from stages.settings.base import InputPath, Settings, is_part


class ViewSettings(Settings):
    """What a vision-language model sees of an image and of the gaze on it."""

    show: Literal["overlay", "crop", "image"] = Field(
        default="overlay",
        description="overlay: the image with the heatmap and the precise pseudomask's outline; "
        "crop: the image around the broad pseudomask, with that outline; image: the image alone",
    )
    side: int = Field(
        default=448, ge=64, le=2048, description="longer side of what the model sees, px"
    )
    margin: float = Field(
        default=0.25, ge=0, le=2, description="crop: added on each side, as a share of the region"
    )

    def unread(self) -> set[str]:
        """Only a crop has a margin."""
        return set() if self.show == "crop" else {"margin"}


# What a backend or an encoder reads of the settings that not all of them read.
_ASKED = {
    "model", "prompt", "view", "batch_size", "max_tokens", "temperature", "seed", "attempts",
}  # fmt: skip
_BACKENDS = {
    "measured": set[str](),
    "transformers": _ASKED | {"revision", "dtype", "trust_remote_code"},
    "openai": _ASKED | {"url"},
    "import": {"source"},
}
_ENCODERS = {
    "minilm": {"tokens", "batch_size"},
    "transformers": {"tokens", "batch_size", "model", "revision", "pooling"},
    "open_clip": {"tokens", "batch_size", "model", "weights"},
    "import": {"source"},
}


class EndpointSettings(Settings):
    """How an endpoint (explain.backend: openai) is reached: none of it changes an answer."""

    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="environment variable that holds the key; the key is stored nowhere",
    )
    concurrency: int = Field(default=4, ge=1, le=256, description="requests under way at a time")
    timeout_s: float = Field(default=120, gt=0, description="for one request, s")
    retries: int = Field(
        default=6, ge=0, description="of a request that was refused, failed or timed out"
    )


class ExplainSettings(Settings):
    """Who explains an image, and how it is asked."""

    backend: Literal["measured", "transformers", "openai", "import"] = Field(
        default="measured",
        description="measured: words for what is measured inside the gaze, no language model; "
        "transformers: an image-text-to-text model; openai: an HTTP endpoint that speaks OpenAI's "
        "chat protocol; import: texts that were written elsewhere",
    )
    model: str = Field(
        default="",
        description="transformers: local folder or hub id; openai: the endpoint's name for it",
    )
    revision: str = Field(
        default="", description="transformers: commit of a hub id, so that it cannot change"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="bfloat16", description="transformers: type of the weights"
    )
    trust_remote_code: bool = Field(
        default=False, description="transformers: run code that comes with the model's files"
    )
    url: str = Field(
        default="", description="openai: base address, such as http://localhost:8000/v1"
    )
    prompt: InputPath = Field(
        default="workflow/prompts/generic.yaml",
        description="transformers, openai: file of what the model is asked, and in which words it "
        "may answer",
    )
    source: InputPath = Field(default="", description="import: CSV or JSONL file of texts")
    view: ViewSettings = ViewSettings()
    batch_size: int = Field(default=8, ge=1, description="samples asked about at a time")
    max_tokens: int = Field(default=400, ge=16, description="longest answer, tokens")
    temperature: float = Field(
        default=0, ge=0, le=2, description="0: always the likeliest word; above: drawn"
    )
    seed: int = Field(default=0, ge=0, description="of drawn answers")
    attempts: int = Field(
        default=3, ge=1, le=10, description="times a sample is asked about until its answer parses"
    )
    max_failed: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="largest share of samples without a valid answer; more stops the run",
    )
    shards: int = Field(
        default=1, ge=1, le=1000, description="jobs among which the samples are divided"
    )

    def unread(self) -> set[str]:
        """Name what only other backends read."""
        others = set().union(*_BACKENDS.values()) - _BACKENDS[self.backend]
        if self.backend == "transformers" and self.temperature == 0:
            others.add("seed")
        return others

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo[Any]) -> "ExplainSettings":
        if is_part(info):
            return self
        needed = {"transformers": ("model",), "openai": ("model", "url"), "import": ("source",)}
        for name in needed.get(self.backend, ()):
            if not getattr(self, name):
                raise ValueError(f"explain.{name} must be stated for the backend {self.backend}")
        return self


class EmbedSettings(Settings):
    """What turns the words into vectors."""

    encoder: Literal["minilm", "transformers", "open_clip", "import"] = Field(
        default="minilm",
        description="minilm: all-MiniLM-L6-v2, 384-d, installed with the environment; "
        "transformers: a text encoder such as RoBERTa; open_clip: a text tower; import: vectors "
        "that were made elsewhere, such as the authors'",
    )
    model: str = Field(
        default="",
        description="transformers: local folder or hub id; open_clip: name of the architecture "
        "(ViT-B-32), or local-dir: and a folder with config, weights and tokenizer",
    )
    revision: str = Field(
        default="", description="transformers: commit of a hub id, so that it cannot change"
    )
    weights: InputPath = Field(
        default="",
        description="open_clip: file of the weights of an architecture, or the name of published "
        "ones",
    )
    pooling: Literal["mean", "first"] = Field(
        default="mean",
        description="transformers: mean over a sentence's tokens, or its first token",
    )
    tokens: Literal["fields", "one"] = Field(
        default="fields",
        description="fields: a vector for each field of an explanation; one: for all together; "
        "import: as many as the files hold",
    )
    source: InputPath = Field(default="", description="import: folder of <id>.npy")
    batch_size: int = Field(default=64, ge=1, description="sentences at a time")

    def unread(self) -> set[str]:
        """Name what only other encoders read."""
        return set().union(*_ENCODERS.values()) - _ENCODERS[self.encoder]

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo[Any]) -> "EmbedSettings":
        if is_part(info):
            return self
        needed = {"transformers": "model", "open_clip": "model", "import": "source"}
        name = needed.get(self.encoder)
        if name and not getattr(self, name):
            raise ValueError(f"embed.{name} must be stated for the encoder {self.encoder}")
        is_folder = self.model.startswith("local-dir:")
        if self.encoder == "open_clip" and bool(self.weights) == is_folder:
            raise ValueError(
                "embed.weights must be stated for an architecture of open_clip, and empty for a "
                "folder (local-dir:), which holds its own"
            )
        return self


class TextsSettings(Settings):
    """When explanations count as had."""

    max_failed: float = Field(ge=0, le=1)
