from stages.settings.base import Settings
from stages.settings.prepare import PrepareSettings
from stages.settings.recording import RecordingSettings


class VerifySettings(Settings):
    """How to read the raw data, and which experiments need their masks.

    Attributes
    ----------
    supervised
        Names of the experiments that learn from masks.
    """

    prepare: PrepareSettings
    recording: RecordingSettings
    min_fixation_ms: float
    partial: bool
    supervised: tuple[str, ...]
