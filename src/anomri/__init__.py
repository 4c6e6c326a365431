"""anomri: find what is abnormal in a brain MRI scan, having learned only from healthy ones.

>>> import anomri
>>> method = anomri.load("itermask3d-t1w-2mm")
>>> scan = anomri.preprocess.run(method.pipeline(), anomri.read_scan({"T1w": "scan.nii.gz"}))    # doctest: +SKIP
>>> method.detect(scan).score                                                                   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomri import preprocess as preprocess
    from anomri.cohort import Cohort as Cohort
    from anomri.cohorts import open_cohort as open_cohort
    from anomri.errors import AnomriError as AnomriError
    from anomri.files import read_scan as read_scan
    from anomri.method import Method as Method
    from anomri.methods import METHODS as METHODS
    from anomri.methods import load as load
    from anomri.scan import Detection as Detection
    from anomri.scan import Scan as Scan

__version__ = "0.1.0"

_WHERE = {
    "AnomriError": "errors",
    "Cohort": "cohort",
    "Detection": "scan",
    "METHODS": "methods",
    "Method": "method",
    "Scan": "scan",
    "load": "methods",
    "open_cohort": "cohorts",
    "preprocess": "preprocess",
    "read_scan": "files",
}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    # Lazily, so that `anomri --help` need not wait for torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'anomri' has no attribute '{name}'")
    module = import_module(f"anomri.{_WHERE[name]}")
    return module if name == "preprocess" else getattr(module, name)
