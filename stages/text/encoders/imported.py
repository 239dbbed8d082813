"""Vectors that were made elsewhere: a folder of <id>.npy, as the authors publish them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import cli
from stages.data.datasets.listing import as_id

# How many sample ids a message shows.
_SHOWN = 5


def read_array(file: Path) -> NDArray[np.float32]:
    """Read the vectors of one sample.

    Parameters
    ----------
    file
        A NumPy array file, float32, of shape (K, D), or (D,), which is one vector.

    Returns
    -------
    (K, D) float32, bit for bit what the file holds.

    Raises
    ------
    BadInput
        It is no such file, or a number in it is not finite.
    """
    expected = "a float32 array of shape (K, D) or (D,)"
    mend = "write it again with numpy.save(file, vectors.astype(numpy.float32))"
    try:
        # Not numpy.load, which also opens archives.
        with file.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise cli.BadInput(file, "file", found=error, expected=expected, mend=mend) from error
    if array.dtype != np.float32:
        raise cli.BadInput(file, "dtype", found=array.dtype, expected="float32", mend=mend)
    if array.ndim not in (1, 2) or not array.size:
        raise cli.BadInput(file, "shape", found=array.shape, expected=expected, mend=mend)
    if not_finite := int((~np.isfinite(array)).sum()):
        raise cli.BadInput(
            file,
            "values",
            found=f"{not_finite} of {array.size} are NaN or infinite",
            expected="finite numbers",
            mend="make the sample's vectors again; a text that is too long or empty may be why",
        )
    return array.reshape(-1, array.shape[-1])


def _check_shapes(
    files: Mapping[str, Path], arrays: Mapping[str, NDArray[np.float32]], problems: cli.Problems
) -> None:
    """Take note of the arrays whose shape is not that of most."""
    ((wanted, _),) = Counter(array.shape for array in arrays.values()).most_common(1)
    like = next(files[name] for name, array in arrays.items() if array.shape == wanted)
    for name, array in arrays.items():
        if array.shape != wanted:
            problems.append(
                cli.BadInput(
                    files[name],
                    "shape",
                    found=f"{array.shape} (vectors, their length)",
                    expected=f"{wanted}, as in {like.name}: one shape in all files",
                    mend="make all vectors with one encoder, and as many for each sample",
                )
            )


def read_vectors(
    source: Path, sample_ids: NDArray[np.object_], explained: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Read the vectors of all samples.

    Parameters
    ----------
    source
        Folder with <id>.npy for each sample that is explained; others may lack theirs.
    sample_ids
        (N,) str.
    explained
        (N,) bool: the sample has a text, and so needs vectors.

    Returns
    -------
    (N, K, D) float32, zeros for a sample without a file.

    Raises
    ------
    BadInput
        What is wrong, of all files: one is absent, cannot be used, or has another shape.
    """
    files = {as_id(file.stem): file for file in source.glob("*.npy")}
    present = {name: files[name] for name in sample_ids if name in files}
    lacking = [
        name for name, needed in zip(sample_ids, explained) if needed and name not in present
    ]
    problems = cli.Problems()
    if lacking or not present:
        named = cli.name_some([f"{name}.npy" for name in lacking], _SHOWN)
        problems.append(
            cli.BadInput(
                source,
                "files",
                found=f"no {named}" if lacking else "no <id>.npy of any sample",
                expected=f"<id>.npy for each of the {int(explained.sum())} samples with a text",
                mend="state the folder of the vectors as embed.source, name the files like the "
                "images, without their ending, or leave the samples out of the split files",
            )
        )
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, file in cli.progress(present.items(), "embed"):
        with problems.collect():
            arrays[name] = read_array(file)
    if arrays:
        _check_shapes(present, arrays, problems)
    problems.stop()
    cli.log.info("%d of %d samples have vectors", len(arrays), len(sample_ids))
    none = np.zeros_like(next(iter(arrays.values())))
    return np.stack([arrays.get(name, none) for name in sample_ids])
