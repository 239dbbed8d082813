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


def explain_module(backend: str) -> str:
    """Return the module with the function `make` of a backend."""
    return f"stages.describers.{_DESCRIBERS[backend]}"


def encoder_module(encoder: str) -> str:
    """Return the module of an encoder, or of the import of what one made elsewhere."""
    return f"stages.encoders.{_ENCODERS[encoder]}"


def method_module(method: str) -> str:
    """Return the module with the function `make` of a student's method."""
    return f"stages.methods.{method}"
