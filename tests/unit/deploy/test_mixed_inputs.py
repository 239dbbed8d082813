"""One folder with inputs of all kinds: each mask has the geometry and the pixels of its input.

What is expected is worked out here, from files read by Pillow, nibabel and pydicom and turned by
nibabel; of the project only the network and its normalisation are used.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from conftest import write_dicom
from nibabel.eulerangles import euler2mat
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from PIL import Image
from pydicom.uid import RLELossless
from scipy.ndimage import gaussian_filter
from test_segment import SIZE, make_student

from stages.core.cli import Problems
from stages.data.datasets import Record, dicom
from stages.data.datasets.segmentations import matching
from stages.data.dicom_writer import make_uid
from stages.deploy import main
from stages.networks import models
from stages.training.samples import normalise

# Columns of a slice run from the patient's right to left, rows from front to back, slices from
# feet to head.
RADIOLOGICAL = axcodes2ornt("LPS")
CORNER = np.array([-41.25, 17.5, -203.0])
# The direction of a row, then of a column.
PLANES = {
    "axial": ([1, 0, 0], [0, 1, 0]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "oblique": ([0.8, 0.6, 0], [-0.48, 0.64, 0.6]),
    "head first": ([-1, 0, 0], [0, 1, 0]),
}


def draw(shape: Sequence[int], seed: int) -> np.ndarray:
    """Return blobs in noise, float64 from 0 to 1."""
    noise = np.random.default_rng(seed).normal(size=shape)
    blobs = gaussian_filter(noise, 3) * 12 + 0.3 * noise
    return (blobs - blobs.min()) / np.ptp(blobs)


# The pictures.


def whole(values: np.ndarray, largest: int, dtype: type) -> np.ndarray:
    return np.rint(values * largest).astype(dtype)


def colours(seed: int) -> np.ndarray:
    return whole(np.stack([draw((37, 51), seed + i) for i in range(3)], axis=-1), 255, np.uint8)


def write_deep_pictures(root: Path) -> list[Path]:
    """Write pictures of one channel with more than 8 bits."""
    (root / "deep").mkdir(parents=True)
    pictures = {
        "deep/frame 1.png": whole(draw((40, 30), 1), 65535, np.uint16),
        'deep/Zoë\'s "best" frame.PNG': whole(draw((32, 48), 2), 4095, np.uint16),
        "deep/$(echo a); b.tif": whole(draw((21, 90), 3), 65535, np.uint16),
        "deep/signed.tiff": whole(draw((33, 47), 4), 2**20, np.int32) - 1000,
        "deep/floats.tiff": draw((64, 64), 5).astype(np.float32),
        "v1.2.png": whole(draw((35, 35), 6), 500, np.uint16),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(root / name)
    return [root / name for name in pictures]


def write_colour_pictures(root: Path) -> list[Path]:
    """Write pictures of three channels, and grey ones of 8 bits."""
    folder = root / "endoscopy/of a day"
    folder.mkdir(parents=True)
    rgb, grey = Image.fromarray(colours(20)), Image.fromarray(colours(21)[..., 0])
    pictures = {
        "rgb.png": rgb,
        "grey.png": grey,
        "palette.png": rgb.quantize(64),
        "bits.png": grey.convert("1"),
        "opaque.png": rgb.convert("RGBA"),
        "grey opaque.png": grey.convert("LA"),
        "rgb.JPG": Image.fromarray(colours(22)),
        "grey.jpeg": Image.fromarray(colours(23)[..., 1]),
        "cmyk.jpg": Image.fromarray(colours(24)).convert("CMYK"),
        "tiff.tif": Image.fromarray(colours(25)),
        "it's.bmp": Image.fromarray(colours(26)),
    }
    for i, (name, picture) in enumerate(pictures.items()):
        # Two pictures of one stem would have one mask.
        picture.save(folder / f"{i} {name}")
    return [folder / f"{i} {name}" for i, name in enumerate(pictures)]


# The volumes.


def turned(codes: str, sizes: Sequence[float] = (0.75, 1.5, 3.0)) -> np.ndarray:
    """Return an affine whose axes run to these directions, such as RAS, with these sizes."""
    affine = inv_ornt_aff(axcodes2ornt(codes), (19, 22, 7)) @ np.diag([*sizes, 1])
    affine[:3, 3] = CORNER
    return affine


SHEARED = np.array([[0.9, 0.2, 0, 3], [0, 0.8, 0.4, -7], [0.1, 0, 2.5, 11], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.7, 0.1, 0.2, 3], [-0.1, 0.5, 0.3, 4], [0, -0.2, -4, 5], [0, 0, 0, 1]])
# Axes at right angles, as a quaternion needs them.
TILTED = nibabel.affines.from_matvec(euler2mat(z=0.2, y=-0.3, x=0.4)) @ turned("RAS")


def nifti(
    affine: np.ndarray,
    shape: Sequence[int] = (19, 22, 7),
    dtype: str = "<i2",
    change: Callable = lambda image: None,
    version: type = nibabel.Nifti1Image,
    largest: int = 900,
):
    """Make a volume; `change` gets it before it is written."""
    voxels = draw(shape, sum(shape) + int(abs(affine).sum())) * largest
    image = version(voxels.astype(dtype), affine)
    image.set_data_dtype(dtype)
    change(image)
    return image


def only(form: str, code: int) -> Callable:
    """Return a change that leaves the position in the sform or in the qform alone."""

    def change(image) -> None:
        affine = image.affine
        image.set_sform(affine if form == "sform" else None, code if form == "sform" else 0)
        image.set_qform(affine if form == "qform" else None, code if form == "qform" else 0)

    return change


def another_qform(image) -> None:
    image.set_sform(image.affine, 4)
    image.set_qform(turned("LPS"), 1)


def units(name: str) -> Callable:
    return lambda image: image.header.set_xyzt_units(name)


def write_volumes(root: Path) -> list[Path]:
    """Write volumes of all orientations and kinds of header."""
    folder = root / "volumes"
    codes = ("RAS", "LPS", "LAS", "RPI", "PIR", "AIL", "SRA", "ILP", "SPL", "PSR", "IAR", "ASL")
    volumes = {f"{code}.nii{'.gz' * (i % 2)}": nifti(turned(code)) for i, code in enumerate(codes)}
    two = nibabel.Nifti2Image
    volumes |= {
        "sheared.nii.gz": nifti(SHEARED),
        "oblique.nii": nifti(OBLIQUE),
        "oblique of version 2.nii.gz": nifti(OBLIQUE, version=two),
        "tilted by its sform alone.nii.gz": nifti(TILTED, change=only("sform", 2)),
        "tilted by its qform alone.nii": nifti(TILTED, change=only("qform", 1)),
        "mirrored by its qform alone.nii": nifti(turned("LPI"), change=only("qform", 3)),
        "qform alone, version 2.nii": nifti(TILTED, change=only("qform", 1), version=two),
        "two positions.nii.gz": nifti(TILTED, change=another_qform),
        "flat.nii.gz": nifti(turned("LPS"), (25, 31)),
        "one slice.nii": nifti(turned("RAS"), (25, 31, 1)),
        "one slice first.nii": nifti(turned("SPL"), (1, 25, 31)),
        "one time.nii.gz": nifti(turned("RAS"), (19, 22, 5, 1)),
        "micron.nii": nifti(turned("LAS", (75.0, 150.0, 900.0)), change=units("micron")),
        "thin.nii.gz": nifti(turned("RAS", (0.05, 0.05, 12.0))),
        "slope.nii": nifti(
            turned("LPS"), change=lambda image: image.header.set_slope_inter(2.5, -1024)
        ),
        "big-endian.nii": nifti(turned("RAS"), dtype=">i2"),
        "bytes.nii.gz": nifti(turned("RAS"), dtype="u1", largest=255),
        "floats.nii": nifti(turned("PIR"), dtype="<f4", largest=1),
        "doubles.NII.GZ": nifti(turned("RAS"), dtype="<f8", largest=1),
        'deep/er/Ada\'s "scan" v1.2.nii.gz': nifti(turned("LPS")),
    }
    for name, image in volumes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.to_filename(folder / name)
    return [folder / name for name in volumes]


# The DICOM images.


def write_one(
    path: Path, seed: int, plane: str = "axial", place: float = 0.0, series: str = "", **tags
) -> Path:
    """Write an image of a series, `place` mm along its normal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    right, down = (np.array(axis, float) for axis in PLANES[plane])
    name = series or path.as_posix()
    stored = whole(draw(tags.pop("shape", (27, 38)), seed), tags.pop("largest", 4000), np.uint16)
    defaults = {
        "PatientID": "P-17", "PatientName": "Ada^Test", "PatientBirthDate": "", "PatientSex": "F",
        "StudyInstanceUID": make_uid("study"), "StudyID": "7", "StudyDate": "20240102",
        "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "",
        "FrameOfReferenceUID": make_uid("frame", name), "SeriesInstanceUID": make_uid(name),
        "SOPInstanceUID": make_uid(name, seed), "SeriesNumber": 4, "SliceThickness": 2.5,
        "ImageOrientationPatient": [*right, *down], "PositionReferenceIndicator": "",
        "ImagePositionPatient": (CORNER + place * np.cross(right, down)).round(6).tolist(),
        "InstanceNumber": 1,
    }  # fmt: skip
    write_dicom(path, stored, tags.pop("spacing", (0.5, 0.75)), **defaults | tags)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in [tag for tag, value in tags.items() if value is None]:
        delattr(dataset, name)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, seed: int, count: int = 4, gap: float = 3.0, name: str = "IM{}.dcm", **tags
) -> list[Path]:
    """Write a series; return its files by their place along the normal."""
    numbers = tags.pop("numbers", range(1, count + 1))
    return [
        write_one(
            folder / name.format(i), 100 * seed + i, place=gap * i, series=f"series {seed}",
            InstanceNumber=number, **tags,
        )
        for i, number in enumerate(numbers)
    ]  # fmt: skip


def of_eight_bits(paths: list[Path]) -> list[Path]:
    """Halve the bits of images with values below 256."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.astype(np.uint8).tobytes()
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelData = 7, pixels + b"\0" * (len(pixels) % 2)
        dataset.save_as(path, enforce_file_format=True)
    return paths


def compress(paths: list[Path]) -> list[Path]:
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    return paths


def colour_frame(path: Path, **tags) -> Path:
    """Write a colour image of an endoscope, which has no place in the patient."""
    write_one(
        path, 1, ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None,
        FrameOfReferenceUID=None, SliceThickness=None, **tags,
    )  # fmt: skip
    dataset, pixels = pydicom.dcmread(path), colours(40)
    dataset.Modality, dataset.SOPClassUID = "ES", pydicom.uid.VLEndoscopicImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.Rows, dataset.Columns, dataset.PlanarConfiguration = *pixels.shape[:2], 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelData = 7, pixels.tobytes() + b"\0"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_dicom_series(root: Path) -> list[list[Path]]:
    """Write series and single images; return the files of each in the order of its slices."""
    mr, ct, x = root / "mr", root / 'ct "x"', root / "x-ray"
    found = [write_series(mr / plane, i, plane=plane) for i, plane in enumerate(PLANES)]
    found += [
        # Numbers against the normal, in no order, and files against the normal.
        write_series(mr / "reversed", 10, numbers=[4, 3, 2, 1]),
        write_series(mr / "no order", 11, numbers=[3, 1, 4, 2], name="1.2.{}"),
        write_series(mr / "from head", 12, gap=-3.0)[::-1],
        write_series(mr / "anisotropic", 13, spacing=(0.3, 1.9), plane="oblique", gap=7.25),
        write_series(mr / "no thickness", 14, SliceThickness=None, gap=4.5),
        compress(write_series(mr / "compressed", 15)),
        write_series(ct / "slope", 16, RescaleSlope=0.5, RescaleIntercept=-1024),
        write_series(ct / "signed", 17, PixelRepresentation=1, RescaleSlope=1, RescaleIntercept=-9),
        write_series(ct / "of twelve bits", 18, BitsStored=12, HighBit=11),
        of_eight_bits(write_series(ct / "of eight bits", 22, largest=255)),
        # Two series in one folder.
        write_series(mr / "both", 19, name="a{}.dcm"),
        write_series(mr / "both", 20, name="b{}.dcm", plane="coronal"),
        # One series in two folders.
        write_series(mr / "apart", 21, name="{}/x.dcm"),
        [write_one(x / "white is 0.dcm", 50, PhotometricInterpretation="MONOCHROME1")],
        [
            write_one(
                x / "white is 0, rescaled", 51, PhotometricInterpretation="MONOCHROME1",
                RescaleSlope=2, RescaleIntercept=-300, BitsStored=12, HighBit=11,
            )
        ],
        [write_one(x / "Zoë's \"first\" image.DCM", 53, plane="sagittal")],
        [write_one(root / "deep/er/est/1.2.840.1", 54, plane="oblique", shape=(61, 22))],
        [write_one(x / "tall.dcm", 55, shape=(200, 33), spacing=(0.1, 0.6))],
    ]  # fmt: skip
    return found


def write_series_without_segmentation(root: Path) -> list[list[Path]]:
    """Write DICOM to which no segmentation can refer, for the standard or for highdicom."""
    return [
        # Two images at each place.
        [
            write_one(
                root / f"echoes/{place}-{echo}.dcm", 10 * place + echo, place=place,
                series="echoes", InstanceNumber=10 * echo + place,
            )
            for place in range(3)
            for echo in range(2)
        ],
        # Three planes.
        [
            write_one(root / f"planes/{plane}.dcm", i, plane, series="planes", InstanceNumber=i)
            for i, plane in enumerate(("axial", "coronal", "sagittal"))
        ],
        [
            write_one(
                root / "no place.dcm", 52, ImagePositionPatient=None, PixelSpacing=None,
                ImageOrientationPatient=None, FrameOfReferenceUID=None,
            )
        ],
    ]  # fmt: skip


# What is expected.


def straight(network: models.Student, image: np.ndarray) -> np.ndarray:
    """Return the mask of an image (H, W) float32 or (H, W, 3) uint8, computed alone."""
    height, width = SIZE
    planes = image.reshape(*image.shape[:2], -1)
    small = [
        np.asarray(Image.fromarray(planes[..., c].copy()).resize((width, height), Image.BILINEAR))
        for c in range(planes.shape[2])
    ]
    with torch.no_grad():
        log_odds = network(normalise(torch.from_numpy(np.stack(small)[None]))).log_odds
    probability = log_odds.sigmoid()[0].numpy().astype(np.float16).astype(np.float32)
    size = (image.shape[1], image.shape[0])
    large = Image.fromarray(probability).resize(size, Image.BILINEAR)
    return np.asarray(large) >= 0.5


def expected_picture(network: models.Student, path: Path) -> np.ndarray:
    """Return the mask of a picture or of a DICOM image."""
    if path.suffix == ".dcm":
        return expected_slice(network, path)
    with Image.open(path) as picture:
        has_colours = network.architecture.channels == 3
        return straight(
            network,
            np.asarray(picture.convert("RGB")) if has_colours else np.asarray(picture, np.float32),
        )


def expected_volume(network: models.Student, path: Path) -> np.ndarray:
    """Return the mask of a volume on its stored grid."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj, np.float32)
    voxels = voxels.reshape((*voxels.shape, 1)[:3])
    stored = io_orientation(image.affine)
    upright = apply_orientation(voxels, ornt_transform(stored, RADIOLOGICAL))
    masks = [straight(network, upright[..., z].T).T for z in range(upright.shape[2])]
    back = apply_orientation(np.stack(masks, axis=-1), ornt_transform(RADIOLOGICAL, stored))
    return back.reshape(image.shape)


def expected_slice(network: models.Student, path: Path) -> np.ndarray:
    """Return the mask of a DICOM image."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    if dataset.SamplesPerPixel == 3:
        return straight(network, pixels)
    values = pixels.astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = 2**dataset.BitsStored - 1 - values
    values = values * float(dataset.get("RescaleSlope", 1))
    values += float(dataset.get("RescaleIntercept", 0))
    return straight(network, values.astype(np.float32))


def check_picture(network: models.Student, source: Path, output: Path) -> None:
    with Image.open(output) as mask:
        found = np.asarray(mask)
    assert set(np.unique(found)) == {0, 255}, source
    np.testing.assert_array_equal(found > 0, expected_picture(network, source), str(source))


def check_volume(network: models.Student, source: Path, output: Path) -> None:
    image, mask = nibabel.load(source), nibabel.load(output)
    assert type(mask) is type(image) and mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, image.affine)
    for name in (
        "dim", "pixdim", "xyzt_units", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z",
        "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    ):  # fmt: skip
        np.testing.assert_array_equal(mask.header[name], image.header[name], name)
    found = np.asarray(mask.dataobj)
    np.testing.assert_array_equal(found > 0, expected_volume(network, source))
    assert set(np.unique(found)) == {0, 1}, source


def check_series(network: models.Student, sources: list[Path], output: Path) -> None:
    """Check a SEG as pydicom and as highdicom read it."""
    headers = {h.SOPInstanceUID: h for h in map(pydicom.dcmread, sources)}
    expected = {
        uid: expected_slice(network, path) for uid, path in zip(headers, sources, strict=True)
    }
    dataset = pydicom.dcmread(output)
    pixels = np.atleast_3d(dataset.pixel_array)
    if dataset.NumberOfFrames == 1:
        pixels = dataset.pixel_array.reshape(1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    seen = []
    for frame, own in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        ((image,),) = [d.SourceImageSequence for d in own.DerivationImageSequence]
        uid = image.ReferencedSOPInstanceUID
        source = headers[uid]
        seen.append(uid)
        np.testing.assert_array_equal(frame > 0, expected[uid])
        assert image.ReferencedSOPClassUID == source.SOPClassUID
        if "ImagePositionPatient" not in source:
            assert "PlanePositionSequence" not in own
            continue
        groups = {k: v for group in (shared, own) for k, v in ((e.keyword, e) for e in group)}
        measures = groups["PixelMeasuresSequence"][0]
        np.testing.assert_allclose(measures.PixelSpacing, source.PixelSpacing, rtol=1e-6)
        for group, name in (
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ):
            np.testing.assert_allclose(groups[group][0][name].value, source[name].value, atol=1e-6)
        assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert sorted(seen) == sorted(headers)
    segmentation = highdicom.seg.segread(output)
    found = segmentation.get_pixels_by_source_instance(
        list(headers), combine_segments=True, ignore_spatial_locations=True
    )
    np.testing.assert_array_equal(found > 0, list(expected.values()))


def check_own_reader(network: models.Student, series: list[list[Path]], output: list[Path]) -> None:
    """Check that a training reads these SEG as the masks of the images that they were made of."""
    images = [path for paths in series for path in paths]
    records = [[Record(str(i), str(i), None, path, None)] for i, path in enumerate(images)]
    problems = Problems()
    matching.join(records, [dicom.read_header(path) for path in images], output, problems)
    problems.raise_all()
    for path, (record,) in zip(images, records, strict=True):
        found = matching.read_mask(path, record.parts, None)
        np.testing.assert_array_equal(found, expected_slice(network, path), str(path))


def segment(capsys, student: Path, images: Path, masks: Path, *options: str) -> set[str]:
    """Run the command; return the files, and fields, of its problems."""
    argv = ["--student", str(student), "--images", str(images), "--output", str(masks), *options]
    try:
        main.main(["segment", *argv])
    except SystemExit as stop:
        assert stop.code == 1
    printed = capsys.readouterr()
    found = re.findall(r"^(?:\d+\. )?(/.*): (\w+)$", printed.out + printed.err, re.MULTILINE)
    return set(found)


def output_of(path: Path, images: Path, masks: Path, ending: str) -> Path:
    stem = re.sub(r"(?i)\.(png|jpe?g|tiff?|bmp|dcm|nii(\.gz)?)$", "", path.name)
    return masks / path.parent.relative_to(images) / f"{stem}{ending}"


def output_of_series(paths: list[Path], images: Path, masks: Path) -> Path:
    """Return the file of a series: its UID, in the folder that holds all its files."""
    if len(paths) == 1:
        return output_of(paths[0], images, masks, ".dcm")
    same = len({path.parent for path in paths}) == 1
    folder = paths[0].parent if same else paths[0].parent.parent
    uid = pydicom.dcmread(paths[0]).SeriesInstanceUID
    return masks / folder.relative_to(images) / f"{uid}.dcm"


def list_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """The files of two students, for grey and for colour images."""
    paths = []
    for channels in (1, 3):
        paths.append(make_student(tmp_path_factory.mktemp(f"{channels} channels"), channels))
        # About half of a drawn image is foreground.
        network = models.load(paths[-1], "student")
        image = np.stack([draw(SIZE, 60 + i) for i in range(channels)])
        image = whole(image, 255, np.uint8) if channels == 3 else image.astype(np.float32)
        with torch.no_grad():
            log_odds = network(normalise(torch.from_numpy(image[None]))).log_odds
        network.classifier.bias.data[1] -= log_odds.median()
        models.save(network, paths[-1], {})
    return paths


def test_a_folder_of_all_kinds(students, tmp_path, capsys):
    root, masks = tmp_path / 'the archive\'s "data"', tmp_path / "masks"
    deep, pictures = write_deep_pictures(root), write_colour_pictures(root)
    volumes, series = write_volumes(root), write_dicom_series(root)
    frame = colour_frame(root / "endoscopy/frame.dcm")
    unusable = write_series_without_segmentation(root / "mr")
    count = len(deep) + len(volumes) + len(series)
    assert count >= 50
    # Each student says which inputs are not for it, and segments all others.
    found = segment(capsys, students[0], root, masks)
    assert found == {(str(path), "image") for path in [*pictures, frame]} | {
        (str(min(paths)), "header") for paths in unusable
    }
    of_grey = list_files(masks)
    assert len(of_grey) == count
    segment(capsys, students[1], root, masks)
    assert of_grey.items() <= list_files(masks).items()
    assert len(list_files(masks)) == count + len(pictures) + 1

    grey, colour = (models.load(path, "student") for path in students)
    for network, paths in ((grey, deep), (colour, pictures)):
        for path in paths:
            check_picture(network, path, output_of(path, root, masks, ".png"))
    for path in volumes:
        ending = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
        check_volume(grey, path, output_of(path, root, masks, ending))
    segmentations = [output_of_series(paths, root, masks) for paths in series]
    for paths, output in zip(series, segmentations, strict=True):
        check_series(grey, paths, output)
    check_series(colour, [frame], output_of_series([frame], root, masks))
    check_own_reader(grey, series, segmentations)
    # As its message says, what has no segmentation can have pictures.
    assert not segment(capsys, students[0], root / "mr/planes", tmp_path / "png", "--format", "png")
    for path in unusable[1]:
        check_picture(grey, path, output_of(path, root / "mr/planes", tmp_path / "png", ".png"))
