"""What the app shows: images, what students say about them, files to take away, and the gaze."""

import secrets
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from stages.core import config_file
from stages.core.cli import BadInput, Problems
from stages.core.config import ConfigError, describe_faults
from stages.deploy.inference import Maps
from stages.deploy.segment import Format, Job, Students, write_masks
from stages.deploy.views import draw_views
from stages.evaluation.evaluate import THRESHOLD
from stages.evaluation.predict import BATCH_SIZE
from stages.gaze.pseudomasks import GazeMaps, GazeSample, make_maps
from stages.gaze.recordings import Scanpath
from stages.gaze.scans import has_gaze, read_recorded_gaze
from stages.settings.gaze import GazeSettings
from stages.settings.recording import MAP_FORMATS, RecordingSettings


class Stopped(Exception):
    """The app ends before the work does."""


class _Slice(NamedTuple):
    """Height and width of a slice, px, and its maps at the working size."""

    size: tuple[int, int]
    maps: Maps


class Case:
    """The images that the app shows now: at most one upload at a time.

    Parameters
    ----------
    students
        They make the masks, and with flips the uncertainty.
    folder
        An empty folder for uploads and masks. Whatever lies in it may be deleted.
    label
        Name of the segment in a DICOM segmentation.
    gaze
        How pseudomasks are made. The page may replace its `recording`.

    Attributes
    ----------
    images, recording
        Folders of uploaded files.
    done
        Number of slices that are segmented so far.
    stopping
        When set, work ends with `Stopped` at the next slice.
    """

    def __init__(self, students: Students, folder: Path, label: str, gaze: GazeSettings) -> None:
        self._students, self._label, self._gaze = students, label, gaze
        self._folder = folder
        self.images, self.recording = folder / "images", folder / "recording"
        self._masks = folder / "masks"
        self.stopping = threading.Event()
        self._drawing = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget the images and the gaze, and delete their files."""
        self._show([])
        self.problems, self.done = "", 0
        self.clear_recording()
        for folder in (self.images, self._masks):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)

    def clear_recording(self) -> None:
        """Forget the gaze, and delete its file."""
        self._scanpaths: dict[str, Scanpath | Path] = {}
        self._new_id()
        shutil.rmtree(self.recording, ignore_errors=True)
        self.recording.mkdir(mode=0o700)

    def _new_id(self) -> None:
        # A part of all addresses: those of what was shown before are not found any more.
        self.id = secrets.token_hex(8)
        self._drawn: dict[tuple[int, int], dict[str, bytes]] = {}

    def _show(self, shown: list[tuple[Job, list[_Slice]]]) -> None:
        self._shown = shown
        self.files = {
            path.relative_to(self._masks).as_posix(): path
            for job, _ in shown
            for paths in job.outputs.values()
            for path in paths
        }

    def describe_problem(self, problem: BadInput) -> str:
        """Return the message of a problem, with the names of uploads in place of their paths."""
        text = str(problem)
        for folder in (self.images, self.recording, self._masks, self._folder):
            text = text.replace(f"{folder}/", "")
        return text

    def segment(self, images: list[Path], format: Format) -> None:
        """Segment images, and show them.

        Problems of some images are in `problems`.

        Raises
        ------
        BadInput
            No image could be segmented.
        Stopped
            The app ends.
        """
        problems = Problems()
        slices: dict[Job, list[_Slice]] = {}
        for job, size, maps in write_masks(
            self._students, images, self._masks, problems,
            format=format, probability=True, label=self._label, batch_size=BATCH_SIZE,
        ):  # fmt: skip
            if self.stopping.is_set():
                raise Stopped
            slices.setdefault(job, []).append(_Slice(size, maps))
            self.done += 1
        shown = [
            (job, found) for job, found in slices.items() if len(found) == len(job.item.slice_stems)
        ]
        if not shown:
            problems.raise_all()
        self.problems = "\n".join(map(self.describe_problem, problems))
        self._show(shown)
        self._new_id()

    def add_recording(self, files: list[Path], lines: str) -> None:
        """Read the gaze on the images that are shown.

        Parameters
        ----------
        files
            The recording; for maps, files in the folder `recording`.
        lines
            The settings `gaze.recording`, in YAML.

        Raises
        ------
        BadInput
            The settings or the recording cannot be used.
        """
        recording = self._parse_recording(lines)
        if recording.format in MAP_FORMATS:
            source = self.recording
        elif len(files) == 1:
            (source,) = files
        else:
            raise BadInput(
                "recording", "files", found=len(files), expected="one table",
                mend="choose one file; only maps (format heatmaps or refined) may be several",
            )  # fmt: skip
        named = [
            (stem.name, one.size)
            for job, slices in self._shown
            for stem, one in zip(job.item.slice_stems, slices, strict=True)
        ]
        sizes = dict(named)
        if not sizes or len(sizes) < len(named):
            raise BadInput(
                "recording",
                "images",
                found="two images of one name" if sizes else "none",
                expected="images that were segmented, each with a name of its own",
                mend="choose the images on which this gaze was recorded",
            )
        problems = Problems()
        with problems.collect():
            self._scanpaths = read_recorded_gaze(
                source, sizes, recording, self._gaze.min_fixation_ms, problems
            )
        if problems:
            self._scanpaths = {}
        problems.raise_all()
        self._gaze = self._gaze.model_copy(update={"recording": recording})
        self._new_id()

    def _parse_recording(self, lines: str) -> RecordingSettings:
        file = self._folder / "recording.yaml"
        file.write_text(lines, encoding="utf-8", errors="replace")
        try:
            config_file.check_file(file)
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
            return RecordingSettings.model_validate(values)
        except ValidationError as error:
            faults = tuple(describe_faults(error, RecordingSettings))
        except ConfigError as error:
            faults = error.faults
        raise BadInput(
            "settings of the recording",
            "gaze.recording",
            found="\n            ".join(faults),
            expected="the lines of your eye tracker, as in docs/trackers.md",
            mend="correct them, and read the recording again",
        )

    def describe(self) -> dict[str, Any]:
        """Return what the page shows, ready for JSON."""
        recording = self._gaze.recording.model_dump(exclude_unset=True) or {"format": "gazemedseg"}
        return {
            "id": self.id,
            "settings": yaml.safe_dump(recording, sort_keys=False),
            "thresholds": sorted(self._gaze.thresholds, reverse=True),
            "problems": self.problems,
            "files": len(self.files),
            "items": [self._describe_item(job, slices) for job, slices in self._shown],
        }

    def _describe_item(self, job: Job, slices: list[_Slice]) -> dict[str, Any]:
        files = {
            content: paths[0].relative_to(self._masks).as_posix()
            for content, paths in job.outputs.items()
            if len(paths) == 1
        }
        return {
            "name": job.item.stem.as_posix(),
            "files": files,
            "slices": [
                {
                    "name": stem.name,
                    "share": float((one.maps.probability >= THRESHOLD).mean()),
                    "gaze": self._describe_gaze(stem.name),
                }
                for stem, one in zip(job.item.slice_stems, slices, strict=True)
            ],
        }

    def _describe_gaze(self, name: str) -> str:
        """Say what gaze an image has; empty: none."""
        scanpath = self._scanpaths.get(name)
        if isinstance(scanpath, Scanpath):
            count = len(scanpath.fixations)
            return (
                f"{count} fixations, {scanpath.fixations[:, 2].sum() / 1000:.1f} s" if count else ""
            )
        return "a map" if scanpath else ""

    def views(self, item: int, number: int) -> dict[str, bytes]:
        """Return the pictures of a slice, as `draw_views` does.

        Raises
        ------
        IndexError
            There is no such slice.
        BadInput
            The image cannot be read any more.
        """
        # One at a time: the page asks for all pictures of a slice at once.
        with self._drawing:
            if (item, number) not in self._drawn:
                job, slices = self._shown[item]
                one = slices[number]
                image = job.item.read(number)
                gaze = self._make_gaze(image, one.size, job.item.slice_stems[number].name)
                if len(self._drawn) == 8:
                    del self._drawn[next(iter(self._drawn))]
                self._drawn[item, number] = draw_views(image, one.maps, gaze, self._gaze.thresholds)
            return self._drawn[item, number]

    def _make_gaze(self, image: Any, size: tuple[int, int], name: str) -> GazeMaps | None:
        if not has_gaze(self._scanpaths, name):
            return None
        ensemble = self._students.ensemble
        sample = GazeSample(ensemble.shrink(image), size, self._scanpaths[name], None)
        device = next(ensemble.students[0].parameters()).device
        return make_maps(sample, self._gaze, device)
