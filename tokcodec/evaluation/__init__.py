"""`tokcodec eval`: rate and quality over a folder of videos, from real files, decoded afresh.

clips.py    which videos, and their frames
record.py   what is known of one clip, coded by one codec at one rate
store.py    records in a file of JSON lines, so that a run can go on where one stopped
measure.py  encode, decode, measure
curves.py   means over clips, and the anchor's curve at a given rate
report.py   lines for people, values for programs
plot.py     the rate-quality picture
"""

from tokcodec.evaluation.clips import VIDEO_SUFFIXES, Clip, find_clips, read_clip
from tokcodec.evaluation.curves import CurvePoint, at_rate, average, monotone_breaks
from tokcodec.evaluation.measure import EvalSettings, evaluate
from tokcodec.evaluation.record import Record
from tokcodec.evaluation.store import RecordStore

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "CurvePoint",
    "EvalSettings",
    "Record",
    "RecordStore",
    "at_rate",
    "average",
    "evaluate",
    "find_clips",
    "monotone_breaks",
    "read_clip",
]
