from stages.settings.base import Settings
from stages.settings.prepare import PrepareSettings
from stages.settings.recording import RecordingSettings


class VerifySettings(Settings):
    """How the raw data are to be read, and what is to learn from them.

    Attributes
    ----------
    supervised
        The experiments that learn from masks.
    """

    prepare: PrepareSettings
    recording: RecordingSettings
    min_fixation_ms: float
    partial: bool
    supervised: tuple[str, ...]
