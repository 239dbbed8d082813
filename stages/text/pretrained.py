"""Pretrained models: pin their revision, and report why one cannot be loaded."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from safetensors import SafetensorError

from stages.core import cli, io
from stages.core.contents import is_hidden

_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
# `owner/name`; a string that can only be a path does not match.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# How many characters of a library's message an error message quotes.
_MAX_QUOTED_CHARS = 400


class PinnedModel(NamedTuple):
    """The exact version of a model, and how to load it.

    Attributes
    ----------
    revision
        The commit of a hub model, or for a folder `sha256:` and the hash of its files.
    load_options
        Keyword arguments for `from_pretrained`, besides the model's name.
    """

    revision: str
    load_options: dict[str, Any]


def _hash_folder(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of the files directly in a folder.

    The weights count too, because a fine-tuned model may differ from its base model in nothing
    else. Subfolders do not count: the library loads nothing from them. They hold, for example, the
    metadata of a download.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        if not is_hidden(file.name):
            digest.update(f"{file.name}\0{io.sha256(file)}\0".encode())
    return f"sha256:{digest.hexdigest()}"


def _pin_folder(folder: Path, revision: str, section: str) -> PinnedModel:
    if revision:
        raise cli.BadInput(
            folder,
            f"{section}.revision",
            found=revision,
            expected="an empty value: the revision of a local folder is the hash of its files",
            mend=f"leave {section}.revision empty, or set {section}.model to a hub id",
        )
    if not (folder / "config.json").is_file():
        raise cli.BadInput(
            folder,
            "config.json",
            found="no such file",
            expected="a folder written by save_pretrained, or a snapshot of a hub model",
            mend=f"set {section}.model to the folder that holds config.json",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in _PICKLE_PATTERNS for file in folder.glob(pattern))
        raise cli.BadInput(
            folder,
            "weights",
            found=f"only {', '.join(pickles)}" if pickles else "none",
            expected="*.safetensors; other weight files can run code when they are opened",
            mend="use the model's safetensors files, or, if you trust the source, convert it: "
            "load it with from_pretrained and write it with save_pretrained",
        )
    return PinnedModel(_hash_folder(folder), {"local_files_only": True})


def pin_model(model: str, revision: str, section: str) -> PinnedModel:
    """Find a model and return its exact revision.

    Parameters
    ----------
    model
        A folder, or the id of a hub model.
    revision
        The commit of a hub model; empty for a folder.
    section
        The section of config.yaml that both come from, for error messages.

    Raises
    ------
    BadInput
        The folder does not exist, or it has no config or no weights in safetensors files, or a hub
        model has no commit.
    """
    if Path(model).is_dir():
        return _pin_folder(Path(model), revision, section)
    if not _HUB_ID.fullmatch(model):
        raise cli.BadInput(
            model,
            f"{section}.model",
            found="no such folder",
            expected="a folder with a model, or a hub id (owner/name)",
            mend="correct the path; a relative path starts at the folder where snakemake runs",
        )
    if not _COMMIT_HASH.fullmatch(revision):
        raise cli.BadInput(
            model,
            f"{section}.revision",
            found=repr(revision) if revision else "no revision, and no folder of this name",
            expected="the full commit of the hub model, 40 hexadecimal digits: a branch or a tag "
            "can move, and the same config would then give another result",
            mend="copy the commit from the model's page (Files, History), or set "
            f"{section}.model to a folder",
        )
    return PinnedModel(revision, {"revision": revision})


@contextmanager
def report_load_errors(model: str, section: str) -> Iterator[None]:
    """Turn an error of the library that loads a model into a `BadInput`."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ImportError):
            mend = "install the named package into the pipeline's environment"
        elif Path(model).is_dir():
            mend = (
                "copy the complete model folder again, or choose a model that this version of "
                "transformers supports"
            )
        else:
            mend = (
                f"check the id and the commit; without a network, set {section}.model to a "
                "folder; for a model with restricted access, log in with `hf auth login`"
            )
        # This message of the library names a call that the user does not write.
        if "trust_remote_code" in str(error):
            mend = f"read the code, and if you trust it, set {section}.trust_remote_code: true"
        raise cli.BadInput(
            model,
            "the model",
            found=" ".join(str(error).split())[:_MAX_QUOTED_CHARS],
            expected=f"a model that transformers {transformers.__version__} can load from "
            "safetensors files",
            mend=mend,
        ) from error
