"""Read recorded gaze: fixation tables, raw gaze samples, or finished maps.

In: a table (GazeMedSeg, EyeLink, Tobii or raw samples) or a folder of maps, with the settings that
describe it. Out: one `Scanpath` per image, or one map file per image.
Start reading at `reading.py` (tables) or `maps.py` (maps); `eyelink.py`, `tobii.py` and
`samples.py` each read one kind of table.
"""

from stages.gaze.recordings.reading import read_scanpaths
from stages.gaze.recordings.scan import Scanpath

__all__ = ["Scanpath", "read_scanpaths"]
