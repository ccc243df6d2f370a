"""Calibration of a camera's response curve g(z) from exposure brackets.

`sample_bracket` chooses places in the images of a bracket, `calibrate_response` turns the samples
of many brackets into a curve with a report, `response_residual` judges any curve by samples.
Channels are BGR, g is in the ln domain with g(128) = 0 and belongs to the codes as they are in
the files.
"""

from asi_watch.hdr.calibration.calibrate import (
    calibrate_response,
    check_settings,
    response_residual,
)
from asi_watch.hdr.calibration.report import Calibration, CalibrationReport, ExposureCheck
from asi_watch.hdr.calibration.samples import BracketSamples
from asi_watch.hdr.calibration.sampling import SampleTechnique, sample_bracket

__all__ = [
    "BracketSamples",
    "Calibration",
    "CalibrationReport",
    "ExposureCheck",
    "SampleTechnique",
    "calibrate_response",
    "check_settings",
    "response_residual",
    "sample_bracket",
]
