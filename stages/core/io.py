"""Files in and out: atomic writes, provenance, and the HDF5 and safetensors contracts."""

import hashlib
import json
import os
import platform
import shutil
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from stages.core.cli import BadInput
from stages.core.contents import find_files

SCHEMA_VERSION = 1
_PACKAGES = (
    "h5py", "jinja2", "matplotlib", "medpy", "nibabel", "numpy", "open_clip_torch", "pandas",
    "pillow", "pydicom", "pymovements", "pynrrd", "safetensors", "scikit-image", "scipy", "torch",
    "transformers",
)  # fmt: skip
_STRING = h5py.string_dtype("utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder: over names and contents of its files, hidden ones aside."""
    if path.is_dir():
        digest = hashlib.sha256()
        for name, _, _ in sorted(find_files(str(path))):
            file = Path(name)
            # A file's name need not be Unicode.
            digest.update(os.fsencode(file.relative_to(path).as_posix()))
            digest.update(f"\0{sha256(file)}\0".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        # The environment of a stage family holds only what it needs.
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def provenance(
    stage: str, inputs: Mapping[str, Path], params: BaseModel | Mapping[str, Any]
) -> dict[str, str | int]:
    """Tell of a file's making, ready to be stored as attributes.

    Parameters
    ----------
    stage
        Name of the stage that writes the file.
    inputs
        Role of each input → its path. Only role and content's SHA-256 are kept, so that two
        clones of the project write the same bytes.
    params
        The settings that the stage ran with.
    """
    values = params.model_dump(mode="json") if isinstance(params, BaseModel) else dict(params)
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "inputs": json.dumps({name: sha256(path) for name, path in sorted(inputs.items())}),
        "params": json.dumps(values, sort_keys=True),
        "versions": json.dumps(_versions(), sort_keys=True),
    }


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _temporary(path: Path) -> Path:
    """Name what this process writes before it is `path`; remove what killed ones left of theirs.

    A job whose Snakemake was killed may live on while the next one writes the same, and workflows
    that share a cache may, on other hosts: none touches what is another's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{path.name}.{platform.node()}"
    for left in path.parent.glob(f"{escape(own)}.*.tmp"):
        process = left.name.split(".")[-2]
        if process.isdecimal() and not _runs(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f"{own}.{os.getpid()}.tmp")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` on success, else remove it."""
    temporary = _temporary(path)
    try:
        yield temporary
        # Else a machine that loses its power may have the name, and not the content.
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder; on success it takes the place of `path` at once."""
    temporary = _temporary(path)
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir(parents=True)
        yield new
        with suppress(FileNotFoundError):
            path.rename(old)
        new.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def create_h5(
    path: Path, stage: str, inputs: Mapping[str, Path], params: BaseModel | Mapping[str, Any]
) -> Iterator[h5py.File]:
    """Yield a new HDF5 file with its provenance; it appears under `path` only when complete."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(provenance(stage, inputs, params))
        yield file


def sample_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """Create the data set `name`, first axis: samples, one compressed chunk per sample."""
    # Without a sample HDF5 can cut nothing up.
    chunks = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": 1}
    return file.create_dataset(name, shape, dtype, **(chunks if shape[0] else {}))


def write_strings(file: h5py.File, name: str, values: Any) -> None:
    """Write text of any shape as UTF-8."""
    file.create_dataset(name, data=np.asarray(values, dtype=object), dtype=_STRING)


def read_strings(file: h5py.File, name: str) -> NDArray[np.object_]:
    """Text of the data set `name` as an object array of `str`."""
    return np.asarray(file[name].asstr()[()], dtype=object)


@contextmanager
def open_h5(path: Path, *names: str) -> Iterator[h5py.File]:
    """Open an HDF5 file of ours that must hold the data sets `names`.

    Raises
    ------
    BadInput
        The file is absent, no HDF5, of another schema version, or lacks a data set.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadInput(
            path,
            "file",
            found=error,
            expected="a readable HDF5 file",
            mend="delete it and run snakemake again: the rule that makes it will rerun",
        ) from error
    with file:
        found = file.attrs.get("schema_version")
        if found != SCHEMA_VERSION:
            raise BadInput(
                path,
                "attribute schema_version",
                found=found,
                expected=SCHEMA_VERSION,
                mend="delete it and run snakemake again with this version of the project",
            )
        if absent := [name for name in names if name not in file]:
            raise BadInput(
                path,
                "data sets",
                found=sorted(file),
                expected=f"also {absent}",
                mend="delete it and run snakemake again: it was not written by its rule",
            )
        yield file


def check_same_samples(first: h5py.File, *others: h5py.File) -> None:
    """Stop where two files of a data set do not hold the same samples in the same order."""
    ids = first["sample_id"][()]
    for other in others:
        if not np.array_equal(ids, other["sample_id"][()]):
            raise BadInput(
                other.filename,
                "data set sample_id",
                found=f"{len(other['sample_id'])} ids, not those of {first.filename}",
                expected=f"the same {len(ids)} ids in the same order",
                mend="delete both files and run snakemake again: they are of different runs",
            )


def find_sample(file: h5py.File, sample_id: str, *, where: str, found: str) -> int:
    """Position of a sample in a file of its data set.

    Raises
    ------
    BadInput
        It is not there: at `where`, which says `found`.
    """
    positions = np.flatnonzero(read_strings(file, "sample_id") == sample_id)
    if not len(positions):
        raise BadInput(
            where,
            "data set sample_id",
            found=found,
            expected="the same samples in all files of a data set",
            mend="delete both files and run snakemake again: they are of different data",
        )
    return int(positions[0])


def check_sample_id(sample_id: str, where: Path) -> str:
    """Return `sample_id` where it may name an HDF5 group and a file, else stop.

    Ids come from users' file names: letters and digits of any script, with their accents and vowel
    signs, space and ``._-()+@`` pass.
    """
    # Letters, marks (which some scripts cannot do without) and numbers.
    known = all(c in "._-()+@ " or unicodedata.category(c)[0] in "LMN" for c in sample_id)
    if known and 1 <= len(sample_id) <= 200 and sample_id.strip(". ") == sample_id:
        return sample_id
    raise BadInput(
        where,
        "sample id",
        found=repr(sample_id),
        expected="1 to 200 letters, digits, inner spaces and dots, or any of _-()+@",
        mend="rename the image, and likewise what else has its name: mask, gaze, or a line of a "
        "split file",
    )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write `table` atomically, six significant digits, missing values empty."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_csv(file: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """Read columns of text and of numbers; only an empty number is missing.

    Raises
    ------
    BadInput
        The file is absent, no table, lacks a column, or has text in a column of numbers.
    """
    try:
        return pd.read_csv(
            file,
            usecols=[*text, *numbers],
            dtype=dict.fromkeys(text, str) | dict.fromkeys(numbers, float),
            # A sample or an experiment may be called "NA".
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
        )
    except (OSError, ValueError) as error:
        raise BadInput(
            file,
            "table",
            found=error,
            expected=f"a CSV file with the columns {', '.join((*text, *numbers))}",
            mend="delete it and run snakemake again: the rule that makes it will rerun",
        ) from error
