"""Inputs of explanations and of their embedding."""

from pathlib import Path

from rules.paths import folder_contents, require_path
from stages.core.config import Config

ROOT = Path(__file__).resolve().parent.parent


def explain_inputs(config: Config, dataset: str) -> dict[str, str]:
    """Name what a backend reads: images, gaze, and a prompt or a table of texts.

    Raises
    ------
    MissingInput
        The prompt or the table does not exist.
    """
    folder = f"results/{dataset}"
    inputs = {"prepared": f"{folder}/prepared.h5", "gaze": f"{folder}/gaze.h5"}
    explain = config.dataset(dataset).explain
    if explain.backend in ("transformers", "openai"):
        # The user's own prompt, or one that ships with the workflow.
        own = Path(explain.prompt).exists()
        prompt = explain.prompt if own else str(ROOT / explain.prompt)
        inputs["prompt"] = require_path("explain.prompt", prompt)
    if explain.backend == "import":
        assert explain.source is not None
        inputs["source"] = require_path("explain.source", explain.source)
    return inputs


def explain_model_contents(config: Config, dataset: str) -> list[str]:
    """Digest the folder of a model that runs here, if it is a folder."""
    explain = config.dataset(dataset).explain
    return folder_contents([explain.model] if explain.backend == "transformers" else [])


def explain_gpus(config: Config, dataset: str) -> int:
    """Count the GPUs of an explanation job: one for a model that runs here, else none."""
    settings = config.dataset(dataset)
    return min(1, settings.gpus) if settings.explain.backend == "transformers" else 0


def answer_files(config: Config, dataset: str) -> list[str]:
    """Name the answers of every shard."""
    shards = config.dataset(dataset).explain.shards
    return [f"results/{dataset}/texts/{shard}of{shards}.jsonl" for shard in range(shards)]


def embed_inputs(config: Config, dataset: str) -> dict[str, str]:
    """Name what an encoder reads besides the texts: finished vectors, or a file of weights.

    Raises
    ------
    MissingInput
        One of them does not exist.
    """
    embed = config.dataset(dataset).embed
    inputs = {}
    if embed.source:
        inputs["source"] = require_path("embed.source", embed.source)
    # A name without a slash is a tag of published weights, unless a file has that name.
    if Path(embed.weights).is_file() or "/" in embed.weights:
        inputs["weights"] = require_path("embed.weights", embed.weights)
    return inputs


def embed_contents(config: Config, dataset: str) -> list[str]:
    """Digest the folders of finished vectors and of the model."""
    embed = config.dataset(dataset).embed
    folders = (embed.source, embed.model.removeprefix("local-dir:"))
    return folder_contents(folder for folder in folders if folder)
