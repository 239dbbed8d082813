"""Which labels of a mask are its foreground: the rule without a setting, and a chosen set."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, list_names, log

# Largest number of labels in a message.
_MAX_SHOWN = 8
# A volume that stores labels with a slope returns them with a rounding error.
_MAX_ROUNDING = 1e-3
_MEND = "name the labels of the foreground in `prepare.foreground`, such as `foreground: [1, 2]`"


def _name_levels(values: NDArray[Any]) -> str:
    levels = np.unique(values).tolist()
    shown = ", ".join(f"{level:g}" for level in levels[:_MAX_SHOWN])
    return f"{len(levels)} levels: {shown}" + (", …" if len(levels) > _MAX_SHOWN else "")


class Labels:
    """The labels that are foreground in the masks of a data set. Remembers which labels it saw.

    Parameters
    ----------
    foreground
        Labels above 0.
    others
        The other labels that a mask may hold beside 0; None: any whole number.
    """

    def __init__(self, foreground: Collection[int], others: Collection[int] | None = None) -> None:
        self.foreground = frozenset(foreground)
        self._known = None if others is None else self.foreground | {0, *others}
        # Label → the masks that hold it. Threads may add to both at the same time.
        self._masks: dict[int, set[Path]] = {}
        # Segment → its names in the files of segmentations.
        self._names: dict[int, set[str]] = {}

    def choose(self, path: Path, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the `values` of the mask `path` are foreground.

        Raises
        ------
        BadInput
            A value is not a whole number, or is a label that no mask may hold.
        """
        found = np.unique(values)
        whole = np.rint(found)
        known = np.abs(found - whole) <= _MAX_ROUNDING
        if self._known is not None:
            known &= np.isin(whole, list(self._known))
        if not known.all():
            raise BadInput(
                path,
                "mask",
                found=_name_levels(values),
                expected="labels, which are whole numbers"
                if self._known is None
                else f"the labels {', '.join(map(str, sorted(self._known)))}",
                mend="save the mask with such labels, among which `prepare.foreground` chooses",
            )
        for label in whole.astype(np.int64).tolist():
            self._masks.setdefault(label, set()).add(path)
        return np.isin(np.rint(values), list(self.foreground))

    def see_segments(self, path: Path, segments: Mapping[int, str]) -> None:
        """Remember the numbers and names of the segments that the file `path` describes."""
        for number, name in segments.items():
            self._masks.setdefault(number, set()).add(path)
            self._names.setdefault(number, set()).add(name)

    def _check_segments(self, root: Path) -> None:
        """Check that each label of the foreground is a segment, or the label of a mask."""
        unknown = sorted(self.foreground - self._masks.keys())
        if self._names and unknown:
            names = (
                f"{number} {' or '.join(map(repr, sorted(self._names[number])))}"
                for number in sorted(self._names)
            )
            raise BadInput(
                root,
                "segments",
                found=f"the numbers {unknown} in `prepare.foreground`, which no file has",
                expected=f"numbers of segments or ROIs: {list_names(list(names), _MAX_SHOWN)}",
                mend="correct `prepare.foreground`",
            )

    def check_found(self, root: Path) -> None:
        """Check the labels of all masks of the folder `root`, once these are read.

        The log names labels that count as background, and those of the foreground in no mask.

        Raises
        ------
        BadInput
            Masks hold labels, but none of the foreground; or there are files of segments, and a
            label of the foreground is neither a segment nor in a mask.
        """
        self._check_segments(root)
        chosen, found = sorted(self.foreground), sorted(self._masks.keys() - {0})
        if found and self.foreground.isdisjoint(found):
            raise BadInput(
                root,
                "masks",
                found=f"the labels {found} in all masks together",
                expected=f"the labels of `prepare.foreground`, {chosen}",
                mend=f"{_MEND}; without it, masks may hold 0 and one other value",
            )
        if missing := [label for label in chosen if found and label not in found]:
            log.warning("%s: no mask holds the labels %s of prepare.foreground", root, missing)
        for label in found:
            if label not in self.foreground:
                masks = self._masks[label]
                log.info(
                    "the label %d counts as background in %d masks, such as %s",
                    *(label, len(masks), min(masks)),
                )


def foreground_mask(
    path: Path, values: NDArray[Any], labels: Labels | None = None
) -> NDArray[np.bool_]:
    """Return the foreground of a mask from the file `path`, which was stored without loss.

    Parameters
    ----------
    values
        Numbers of any shape. Without `labels`: 0, and at most one other level, which is the
        foreground. A mask that has one level only is empty if that level is 0, else full.
    labels
        The labels that are foreground.

    Raises
    ------
    BadInput
        Without `labels` there are more than two levels, or the lower of two is not 0; else as in
        `Labels.choose`.
    """
    if labels is not None:
        return labels.choose(path, values)
    if not ((values == 0) | (values == values.max())).all():
        raise BadInput(
            path,
            "mask",
            found=_name_levels(values),
            expected="two levels: 0 and one other",
            mend=f"{_MEND}; or save the mask with 0 outside and 255 inside",
        )
    return np.asarray(values != 0)
