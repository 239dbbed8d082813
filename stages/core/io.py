"""Read and write files: atomic writes, provenance, HDF5 and CSV."""

import hashlib
import json
import os
import platform
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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
from stages.core.h5_target import H5Target

SCHEMA_VERSION = 1
_PACKAGES = (
    "h5py", "jinja2", "matplotlib", "medpy", "nibabel", "numpy", "open_clip_torch", "pandas",
    "pillow", "pydicom", "pylibjpeg-openjpeg", "pymovements", "pynrrd", "python-gdcm",
    "safetensors", "scikit-image", "scipy", "torch", "transformers",
)  # fmt: skip
_STRING = h5py.string_dtype("utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files below a folder.

    Hidden files in a folder are skipped.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for name, _, _ in sorted(find_files(str(path))):
            file = Path(name)
            # A file name may be invalid Unicode.
            digest.update(os.fsencode(file.relative_to(path).as_posix()))
            digest.update(f"\0{sha256(file)}\0".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        # The environment of a stage family has only the packages that it needs.
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def provenance(
    stage: str, inputs: Mapping[str, Path], params: BaseModel | Mapping[str, Any]
) -> dict[str, str | int]:
    """Describe how a file was made, as values for HDF5 attributes.

    Parameters
    ----------
    stage
        Name of the stage that writes the file.
    inputs
        Role of each input → its path. Only the role and the SHA-256 of the content are stored, so
        that two clones of the project write the same bytes.
    params
        The settings of the stage.
    """
    values = params.model_dump(mode="json") if isinstance(params, BaseModel) else dict(params)
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "inputs": json.dumps({name: sha256(path) for name, path in sorted(inputs.items())}),
        "params": json.dumps(values, sort_keys=True),
        "versions": json.dumps(_versions(), sort_keys=True),
    }


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _temporary_path(path: Path) -> Path:
    """Return this process's temporary folder beside `path`; delete those of ended processes.

    Several processes may write the same file at once: a job that survives its killed Snakemake, or
    workflows on other hosts that share a cache. So only leftovers of ended processes on this host
    are deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{platform.node()}"
    for leftover in path.parent.glob(f"{escape(prefix)}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not _is_running(int(pid)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
    return path.with_name(f"{prefix}.{os.getpid()}.tmp")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path near `path`; rename it to `path` on success, else delete it.

    Raises
    ------
    OSError
        The system refused to write; the error names `path`.
    """
    folder = _temporary_path(path)
    # In a folder of its own: safetensors writes one more temporary file beside it.
    temporary = folder / path.name
    try:
        folder.mkdir(exist_ok=True)
        yield temporary
        # Without fsync a power failure could leave the new name with incomplete content.
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        # Most errors of a write name no file, and nobody knows the temporary one.
        if error.errno is not None and str(error.filename or folder).startswith(str(folder)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder; on success it replaces `path` in one step."""
    temporary = _temporary_path(path)
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir(parents=True)
        yield new
        with suppress(FileNotFoundError):
            path.rename(old)
        new.rename(path)
    finally:
        # What was there stays if the new folder could not take its place.
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def create_h5(
    path: Path, stage: str, inputs: Mapping[str, Path], params: BaseModel | Mapping[str, Any]
) -> Iterator[h5py.File]:
    """Yield a new HDF5 file with its provenance; it appears at `path` only when complete."""
    with atomic_file(path) as temporary, H5Target(temporary) as target:
        with h5py.File(target, "w") as file:
            file.attrs.update(provenance(stage, inputs, params))
            yield file
        target.raise_error()


def create_sample_dataset(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any
) -> h5py.Dataset:
    """Create the data set `name` with samples along the first axis, one compressed chunk each."""
    # HDF5 cannot chunk a data set without samples.
    chunks = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": 1}
    return file.create_dataset(name, shape, dtype, **(chunks if shape[0] else {}))


def write_strings(file: h5py.File, name: str, values: Any) -> None:
    """Write an array of strings, of any shape, as UTF-8."""
    file.create_dataset(name, data=np.asarray(values, dtype=object), dtype=_STRING)


def read_strings(file: h5py.File, name: str) -> NDArray[np.object_]:
    """Return the data set `name` as an object array of `str`."""
    return np.asarray(file[name].asstr()[()], dtype=object)


# h5py's messages: "Unable to synchronously open object", "Can't synchronously read data".
_HDF5_ERROR = re.compile(r"(Unable to|Can't) synchronously")


@contextmanager
def open_h5(path: Path, *names: str) -> Iterator[h5py.File]:
    """Open an HDF5 file of this pipeline for reading; check that it has the data sets `names`.

    Raises
    ------
    BadInput
        The file is missing, is not HDF5, has another schema version, or a data set is missing.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r"))
            version_found, found_names = file.attrs.get("schema_version"), sorted(file)
        except (OSError, LookupError, RuntimeError, ValueError, TypeError) as error:
            raise BadInput(
                path,
                "file",
                found=error,
                expected="a readable HDF5 file",
                mend="delete it and run snakemake again: its rule will make it again",
            ) from error
        if version_found != SCHEMA_VERSION:
            raise BadInput(
                path,
                "attribute schema_version",
                found=version_found,
                expected=SCHEMA_VERSION,
                mend="delete it and run snakemake again with this version of the project",
            )
        if missing := [name for name in names if name not in found_names]:
            raise BadInput(
                path,
                "data sets",
                found=found_names,
                expected=f"also {missing}",
                mend="delete it and run snakemake again: its rule did not write this file",
            )
        try:
            yield file
        except (OSError, LookupError, RuntimeError, ValueError) as error:
            # An error of HDF5 does not tell in which of the open files.
            damaged = _find_damaged_dataset(file) if _HDF5_ERROR.search(str(error)) else ""
            if not damaged:
                raise
            raise BadInput(
                path,
                f"data set {damaged}",
                found=error,
                expected="the content that was written",
                mend="delete it and run snakemake again: its rule will make it again",
            ) from error


def _read_all(item: h5py.Dataset | h5py.Group) -> None:
    """Read a data set, row by row: a whole one may not fit into memory. Or all of a group."""
    if isinstance(item, h5py.Group):
        for member in item:
            _read_all(item[member])
    else:
        for row in range(len(item)) if item.shape else [()]:
            item[row]


def _find_damaged_dataset(file: h5py.File) -> str:
    """Return the name of a data set or group that cannot be read; empty if there is none."""
    for name in map(str, sorted(file)):
        try:
            _read_all(file[name])
        except (OSError, LookupError, RuntimeError, ValueError):
            return name
    return ""


def check_same_samples(first: h5py.File, *others: h5py.File) -> None:
    """Raise `BadInput` unless all files hold the same samples in the same order."""
    ids = first["sample_id"][()]
    for other in others:
        if not np.array_equal(ids, other["sample_id"][()]):
            raise BadInput(
                other.filename,
                "data set sample_id",
                found=f"{len(other['sample_id'])} ids, not those of {first.filename}",
                expected=f"the same {len(ids)} ids in the same order",
                mend="delete both files and run snakemake again: they come from different runs",
            )


def find_sample_index(file: h5py.File, sample_id: str, *, where: str, found: str) -> int:
    """Return the index of a sample in a file of its data set.

    Raises
    ------
    BadInput
        The sample is missing; the message starts with `where` and shows `found`.
    """
    positions = np.flatnonzero(read_strings(file, "sample_id") == sample_id)
    if not len(positions):
        raise BadInput(
            where,
            "data set sample_id",
            found=found,
            expected="the same samples in all files of a data set",
            mend="delete both files and run snakemake again: they come from different data",
        )
    return int(positions[0])


def check_sample_id(sample_id: str, where: Path) -> str:
    """Return `sample_id` if it can name an HDF5 group and a file, else raise `BadInput`.

    Ids come from users' file names. Allowed are letters and digits of any script, with their
    accents and vowel signs, spaces and ``._-()+@``.
    """
    # Unicode categories: letters, marks (some scripts need them) and numbers.
    allowed = all(c in "._-()+@ " or unicodedata.category(c)[0] in "LMN" for c in sample_id)
    if allowed and 1 <= len(sample_id) <= 200 and sample_id.strip(". ") == sample_id:
        return sample_id
    raise BadInput(
        where,
        "sample id",
        found=repr(sample_id),
        expected="1 to 200 letters, digits, inner spaces and dots, or any of _-()+@",
        mend="rename the image, and use the new name for its mask, its gaze and its line in a "
        "split file",
    )


def check_text(text: str, where: Path, field: str, mend: str) -> str:
    """Return `text` if UTF-8 and HDF5 can hold it, else raise `BadInput`.

    They cannot hold a NUL character, nor half of a surrogate pair, which JSON can state.
    """
    if not any(c == "\0" or unicodedata.category(c) == "Cs" for c in text):
        return text
    raise BadInput(
        where,
        field,
        found=repr(text),
        expected="text without NUL characters and halves of surrogate pairs",
        mend=mend,
    )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write `table` atomically, six significant digits, missing values empty."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_csv(file: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """Read columns of text and of numbers; only an empty number counts as missing.

    Raises
    ------
    BadInput
        The file is missing or is not a table, a column is missing, or a number column has text.
    """
    try:
        with warnings.catch_warnings():
            # Without these, pandas would take the values of a longer line for other columns.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                file,
                dtype=dict.fromkeys(text, str) | dict.fromkeys(numbers, float),
                # A sample or an experiment may have the name "NA".
                keep_default_na=False,
                na_values={name: [""] for name in numbers},
                index_col=False,
            )
        return table[[*text, *numbers]]
    except (OSError, ValueError, KeyError, pd.errors.ParserWarning) as error:
        raise BadInput(
            file,
            "table",
            found=error,
            expected=f"a CSV file with the columns {', '.join((*text, *numbers))}",
            mend="delete it and run snakemake again: its rule will make it again",
        ) from error
