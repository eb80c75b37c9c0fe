"""From predictions, whoever made them, to figures.

`record` holds one image's prediction against its ground truth; `figures` turns records into a `Result`; `evaluate`
does both. `details` has the curves and the confusion matrix behind it. `resample` and `compare` say how sure the
difference between two predictors is.
"""

from tutored.evaluate.figures import Details, Record, details, evaluate, figures, record
from tutored.evaluate.resample import ENOUGH_SEEDS, Interval, Resampled, compare, resample
from tutored.evaluate.result import Result, table

__all__ = [
    "ENOUGH_SEEDS",
    "Details",
    "Interval",
    "Record",
    "Resampled",
    "Result",
    "compare",
    "details",
    "evaluate",
    "figures",
    "record",
    "resample",
    "table",
]
