"""Which module does what a setting names: imported by name when it is needed, and only then."""

_DESCRIBERS = {
    "measured": "measured",
    "transformers": "local",
    "openai": "endpoint",
    "import": "imported",
}
_ENCODERS = {
    "minilm": "minilm",
    "transformers": "transformer",
    "open_clip": "openclip",
    "import": "imported",
}
_READERS = {
    "gazemedseg": "eyelink",
    "eyelink": "eyelink",
    "tobii": "tobii",
    "samples": "samples",
    "heatmaps": "maps",
    "refined": "maps",
}
# Draws the gaze of a data set without a recording.
SIMULATION = "stages.gaze.simulation"


def reader_module(format: str) -> str:
    """Return the module that reads a format of recorded gaze."""
    return f"stages.gaze.recordings.{_READERS[format]}"


def explain_module(backend: str) -> str:
    """Return the module with the function `make` of a backend."""
    return f"stages.text.describers.{_DESCRIBERS[backend]}"


def encoder_module(encoder: str) -> str:
    """Return the module of an encoder, or of the import of what one made elsewhere."""
    return f"stages.text.encoders.{_ENCODERS[encoder]}"


def method_module(method: str) -> str:
    """Return the module with the function `make` of a student's method."""
    return f"stages.training.methods.{method}"
