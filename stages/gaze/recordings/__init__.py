"""Gaze as people bring it: fixation tables, raw samples, or maps that were made elsewhere."""

from stages.gaze.recordings.reading import read_scans
from stages.gaze.recordings.scan import Scan

__all__ = ["Scan", "read_scans"]
