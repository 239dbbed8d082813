"""Vectors from another program: a folder of <id>.npy, the form that the authors publish."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import cli
from stages.data.datasets.listing import files_by_id

# How many file names an error message shows.
_MAX_EXAMPLES = 5


def read_array(file: Path) -> NDArray[np.float32]:
    """Read the vectors of one sample.

    Parameters
    ----------
    file
        A NumPy array file: float32, of shape (K, D), or (D,) for one vector.

    Returns
    -------
    (K, D) float32, bit for bit what the file holds.

    Raises
    ------
    BadInput
        The file is not of this kind, or a number in it is not finite.
    """
    expected = "a float32 array of shape (K, D) or (D,)"
    mend = "write it again with numpy.save(file, vectors.astype(numpy.float32))"
    try:
        # numpy.load would also open archives.
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
            mend="compute the sample's vectors again; its text may be too long or empty",
        )
    return array.reshape(-1, array.shape[-1])


def _check_shapes(
    files: Mapping[str, Path], shapes: Mapping[str, tuple[int, int]], problems: cli.Problems
) -> tuple[int, int]:
    """Return the most common shape; add a problem for each array with another one."""
    ((expected_shape, _),) = Counter(shapes.values()).most_common(1)
    example = next(files[name] for name, shape in shapes.items() if shape == expected_shape)
    for name, shape in shapes.items():
        if shape != expected_shape:
            problems.append(
                cli.BadInput(
                    files[name],
                    "shape",
                    found=f"{shape} (number of vectors, their length)",
                    expected=f"{expected_shape}, as in {example.name}: all files need one shape",
                    mend="make all vectors with one encoder, and the same number for each sample",
                )
            )
    return expected_shape


def read_vectors(
    source: Path, sample_ids: NDArray[np.object_], explained: NDArray[np.bool_]
) -> tuple[tuple[int, int], Iterator[NDArray[np.float32]]]:
    """Check the vectors of all samples, and read them again one by one: memory may not hold all.

    Parameters
    ----------
    source
        Folder with <id>.npy for each explained sample; for other samples the file is optional.
    sample_ids
        (N,) str.
    explained
        (N,) bool: the sample has a text and needs vectors.

    Returns
    -------
    The shape (K, D) of each sample's vectors, and the vectors of each of the N samples in turn,
    float32; zeros for a sample without a file.

    Raises
    ------
    BadInput
        A file is missing, cannot be used, has another shape or the id of another file. The message
        lists all problems.
    """
    problems = cli.Problems()
    files = files_by_id(sorted(source.glob("*.npy")), lambda file: file.stem, problems)
    present = {name: files[name] for name in sample_ids if name in files}
    missing = [
        name for name, needed in zip(sample_ids, explained) if needed and name not in present
    ]
    if missing or not present:
        missing_files = cli.list_names([f"{name}.npy" for name in missing], _MAX_EXAMPLES)
        problems.append(
            cli.BadInput(
                source,
                "files",
                found=f"no {missing_files}" if missing else "no <id>.npy for any sample",
                expected=f"<id>.npy for each of the {int(explained.sum())} samples with a text",
                mend="set embed.source to the folder of the vectors, name the files like the "
                "images without their extension, or remove the samples from the split files",
            )
        )
    shapes: dict[str, tuple[int, int]] = {}
    for name, file in cli.progress(present.items(), "embed"):
        with problems.collect():
            tokens, width = read_array(file).shape
            shapes[name] = tokens, width
    shape = _check_shapes(present, shapes, problems) if shapes else (0, 0)
    problems.raise_all()
    cli.log.info("%d of %d samples have vectors", len(shapes), len(sample_ids))
    zeros = np.zeros(shape, np.float32)
    return shape, (read_array(present[name]) if name in present else zeros for name in sample_ids)
