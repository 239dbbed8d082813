"""Raw files of a data set."""

from pathlib import Path

from rules.paths import MissingInput, folder_contents
from stages.core.config import LESIONS_ROOT, Config
from stages.data.datasets import layouts

# Files, not their folder: a user may put others beside them.
SCAN_FILES = [f"{LESIONS_ROOT}/{name}" for name in layouts.LAYOUTS["lesions"].required]


def raw_paths(config: Config, dataset: str) -> list[str]:
    """List the entries of the raw folder that the layout reads, or the folder of a phantom.

    Entries, not the folder: its own time stays the same when a split file changes.

    Raises
    ------
    MissingInput
        Entries are missing; one message names all of them.
    """
    settings = config.dataset(dataset)
    if settings.demo is not None:
        return [settings.root]
    if settings.fetched_by_workflow:
        return SCAN_FILES
    layout, root = settings.prepare.layout, Path(settings.root)
    fixations = None if settings.fixations is None else Path(settings.fixations)
    drawn = settings.prepare.split == "drawn"
    problem = layouts.describe_missing(layout, root, fixations, drawn, f"datasets.{dataset}.root")
    if problem is not None:
        raise MissingInput(problem)
    return [str(path) for path in layouts.list_inputs(layout, root, drawn)]


def raw_contents(config: Config, dataset: str) -> list[str]:
    """Digest the folders of the raw data, unless a rule draws them."""
    settings = config.dataset(dataset)
    if settings.demo is not None:
        return []
    drawn = settings.prepare.split == "drawn"
    present = layouts.list_inputs(settings.prepare.layout, Path(settings.root), drawn)
    return folder_contents(map(str, present))
