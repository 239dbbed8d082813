"""prepared.h5, gaze.h5 and explanations.h5 → the folder that the published code trains on."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.core import cli, io
from stages.data.dicom_writer import decimal, to_16_bit, uid, write_slice
from stages.gaze.exclusion import left_out

# Channels that the published code's fusion of text and image is built for.
PUBLISHED_WIDTH = 768
_STAGE, _PROVENANCE = "export_published", "provenance.json"
_PREPARED = (
    "image", "mask", "has_mask", "original_size", "spacing_mm", "sample_id", "subject_id", "split",
)  # fmt: skip
_GAZE = ("heatmap", "refined", "threshold", "has_gaze", "sample_id")


@dataclass(frozen=True)
class Form:
    """Where the published loader of a data set looks for the files of an id, and for what.

    Attributes
    ----------
    image, mask
        Pattern of the file; `{}` stands for the id.
    map
        Ending of the files in `gaze/heatmap` and `gaze/crf_compat1`.
    kind
        Type and channels of the images.
    """

    image: str
    mask: str
    map: str
    kind: tuple[str, int]


FORMS = {
    "kvasir": Form("images/{}.jpg", "masks/{}.jpg", ".jpg", ("uint8", 3)),
    "nci_isbi": Form("images/{}.dcm", "masks/{}.png", ".png", ("float32", 1)),
    "isic": Form("images/{}.jpg", "labels/{}_segmentation.png", ".jpg", ("uint8", 3)),
}


def to_grey(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Quantise a map in [0, 1] to `round(255 p)`; divided by 255 it is at most 1/510 off."""
    return np.rint(probability.astype(np.float32) * 255).astype(np.uint8)


def check_ids(ids: list[str], where: Path) -> None:
    """Stop where the published code would not read a split file's `ids` as they are.

    It reads the file as a table without header, columns parted by a space, and lets pandas guess
    the type: "007" becomes 7 where all ids are numbers, and "NA" is missing.

    Raises
    ------
    BadInput
        An id has a space, or is read as something else.
    """
    for sample_id in ids:
        io.check_sample_id(sample_id, where)
    broken, why = [i for i in ids if " " in i], "ids without a space, where the line would be cut"
    if ids and not broken:
        text = StringIO("".join(f"{i}\n" for i in ids))
        read = pd.read_csv(text, sep=" ", header=None)[0].tolist()
        broken = [i for i, found in zip(ids, read) if i != f"{found}"]
        why = "ids that a table reader does not take for numbers or for missing"
    if broken:
        raise cli.BadInput(
            where,
            "sample ids",
            found=f"{len(broken)} that the published code would not read as they are: "
            f"{broken[:10]}",
            expected=why,
            mend="rename these images, their masks, their recordings and their lines in the split "
            "files, and run again",
        )


def _kind(images: h5py.Dataset) -> tuple[str, int]:
    return str(images.dtype), images.shape[3]


def _choose_form(form: str | None, images: h5py.Dataset) -> Form:
    if form is None:
        return next(other for other in FORMS.values() if other.kind == _kind(images))
    if form not in FORMS:
        raise cli.BadInput(
            "command line",
            "--form",
            found=repr(form),
            expected=f"one of {', '.join(FORMS)}",
            mend="name the data set whose published loader is to read the folder",
        )
    return FORMS[form]


def _check_kind(images: h5py.Dataset, prepared: Path, form: Form) -> None:
    kind = _kind(images)
    if kind != form.kind:
        fitting = [name for name, other in FORMS.items() if other.kind == kind]
        raise cli.BadInput(
            prepared,
            "data set image",
            found=f"{kind[0]} with {kind[1]} channel(s)",
            expected=f"{form.kind[0]} with {form.kind[1]} channel(s), as this form stores them",
            mend=f"use --form {' or '.join(fitting)}",
        )


def _check_output(output: Path) -> None:
    # It is replaced as a whole: a folder of other things must not be.
    own = output / _PROVENANCE
    if output.exists() and not (own.is_file() and f'"stage": "{_STAGE}"' in own.read_text("utf-8")):
        raise cli.BadInput(
            output,
            "folder",
            found="something that this stage did not write",
            expected="nothing, or an earlier export",
            mend="name a new folder, or delete this one",
        )


def _choose_samples(
    source: h5py.File, has_gaze: NDArray[np.bool_], prepared: Path
) -> dict[str, NDArray[np.intp]]:
    """Return the indices of the samples of each split file."""
    split = io.read_strings(source, "split")
    chosen = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
    looked_at = chosen["train"][has_gaze[chosen["train"]]]
    if lacking := len(chosen["train"]) - len(looked_at):
        cli.log.warning(
            "%d of %d training samples have no gaze, or too poor, and are left out: the published "
            "code reads a map of each", lacking, len(chosen["train"]),
        )  # fmt: skip
    chosen["train"] = looked_at
    for name, wanted in (("train", "sample with gaze"), ("test", "sample")):
        if not len(chosen[name]):
            raise cli.BadInput(
                prepared,
                f"split {name!r}",
                found=f"no {wanted}",
                expected="at least one: the published code does not start without",
                mend="check the split files and where the fixations come from",
            )
    ids = io.read_strings(source, "sample_id")
    problems = cli.Problems()
    for index in chosen.values():
        with problems.collect():
            check_ids([str(i) for i in ids[index]], prepared)
    problems.stop()
    return chosen


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    # JPEG at its best, colour at full resolution; PNG, by its ending, heeds neither.
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def _save_dicom(source: h5py.File, i: int, sha256: str, path: Path) -> None:
    pixels, slope, intercept = to_16_bit(source["image"][i, ..., 0])
    study = f"{sha256}/{source['subject_id'].asstr()[i]}"
    attributes: dict[str, Any] = {
        # A subject's name may be of any length and script, a patient's in DICOM may not: a UID
        # also tells whose slice it is.
        "PatientID": uid(study),
        "PatientName": "",
        "SeriesDescription": "exported at the working size",
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    # Float32 is exact to seven digits: 0.6, not 0.60000002384.
    spacing = [float(f"{value:.7g}") for value in source["spacing_mm"][i]]
    if np.isfinite(spacing).all():
        scaled = np.array(spacing) * source["original_size"][i] / pixels.shape
        attributes["PixelSpacing"] = [decimal(value) for value in scaled]
    write_slice(path, pixels, study=study, number=i + 1, bits=16, attributes=attributes)


def _write_samples(
    root: Path, form: Form, index: NDArray[np.intp], files: Mapping[str, h5py.File], sha256: str
) -> None:
    source, gaze = files["prepared"], files["gaze"]
    ids, has_gaze = io.read_strings(source, "sample_id"), gaze["has_gaze"][()]
    for i in cli.progress(index.tolist(), "export"):
        image = root / form.image.format(ids[i])
        if image.suffix == ".dcm":
            _save_dicom(source, i, sha256, image)
        else:
            _save(source["image"][i], image)
        if source["has_mask"][i]:
            _save(source["mask"][i] * np.uint8(255), root / form.mask.format(ids[i]))
        if has_gaze[i]:
            _save(to_grey(gaze["refined"][i]), root / f"gaze/crf_compat1/{ids[i]}{form.map}")
            # Empty where the refined map was handed in: nothing is known of the heatmap then.
            if (heatmap := gaze["heatmap"][i]).any():
                _save(to_grey(heatmap), root / f"gaze/heatmap/{ids[i]}{form.map}")
        if "explanations" in files:
            np.save(root / f"embeddings/{ids[i]}.npy", files["explanations"]["embedding"][i])


def _report_gaps(files: Mapping[str, h5py.File], index: NDArray[np.intp]) -> None:
    """Say what the published code will miss in the samples at `index`."""
    if lacking := int((~files["prepared"]["has_mask"][()][index]).sum()):
        cli.log.warning(
            "%d of %d samples have no mask: the published code reads one of each, even where it "
            "trains on gaze alone", lacking, len(index),
        )  # fmt: skip
    if "explanations" not in files:
        return
    if (width := files["explanations"]["embedding"].shape[2]) != PUBLISHED_WIDTH:
        cli.log.warning(
            "the embeddings have %d channels: set the text width of the published code's fusion "
            "to that, which is %d", width, PUBLISHED_WIDTH,
        )  # fmt: skip


def _write(
    root: Path,
    form: Form,
    files: Mapping[str, h5py.File],
    chosen: Mapping[str, NDArray[np.intp]],
    made: Mapping[str, str | int],
) -> None:
    source, gaze = files["prepared"], files["gaze"]
    folders = ["images", Path(form.mask).parts[0], "gaze/heatmap", "gaze/crf_compat1"]
    for folder in folders + ["embeddings"] * ("explanations" in files):
        (root / folder).mkdir(parents=True)
    ids = io.read_strings(source, "sample_id")
    for split, members in chosen.items():
        text = "".join(f"{sample_id}\n" for sample_id in ids[members])
        (root / f"{split}.txt").write_text(text, "utf-8")
    unpacked = {name: json.loads(str(made[name])) for name in ("inputs", "params", "versions")}
    index = np.sort(np.concatenate(list(chosen.values())))
    _write_samples(root, form, index, files, unpacked["inputs"]["prepared"])
    facts = {
        **made,
        **unpacked,
        "gaze_origin": gaze.attrs["gaze_origin"],
        "threshold": [float(f"{t:.7g}") for t in gaze["threshold"]],
        "working_size": list(source["image"].shape[1:3]),
    }
    (root / _PROVENANCE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def export_published(
    prepared: Path,
    gaze: Path,
    output: Path,
    form: str | None = None,
    explanations: Path | None = None,
    quality: Path | None = None,
) -> None:
    """Write a data set as the folder that the published code of GazeMedSeg and FGI reads.

    `output` appears whole or not at all, and replaces an earlier export. In it:

    - `train.txt`, `test.txt`, `val.txt`: ids, one a line. Training is the training split without
      validation, which the published code does not know, and without the samples that nobody
      looked at, as it reads a map of each, or that `quality` leaves out. Samples in none of the
      three are not written.
    - `images/`, and `masks/` or `labels/` (0 and 255), at the working size of prepared.h5: the
      published code then also evaluates at that size. Colour is JPEG of quality 100 without
      chroma subsampling; float32 images become 16-bit DICOM slices, see `to_16_bit`, marked as
      MR, with PixelSpacing of the working size where the spacing is known and without the
      scanner's settings, which prepared.h5 does not hold. The published loader takes the stored
      values, and its z-score undoes slope and intercept. A sample without a mask gets no file.
    - `gaze/heatmap/`, `gaze/crf_compat1/`: heatmaps and refined maps of the samples with gaze,
      8-bit grey, `round(255 p)`; no heatmap where the refined map was handed in. The pseudomasks
      that PNG maps give differ from those of gaze.h5 only where a map is within 1/510 of the
      threshold; JPEG adds 1 grey level, 2 in noise.
    - `embeddings/<id>.npy`: (K, D) float32, with `explanations`.
    - `provenance.json`: what it was made from, whether the gaze is recorded or simulated, the
      thresholds for the published code's levels, and the working size.

    Parameters
    ----------
    prepared, gaze, explanations, quality
        The HDF5 files and the gaze_quality.csv of one data set.
    output
        The folder.
    form
        Whose loader is to read it: "kvasir", "nci_isbi" (float32 images of one channel) or
        "isic". By default the one of the first two that fits the images.

    Raises
    ------
    BadInput
        The form is unknown or does not fit the images; an id would be misread, as `check_ids`
        says; training or test would be empty; `output` holds something else.
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
        _check_kind(files["prepared"]["image"], prepared, chosen_form)
        excluded = left_out(quality, io.read_strings(files["gaze"], "sample_id"))
        usable = files["gaze"]["has_gaze"][()] & ~excluded
        chosen = _choose_samples(files["prepared"], usable, prepared)
        _report_gaps(files, np.concatenate(list(chosen.values())))
        made = io.provenance(_STAGE, inputs, {"form": form})
        with io.atomic_folder(output) as folder:
            _write(folder, chosen_form, files, chosen, made)


if __name__ == "__main__":
    cli.run(export_published)
