"""Which saved model is meant, of which revision, and what is wrong with it, in our words."""

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

_COMMIT = re.compile(r"[0-9a-f]{40}")
# `owner/name`, and nothing that can only be a path.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# How much of a library's message a message of ours repeats, characters.
_QUOTED = 400


class Pinned(NamedTuple):
    """A model that cannot change unnoticed.

    Attributes
    ----------
    revision
        The commit of a hub's model; of a folder, `sha256:` and the hash of what is in it.
    origin
        What `from_pretrained` has to be told besides the model's name.
    """

    revision: str
    origin: dict[str, Any]


def _hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of the files at the top of a folder.

    The contents of the weights, too: a fine-tuned model differs from its base in nothing else.
    What lies deeper, such as the book-keeping of a download, is not what the library loads.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        if not is_hidden(file.name):
            digest.update(f"{file.name}\0{io.sha256(file)}\0".encode())
    return f"sha256:{digest.hexdigest()}"


def _pin_folder(folder: Path, revision: str, section: str) -> Pinned:
    if revision:
        raise cli.BadInput(
            folder,
            f"{section}.revision",
            found=revision,
            expected="nothing, as this is a folder on the disk: its revision is a hash of it",
            mend=f"leave {section}.revision empty, or state a hub id as {section}.model",
        )
    if not (folder / "config.json").is_file():
        raise cli.BadInput(
            folder,
            "config.json",
            found="no such file",
            expected="a folder that save_pretrained wrote, or a snapshot of a hub's model",
            mend=f"state the folder that holds config.json as {section}.model",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        raise cli.BadInput(
            folder,
            "weights",
            found=f"only {', '.join(pickles)}" if pickles else "none",
            expected="*.safetensors; other files of weights can run code when they are opened",
            mend="take the model's safetensors files, or, if you trust the source, convert it: "
            "load it with from_pretrained and write it with save_pretrained",
        )
    return Pinned(_hash_folder(folder), {"local_files_only": True})


def pin(model: str, revision: str, section: str) -> Pinned:
    """Find a model and what its revision is.

    Parameters
    ----------
    model
        A folder, or else the id of a hub's model.
    revision
        The commit of a hub's model; empty for a folder.
    section
        Of config.yaml, from which both are.

    Raises
    ------
    BadInput
        No such folder, one without a config or without weights in safetensors files, or a hub's
        model without a commit.
    """
    if Path(model).is_dir():
        return _pin_folder(Path(model), revision, section)
    if not _HUB_ID.fullmatch(model):
        raise cli.BadInput(
            model,
            f"{section}.model",
            found="no such folder",
            expected="a folder with a model, or a hub id (owner/name)",
            mend="correct the path; a relative one starts at the folder where snakemake runs",
        )
    if not _COMMIT.fullmatch(revision):
        raise cli.BadInput(
            model,
            f"{section}.revision",
            found=repr(revision) if revision else "nothing, and no folder of the model's name",
            expected="the full commit of the hub's model, 40 hexadecimal digits: a branch or a "
            "tag can be moved, and the same config would then give something else",
            mend="copy the commit from the model's page (Files, History), or state a folder",
        )
    return Pinned(revision, {"revision": revision})


@contextmanager
def loading(model: str, section: str) -> Iterator[None]:
    """Raise `BadInput` for what the library says is wrong with a model."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ImportError):
            mend = "install the package that is named into the environment of the pipeline"
        elif Path(model).is_dir():
            mend = (
                "copy the model's folder again, whole, or choose a model that this version of "
                "transformers knows"
            )
        else:
            mend = (
                f"check id and commit; without a network, state a folder as {section}.model; for "
                "a model with restricted access, log in with `hf auth login`"
            )
        # The only one of the library's messages that tells of a call that a user does not write.
        if "trust_remote_code" in str(error):
            mend = f"read the code, and if you trust it, set {section}.trust_remote_code: true"
        raise cli.BadInput(
            model,
            "the model",
            found=" ".join(str(error).split())[:_QUOTED],
            expected=f"a model that transformers {transformers.__version__} can load from "
            "safetensors files",
            mend=mend,
        ) from error
