"""Recorded gaze of a data set, and the code that reads it."""

from pathlib import Path

from rules.paths import encoder_inputs, folder_contents
from stages.core.config import Config, DatasetSettings
from stages.core.fingerprint import fingerprint
from stages.settings.modules import FEATURES_MODULE, SIMULATION_MODULE, reader_module
from stages.settings.parts import EncoderSettings
from stages.settings.verify import VerifySettings


def _is_drawn(settings: DatasetSettings) -> bool:
    """Whether the rule that draws a phantom data set also draws its recorded gaze."""
    return (
        settings.demo is not None
        and settings.fixations is not None
        and Path(settings.fixations).is_relative_to(settings.root)
    )


def recording_paths(config: Config, dataset: str) -> list[str]:
    """Name the recorded gaze, or the folder of the phantom that holds it; none if simulated."""
    settings = config.dataset(dataset)
    if settings.fixations is None:
        return []
    return [settings.root if _is_drawn(settings) else settings.fixations]


def recording_contents(config: Config, dataset: str) -> list[str]:
    """Digest the folder of maps, if the recorded gaze is one."""
    settings = config.dataset(dataset)
    if settings.fixations is None or _is_drawn(settings):
        return []
    return folder_contents([settings.fixations])


def _reader(settings: DatasetSettings) -> str:
    recording = settings.gaze.recording
    return reader_module(recording.format, raw=recording.detection is not None)


def verify_settings(config: Config, dataset: str) -> str:
    """Say how to read the raw data, and which experiments learn from masks."""
    settings = config.dataset(dataset)
    gaze = settings.gaze
    return VerifySettings(
        prepare=settings.prepare,
        recording=gaze.recording,
        # Simulation also drops short fixations, but there are none to verify.
        min_fixation_ms=0 if gaze.simulate else gaze.min_fixation_ms,
        partial=gaze.partial,
        supervised=[
            experiment
            for experiment in settings.experiments
            if config.experiment(dataset, experiment).student.labels == "mask"
        ],
    ).model_dump_json()


def verify_code(config: Config, dataset: str) -> str:
    """Fingerprint what reads the raw data and, if there is any, the recorded gaze."""
    settings = config.dataset(dataset)
    modules = ["stages.gaze.verify", f"stages.data.datasets.{settings.prepare.layout}"]
    return fingerprint(*modules, *([] if settings.gaze.simulate else [_reader(settings)]))


def feature_encoders(config: Config, dataset: str) -> list[EncoderSettings]:
    """List the encoder whose features vote on the maps, if any do."""
    features = config.dataset(dataset).gaze.features
    return [] if features is None else [features.pretrained]


def feature_inputs(config: Config, dataset: str) -> dict[str, str]:
    """Name the file of the encoder whose features vote on the maps, if any do."""
    features = config.dataset(dataset).gaze.features
    return encoder_inputs(features.pretrained if features else None)


def pseudomasks_code(config: Config, dataset: str) -> str:
    """Fingerprint what makes pseudomasks, and what reads or simulates the gaze."""
    settings = config.dataset(dataset)
    source = SIMULATION_MODULE if settings.gaze.simulate else _reader(settings)
    features = [] if settings.gaze.features is None else [FEATURES_MODULE]
    return fingerprint("stages.gaze.pseudomasks", source, *features)


def quality_inputs(config: Config, dataset: str) -> dict[str, str]:
    """Name the table of gaze quality, if it leaves samples out of training."""
    if not config.dataset(dataset).quality.leave_out:
        return {}
    return {"quality": f"results/{dataset}/gaze_quality.csv"}
