"""A study: methods x cases -> one tidy table, resumable scan by scan, and the tables that a paper makes of it."""

from anomri.study.engine import Result, run
from anomri.study.plan import Case, Change, Entrant, Plot, Row, Source, Study, Table, load
from anomri.study.summary import METRICS, Metric, Record, summarise

__all__ = [
    "METRICS",
    "Case",
    "Change",
    "Entrant",
    "Metric",
    "Plot",
    "Record",
    "Result",
    "Row",
    "Source",
    "Study",
    "Table",
    "load",
    "run",
    "summarise",
]
