"""The thesis' tables and figures and what lies beyond, as declared runs with seeds; their results; and one report."""

from __future__ import annotations

from tutored.studies.declare import Row, Study
from tutored.studies.folder import Standing, load_folder, open_folder, run_all, work
from tutored.studies.outcome import StudyOutcome, gather, rows_of, show
from tutored.studies.records import Record, read_records
from tutored.studies.report import write_report
from tutored.studies.setting import Run, Setting, choose, load_setting, plan, studies_of

__all__ = [
    "Record",
    "Row",
    "Run",
    "Setting",
    "Standing",
    "Study",
    "StudyOutcome",
    "choose",
    "gather",
    "load_folder",
    "load_setting",
    "open_folder",
    "plan",
    "read_records",
    "rows_of",
    "run_all",
    "show",
    "studies_of",
    "work",
    "write_report",
]
