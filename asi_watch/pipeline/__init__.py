"""Batch work over a directory or an archive: the functions of asi_core's HDR pipeline, and ours."""

from asi_watch.calibrate_brackets import CalibrationChoices
from asi_watch.pipeline import asi_core
from asi_watch.pipeline.archive import ArchiveSummary, RunChoices, merge_archive
from asi_watch.pipeline.asi_core import *  # noqa: F403 - its __all__ is what asi_core has
from asi_watch.pipeline.curves import calibrate_archive
from asi_watch.pipeline.find_brackets import ArchiveRules

__all__ = ["ArchiveRules", "ArchiveSummary", "CalibrationChoices", "RunChoices"]
__all__ += ["calibrate_archive", "merge_archive"]
__all__ += asi_core.__all__
