"""Map settings to the modules that implement them; a stage imports only the module it needs."""

_DESCRIBER_MODULES = {
    "measured": "measured",
    "transformers": "local",
    "openai": "endpoint",
    "import": "imported",
}
_ENCODER_MODULES = {
    "minilm": "minilm",
    "transformers": "transformer",
    "open_clip": "openclip",
    "import": "imported",
}
_READER_MODULES = {
    "gazemedseg": "fixations",
    "eyelink": "fixations",
    "gazepoint": "fixations",
    "pupil": "fixations",
    "smi": "fixations",
    "imotions": "fixations",
    "fixations": "fixations",
    "tobii": "tobii",
    "samples": "samples",
    "heatmaps": "maps",
    "refined": "maps",
}
# Simulates the gaze of a data set without a recording.
SIMULATION_MODULE = "stages.gaze.simulation"
# Votes on the maps of a data set whose settings ask for it.
FEATURES_MODULE = "stages.gaze.features"


def reader_module(format: str, *, raw: bool = False) -> str:
    """Return the module that reads a format of recorded gaze; `raw`: its raw samples."""
    return f"stages.gaze.recordings.{_READER_MODULES['samples' if raw else format]}"


def explain_module(backend: str) -> str:
    """Return the module of an explanation backend."""
    return f"stages.text.describers.{_DESCRIBER_MODULES[backend]}"


def encoder_module(encoder: str) -> str:
    """Return the module of a text encoder, or of the import of vectors."""
    return f"stages.text.encoders.{_ENCODER_MODULES[encoder]}"


def method_module(method: str) -> str:
    """Return the module of a student's training method."""
    return f"stages.training.methods.{method}"
