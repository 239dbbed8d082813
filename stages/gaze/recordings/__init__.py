"""Read recorded gaze: fixation tables, raw gaze samples, or finished maps.

In: a table (an export of an eye tracker, or any other whose columns the settings name), a text file
of edf2asc or a folder of maps, with the settings that describe it. Out: one `Scanpath` per image,
or one map file per image.
Start reading at `reading.py` (tables) or `maps.py` (maps). `presets.py` describes the exports as
data; `fixations.py`, `tobii.py`, `asc.py` and `samples.py` read them.
"""

from stages.gaze.recordings.reading import read_scanpaths
from stages.gaze.recordings.scan import Scanpath

__all__ = ["Scanpath", "read_scanpaths"]
