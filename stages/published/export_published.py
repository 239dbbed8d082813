"""prepared.h5, gaze.h5 and explanations.h5 → the folder that the published code trains on."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.core import cli, io
from stages.data.dicom_writer import make_uid, to_16_bit, to_decimal_string, write_slice
from stages.gaze.exclusion import excluded_samples

# Channels of the embeddings that the published fusion of text and image expects.
PUBLISHED_WIDTH = 768
_STAGE, _PROVENANCE = "export_published", "provenance.json"
_PREPARED = (
    "image", "mask", "has_mask", "original_size", "spacing_mm", "sample_id", "subject_id", "split",
)  # fmt: skip
_GAZE = ("heatmap", "refined", "threshold", "has_gaze", "sample_id")


@dataclass(frozen=True)
class Form:
    """File names and image type that the published loader of a data set expects.

    Attributes
    ----------
    image_pattern, mask_pattern
        Path in the export; `{}` stands for the id.
    map_ending
        Ending of the files in `gaze/heatmap` and `gaze/crf_compat1`.
    image_kind
        Dtype and number of channels of the images.
    """

    image_pattern: str
    mask_pattern: str
    map_ending: str
    image_kind: tuple[str, int]


FORMS = {
    "kvasir": Form("images/{}.jpg", "masks/{}.jpg", ".jpg", ("uint8", 3)),
    "nci_isbi": Form("images/{}.dcm", "masks/{}.png", ".png", ("float32", 1)),
    "isic": Form("images/{}.jpg", "labels/{}_segmentation.png", ".jpg", ("uint8", 3)),
}


def to_grey_levels(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Quantise a map in [0, 1] to `round(255 p)`, with an error of at most 1/510."""
    return np.rint(probability.astype(np.float32) * 255).astype(np.uint8)


def check_readable_ids(ids: list[str], where: Path) -> None:
    """Check that the published code reads the `ids` of a split file without changing them.

    It reads the file as a table without header, with columns separated by a space, and lets pandas
    guess the type: "007" becomes 7 if all ids are numbers, and "NA" becomes a missing value.

    Raises
    ------
    BadInput
        An id has a space, or pandas reads another value.
    """
    for sample_id in ids:
        io.check_sample_id(sample_id, where)
    misread, expected = (
        [i for i in ids if " " in i],
        "ids without a space, which separates columns",
    )
    if ids and not misread:
        text = StringIO("".join(f"{i}\n" for i in ids))
        read = pd.read_csv(text, sep=" ", header=None)[0].tolist()
        misread = [i for i, found in zip(ids, read) if i != f"{found}"]
        expected = "ids that pandas does not read as numbers or missing values"
    if misread:
        raise cli.BadInput(
            where,
            "sample ids",
            found=f"{len(misread)} that the published code would read as other ids: {misread[:10]}",
            expected=expected,
            mend="rename these images, their masks, their recordings and their lines in the split "
            "files, and run the command again",
        )


def _image_kind(images: h5py.Dataset) -> tuple[str, int]:
    return str(images.dtype), images.shape[3]


def _choose_form(form: str | None, images: h5py.Dataset) -> Form:
    if form is None:
        return next(other for other in FORMS.values() if other.image_kind == _image_kind(images))
    if form not in FORMS:
        raise cli.BadInput(
            "command line",
            "--form",
            found=repr(form),
            expected=f"one of {', '.join(FORMS)}",
            mend="name the data set whose published loader will read the folder",
        )
    return FORMS[form]


def _check_image_kind(images: h5py.Dataset, prepared: Path, form: Form) -> None:
    kind = _image_kind(images)
    if kind != form.image_kind:
        fitting = [name for name, other in FORMS.items() if other.image_kind == kind]
        raise cli.BadInput(
            prepared,
            "data set image",
            found=f"{kind[0]} with {kind[1]} channel(s)",
            expected=f"{form.image_kind[0]} with {form.image_kind[1]} channel(s), for this --form",
            mend=f"use --form {' or '.join(fitting)}",
        )


def _check_output(output: Path) -> None:
    # The export replaces the whole folder, so the folder must not hold other files.
    own = output / _PROVENANCE
    if output.exists() and not (own.is_file() and f'"stage": "{_STAGE}"' in own.read_text("utf-8")):
        raise cli.BadInput(
            output,
            "folder",
            found="files that this stage did not write",
            expected="no folder, or an earlier export",
            mend="name another folder, or delete this one",
        )


def _choose_samples(
    source: h5py.File, has_gaze: NDArray[np.bool_], prepared: Path
) -> dict[str, NDArray[np.intp]]:
    """Return the indices of the samples of each split file."""
    split = io.read_strings(source, "split")
    chosen = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
    with_gaze = chosen["train"][has_gaze[chosen["train"]]]
    if missing := len(chosen["train"]) - len(with_gaze):
        cli.log.warning(
            "%d of %d training samples have no gaze or poor gaze, and are excluded: the published "
            "code reads a map of each sample", missing, len(chosen["train"]),
        )  # fmt: skip
    chosen["train"] = with_gaze
    for name, needed in (("train", "sample with gaze"), ("test", "sample")):
        if not len(chosen[name]):
            raise cli.BadInput(
                prepared,
                f"split {name!r}",
                found=f"no {needed}",
                expected="at least one, as the published code does not start without it",
                mend="check the split files and the source of the fixations",
            )
    ids = io.read_strings(source, "sample_id")
    problems = cli.Problems()
    for index in chosen.values():
        with problems.collect():
            check_readable_ids([str(i) for i in ids[index]], prepared)
    problems.raise_all()
    return chosen


def _save_image(pixels: NDArray[np.uint8], path: Path) -> None:
    # For JPEG: best quality, and colour at full resolution. PNG ignores both.
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def _save_dicom(source: h5py.File, i: int, sha256: str, path: Path) -> None:
    pixels, slope, intercept = to_16_bit(source["image"][i, ..., 0])
    study = f"{sha256}/{source['subject_id'].asstr()[i]}"
    attributes: dict[str, Any] = {
        # DICOM limits length and characters of a patient's name, but a subject may have any name.
        # A UID identifies the subject as well.
        "PatientID": make_uid(study),
        "PatientName": "",
        "SeriesDescription": "exported at the working size",
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    # Seven digits, the precision of float32: 0.6, not 0.60000002384.
    spacing = [float(f"{value:.7g}") for value in source["spacing_mm"][i]]
    if np.isfinite(spacing).all():
        scaled = np.array(spacing) * source["original_size"][i] / pixels.shape
        attributes["PixelSpacing"] = [to_decimal_string(value) for value in scaled]
    write_slice(path, pixels, study=study, number=i + 1, bits=16, attributes=attributes)


def _write_samples(
    root: Path, form: Form, index: NDArray[np.intp], files: Mapping[str, h5py.File], sha256: str
) -> None:
    source, gaze = files["prepared"], files["gaze"]
    ids, has_gaze = io.read_strings(source, "sample_id"), gaze["has_gaze"][()]
    for i in cli.progress(index.tolist(), "export"):
        image = root / form.image_pattern.format(ids[i])
        if image.suffix == ".dcm":
            _save_dicom(source, i, sha256, image)
        else:
            _save_image(source["image"][i], image)
        if source["has_mask"][i]:
            _save_image(source["mask"][i] * np.uint8(255), root / form.mask_pattern.format(ids[i]))
        if has_gaze[i]:
            _save_image(
                to_grey_levels(gaze["refined"][i]),
                root / f"gaze/crf_compat1/{ids[i]}{form.map_ending}",
            )
            # If the user supplied refined maps, there is no heatmap, and the file has zeros.
            if (heatmap := gaze["heatmap"][i]).any():
                _save_image(
                    to_grey_levels(heatmap), root / f"gaze/heatmap/{ids[i]}{form.map_ending}"
                )
        if "explanations" in files:
            vectors = BytesIO()
            np.save(vectors, files["explanations"]["embedding"][i])
            # Into a file, NumPy itself would not say why a write fails.
            (root / f"embeddings/{ids[i]}.npy").write_bytes(vectors.getvalue())


def _warn_of_missing(files: Mapping[str, h5py.File], index: NDArray[np.intp]) -> None:
    """Warn of masks or text channels that the published code needs for the samples at `index`."""
    if missing := int((~files["prepared"]["has_mask"][()][index]).sum()):
        cli.log.warning(
            "%d of %d samples have no mask: the published code reads the mask of each sample, even "
            "if it trains only on gaze", missing, len(index),
        )  # fmt: skip
    if "explanations" not in files:
        return
    if (width := files["explanations"]["embedding"].shape[2]) != PUBLISHED_WIDTH:
        cli.log.warning(
            "the embeddings have %d channels, and the fusion of the published code expects %d: "
            "change its text width", width, PUBLISHED_WIDTH,
        )  # fmt: skip


def _write_export(
    root: Path,
    form: Form,
    files: Mapping[str, h5py.File],
    chosen: Mapping[str, NDArray[np.intp]],
    stage_provenance: Mapping[str, str | int],
) -> None:
    source, gaze = files["prepared"], files["gaze"]
    folders = ["images", Path(form.mask_pattern).parts[0], "gaze/heatmap", "gaze/crf_compat1"]
    for folder in folders + ["embeddings"] * ("explanations" in files):
        (root / folder).mkdir(parents=True)
    ids = io.read_strings(source, "sample_id")
    for split, members in chosen.items():
        text = "".join(f"{sample_id}\n" for sample_id in ids[members])
        (root / f"{split}.txt").write_text(text, "utf-8")
    unpacked = {
        name: json.loads(str(stage_provenance[name])) for name in ("inputs", "params", "versions")
    }
    index = np.sort(np.concatenate(list(chosen.values())))
    _write_samples(root, form, index, files, unpacked["inputs"]["prepared"])
    provenance = {
        **stage_provenance,
        **unpacked,
        "gaze_origin": gaze.attrs["gaze_origin"],
        "threshold": [float(f"{t:.7g}") for t in gaze["threshold"]],
        "working_size": list(source["image"].shape[1:3]),
    }
    (root / _PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", "utf-8")


def export_published(
    prepared: Path,
    gaze: Path,
    output: Path,
    form: str | None = None,
    explanations: Path | None = None,
    quality: Path | None = None,
) -> None:
    """Write a data set as the folder that the published code of GazeMedSeg and FGI reads.

    A successful run replaces an earlier export; after a failure `output` is unchanged. It holds:

    - `train.txt`, `test.txt`, `val.txt`: ids, one per line. The training ids are those of the
      training split without validation, which the published code does not know; without samples
      that have no gaze, as it reads a map of each sample; and without those that `quality`
      excludes. Samples that are in no file are not exported.
    - `images/`, and `masks/` or `labels/` (0 and 255), at the working size of prepared.h5, at
      which the published code then also evaluates. Colour images are JPEG of quality 100 without
      chroma subsampling. Float32 images are 16-bit DICOM slices (see `to_16_bit`), marked as MR,
      with the PixelSpacing of the working size if the spacing is known, and without the settings
      of the scanner, which prepared.h5 does not hold. The published loader reads the stored
      values; its z-score cancels slope and intercept. A sample without a mask has no mask file.
    - `gaze/heatmap/`, `gaze/crf_compat1/`: heatmaps and refined maps of the samples with gaze, as
      8-bit grey, `round(255 p)`; no heatmap if the user supplied the refined map. The pseudomasks
      of PNG maps differ from those of gaze.h5 only where a map is within 1/510 of the threshold;
      JPEG adds an error of 1 grey level, 2 in noise.
    - `embeddings/<id>.npy`: (K, D) float32, if `explanations` is given.
    - `provenance.json`: the inputs, whether the gaze is recorded or simulated, the thresholds for
      the levels of the published code, and the working size.

    Parameters
    ----------
    prepared, gaze, explanations, quality
        The HDF5 files and the gaze_quality.csv of one data set.
    output
        The folder of the export.
    form
        Data set whose published loader will read the folder: "kvasir", "nci_isbi" (float32 images
        of one channel) or "isic". By default "kvasir" or "nci_isbi", as the images need it.

    Raises
    ------
    BadInput
        The form is unknown or does not fit the images; `check_readable_ids` rejects an id; training
        or test would be empty; or `output` holds other files.
    """
    _check_output(output)
    with ExitStack() as stack:
        files = {
            "prepared": stack.enter_context(io.open_h5(prepared, *_PREPARED)),
            "gaze": stack.enter_context(io.open_h5(gaze, *_GAZE)),
        }
        inputs = {"prepared": prepared, "gaze": gaze}
        if explanations is not None:
            names = ("embedding", "sample_id")
            files["explanations"] = stack.enter_context(io.open_h5(explanations, *names))
            inputs["explanations"] = explanations
        inputs |= {"quality": quality} if quality else {}
        io.check_same_samples(*files.values())
        chosen_form = _choose_form(form, files["prepared"]["image"])
        _check_image_kind(files["prepared"]["image"], prepared, chosen_form)
        excluded = excluded_samples(quality, io.read_strings(files["gaze"], "sample_id"))
        usable = files["gaze"]["has_gaze"][()] & ~excluded
        chosen = _choose_samples(files["prepared"], usable, prepared)
        _warn_of_missing(files, np.concatenate(list(chosen.values())))
        stage_provenance = io.provenance(_STAGE, inputs, {"form": form})
        with io.atomic_folder(output) as folder:
            _write_export(folder, chosen_form, files, chosen, stage_provenance)


if __name__ == "__main__":
    cli.run(export_published)
