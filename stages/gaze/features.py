"""A pixel classifier on the features of a frozen encoder, which votes on gaze maps.

It learns from the gaze on other images what targets look like: images are split into folds by
subject, and a fold is judged by the classifier that did not see it. The errors of the gaze on one
image are therefore not repeated, and the mean of gaze and classifier is better than either.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stages.core.cli import BadInput
from stages.core.images import to_rgb8
from stages.core.parallel import ordered_map
from stages.networks.encoder_file import read_encoder
from stages.settings.gaze import FeatureSettings

FOLDS = 4
# Positions of all images from which the classifiers learn, and of one image at most.
TOTAL_POSITIONS, IMAGE_POSITIONS = 300_000, 256
# The classifier: one hidden layer, with dropout against the errors of the gaze.
HIDDEN, DROPOUT = 64, 0.5
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 8, 4096, 3e-3, 1e-2


class FeatureExtractor:
    """The feature maps of an encoder, joined at a stride of 8 px of the resized image."""

    def __init__(
        self, encoder: Path | None, settings: FeatureSettings, device: torch.device
    ) -> None:
        # timm takes seconds to import.
        from stages.networks.timm_unet import create_backbone

        content = read_encoder(encoder, settings.encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.backbone: nn.Module = create_backbone(settings.encoder, 3, content.weights)
        self.backbone.to(device).eval()
        self.device, self.side = device, settings.side
        self.mean, self.std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (content.mean, content.std)
        )

    @torch.no_grad()
    def __call__(self, image: NDArray[Any]) -> Tensor:
        """Return the features (C, h, w) float16 of an image (H, W, C), as prepared."""
        pixels = torch.from_numpy(to_rgb8(image)).to(self.device).permute(2, 0, 1)[None] / 255
        factor = self.side / max(pixels.shape[2:])
        size = [max(32, round(side * factor)) for side in pixels.shape[2:]]
        pixels = functional.interpolate(
            pixels, size, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
        maps = self.backbone((pixels - self.mean) / self.std)
        grid = (-(-size[0] // 8), -(-size[1] // 8))
        # The map of stride 2 tells of texture only.
        joined = [_resize(m, grid)[0] for m in maps if m.shape[2] <= 2 * grid[0]]
        largest = torch.finfo(torch.float16).max
        return torch.cat(joined).clamp(-largest, largest).to(torch.float16).cpu()


def _resize(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize maps (B, C, h, w) to the grid: means of what is finer, else bilinear."""
    if maps.shape[2] > grid[0]:
        return functional.adaptive_avg_pool2d(maps, grid)
    return functional.interpolate(maps, grid, mode="bilinear", align_corners=False)


class _Classifier(nn.Module):
    """Features of a position → log-odds of foreground."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        # Of the dropout.
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden, self.out = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x).relu()
        if self.training:
            kept = torch.rand(hidden.shape, generator=self.generator) >= DROPOUT
            hidden = hidden * kept / (1 - DROPOUT)
        return self.out(hidden)[..., 0]  # type: ignore[no-any-return]


def _train(features: Tensor, labels: Tensor, positions: Tensor, seed: int) -> _Classifier:
    """Train a classifier on some positions of features (P, C) and labels (P,) in [0, 1]."""
    classifier = _Classifier(features.shape[1], seed)
    generator = torch.Generator().manual_seed(seed)
    steps = EPOCHS * -(-len(positions) // BATCH)
    optimiser = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(positions), generator=generator)
        for rows in torch.split(positions[order], BATCH):
            optimiser.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(
                classifier(features[rows]), labels[rows]
            )
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return classifier.eval()


def assign_folds(subjects: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Draw a fold for each subject of the training samples; its samples share it.

    Returns
    -------
    (T,) fold of each training sample, in [0, FOLDS). Each fold has a subject, if there are FOLDS.
    """
    names = sorted(set(subjects))
    order = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold = dict(zip(names, order.tolist(), strict=True))
    return np.array([fold[name] for name in subjects])


def require_subjects(prepared: Path, subjects: Sequence[str]) -> None:
    """Stop if there are too few training subjects to judge each by classifiers of others.

    Raises
    ------
    BadInput
        There are fewer training subjects with gaze than folds.
    """
    found = len(set(subjects))
    if found < FOLDS:
        raise BadInput(
            prepared, "subject_id", found=f"{found} training subjects with gaze",
            expected=f"at least {FOLDS}, because each is judged by a classifier of others",
            mend="leave `gaze.features` out",
        )  # fmt: skip


def vote(
    image: Callable[[int], NDArray[Any]],
    region: Callable[[int], NDArray[np.bool_]],
    subjects: Sequence[str],
    training: NDArray[np.bool_],
    encoder: Path | None,
    settings: FeatureSettings,
    device: torch.device,
    threads: int,
) -> Iterator[NDArray[np.float32]]:
    """Yield each sample's foreground probability by the classifiers of the other folds.

    Images are read twice, so memory does not grow with their number.

    Parameters
    ----------
    image
        Index in [0, N) → image (H, W, C), as prepared.
    region
        Index in [0, N) → what was looked at, (H, W): the labels.
    subjects
        (N,) subject of each sample.
    training
        (N,) samples to learn from: those of the training split. Others are judged by all folds.
    encoder
        The file of the encoder.

    Yields
    ------
    (H, W) float32 in [0, 1], in the order of the samples.
    """
    extract = FeatureExtractor(encoder, settings, device)
    rng = np.random.default_rng(settings.seed)
    rows = np.flatnonzero(training)
    positions = min(IMAGE_POSITIONS, -(-TOTAL_POSITIONS // len(rows)))

    def read(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[Any]]]:
        return ((int(i), image(int(i))) for i in rows)

    features, labels = [], []
    for i, found in ordered_map(lambda item: (item[0], extract(item[1])), read(rows), threads):
        looked_at = torch.from_numpy(region(i))[None, None].float()
        label = _resize(looked_at, (found.shape[1], found.shape[2])).flatten()
        picked = torch.from_numpy(rng.permutation(len(label))[:positions])
        features.append(found.flatten(1)[:, picked].T)
        labels.append(label[picked])
    of_image = torch.tensor([len(label) for label in labels])
    all_features = torch.cat(features).float()
    centre, scale = all_features.mean(dim=0), all_features.std(dim=0) + 1e-3
    all_features.sub_(centre).div_(scale)
    all_labels = torch.cat(labels)

    folds = assign_folds([subjects[i] for i in rows.tolist()], settings.seed)
    of_position = torch.from_numpy(folds).repeat_interleave(of_image)
    fold_of = dict(zip(rows.tolist(), folds.tolist(), strict=True))
    classifiers = []
    for fold in range(FOLDS):
        seen = (of_position != fold).nonzero()[:, 0]
        seed = settings.seed * FOLDS + fold
        classifiers.append(_train(all_features, all_labels, seen, seed))

    def judge(item: tuple[int, NDArray[Any]]) -> NDArray[np.float32]:
        i, pixels = item
        found = extract(pixels).float()
        x = (found.flatten(1).T - centre) / scale
        chosen = [classifiers[fold_of[i]]] if i in fold_of else classifiers
        with torch.no_grad():
            logits = torch.stack([classifier(x) for classifier in chosen]).mean(dim=0)
        logits = functional.interpolate(
            logits.view(1, 1, *found.shape[1:]),
            pixels.shape[:2], mode="bilinear", align_corners=False,
        )  # fmt: skip
        return logits[0, 0].sigmoid().numpy()

    return ordered_map(judge, read(np.arange(len(subjects))), threads)
