"""Images and gaze → texts.h5: what each image's looked-at region is, in words."""

import hashlib
from pathlib import Path

import numpy as np

from stages import cli, io
from stages.describers import FIELDS, get_describer
from stages.images import to_rgb8
from stages.settings.explain import ExplainSettings

# Samples handed to the backend at a time.
BATCH = 16


def explain(prepared: Path, gaze: Path, output: Path, settings: ExplainSettings) -> None:
    """Write `text` (N, K) and `attributes` (N,), empty where nobody looked."""
    inputs = {"prepared": prepared, "gaze": gaze}
    with (
        io.open_h5(prepared, "image", "sample_id") as source,
        io.open_h5(gaze, "pseudomask", "has_gaze", "sample_id") as looked,
        io.create_h5(output, "explain", inputs, settings) as file,
    ):
        io.check_same_samples(source, looked)
        n = len(source["sample_id"])
        text = np.full((n, len(FIELDS)), "", object)
        attributes = np.full(n, "{}", object)
        describer = get_describer(settings.backend)
        indices = np.flatnonzero(looked["has_gaze"][()])
        batches = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
        for batch in cli.progress(batches, "explain"):
            images = np.stack([to_rgb8(source["image"][i]) for i in batch])
            explanations = describer.describe(images, looked["pseudomask"][batch])
            for i, explanation in zip(batch, explanations, strict=True):
                if explanation is not None:
                    text[i] = explanation.sentences()
                    attributes[i] = explanation.model_dump_json()
        io.write_strings(file, "sample_id", io.read_strings(source, "sample_id"))
        io.write_strings(file, "text", text)
        io.write_strings(file, "attributes", attributes)
        file.attrs["backend"] = settings.backend
        file.attrs["model"] = describer.model
        file.attrs["revision"] = describer.revision
        file.attrs["prompt"] = describer.prompt
        file.attrs["prompt_sha256"] = hashlib.sha256(describer.prompt.encode()).hexdigest()
        file.attrs["fields"] = list(FIELDS)


if __name__ == "__main__":
    cli.run(explain)
