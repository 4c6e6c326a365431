"""From rows of scans to the cells of tables: means, intervals, tests, and what the paper printed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

import numpy as np

from anomri.errors import unknown
from anomri.metrics import case as cases
from anomri.metrics import oracle, statistics
from anomri.metrics.histogram import VoxelHistogram
from anomri.study.plan import SIZES, Cell, Row, Study, Table

Histograms = Callable[[Row], VoxelHistogram | None]


@dataclass(frozen=True)
class Metric:
    """What a cell of a table can be.

    Parameters
    ----------
    kind : scan (a column of the rows, averaged over scans), case (from the scores of anomalous scans and their controls) or
        dataset (from all maps of a case together)
    unit : "%" (shown times 100), "mm", "dB", "ml" or ""
    oracle : found with the labels of the very scans that it is told of: an upper bound, never a result
    labelled : found with the labels of other scans: not label-free
    better : +1 where higher is better, -1 where lower is, 0 where neither
    column, quantile : of a scan metric, the column of the rows, its own name by default, and which quantile over subjects it is, instead
        of their mean
    """

    name: str
    title: str
    kind: Literal["scan", "case", "dataset"]
    unit: str = "%"
    oracle: bool = False
    better: int = 1
    labelled: bool = False
    column: str = ""
    quantile: float | None = None

    def shown(self, value: float | None) -> float | None:
        """A value in the unit that it is shown in; None where it is not a number."""
        if value is None or not np.isfinite(value):
            return None
        return float(value) * 100 if self.unit == "%" else float(value)


def _metrics() -> dict[str, Metric]:
    found = [
        *(Metric(name, name, "case", better=-1 if name.startswith(("FPR", "FNR")) else 1) for name in cases.CASE_METRICS),
        Metric("dice", "Dice, own mask", "scan"),
        Metric("sensitivity", "Sensitivity", "scan"),
        Metric("precision", "Precision", "scan"),
        Metric("jaccard", "Jaccard", "scan"),
        Metric("missed", "Scans missed", "scan", better=-1),
        Metric("voxel_auroc", "Voxel AUROC", "scan"),
        Metric("voxel_auprc", "Voxel AUPRC", "scan"),
        Metric("slice_auprc", "Slice-wise AUPRC, axial", "scan"),
        Metric("dice_best_scan_oracle", "Dice, best threshold of each scan", "scan", oracle=True),
        Metric("dice_best_dataset_oracle", "Dice, best threshold of the data set", "dataset", oracle=True),
        Metric("dice_best_pooled_oracle", "DICE_D, best threshold of the data set", "dataset", oracle=True),
        Metric("dice_pooled", "DICE_D, own masks", "dataset"),
        Metric("sensitivity_best_dataset_oracle", "Sensitivity, best threshold of the data set", "dataset", oracle=True),
        Metric("precision_best_dataset_oracle", "Precision, best threshold of the data set", "dataset", oracle=True),
        Metric("jaccard_best_dataset_oracle", "Jaccard, best threshold of the data set", "dataset", oracle=True),
        Metric("dice_labelled_validation", "Dice, threshold of labelled validation scans", "dataset", labelled=True),
        Metric("dice_pooled_labelled_validation", "DICE_D, threshold of labelled validation scans", "dataset", labelled=True),
        Metric("voxel_auroc_pooled", "Voxel AUROC, pooled", "dataset"),
        Metric("voxel_auprc_pooled", "Voxel AUPRC, pooled", "dataset"),
        Metric("assd_mm", "ASSD", "scan", "mm", better=-1),
        Metric("hd95_mm", "HD95", "scan", "mm", better=-1),
        Metric("region_distance_mm", "Region distance, printed as ASSD", "scan", "mm", better=-1),
        Metric("lesion_f1", "Lesion F1", "scan"),
        Metric("lesion_sensitivity", "Lesion sensitivity", "scan"),
        Metric("lesion_precision", "Lesion precision", "scan"),
        Metric("psnr_db", "PSNR", "scan", "dB"),
        Metric("ssim", "SSIM", "scan"),
        Metric("l1", "L1", "scan", "", better=-1),
        Metric("l1_ratio", "L1 ratio", "scan", ""),
        Metric("mask_ml", "Mask", "scan", "ml", better=0),
        Metric("mask_ml_median", "Mask, median", "scan", "ml", better=0, column="mask_ml", quantile=0.5),
        Metric("mask_ml_p95", "Mask, 95th percentile", "scan", "ml", better=0, column="mask_ml", quantile=0.95),
        Metric("lesion_ml", "Lesion", "scan", "ml", better=0),
        Metric("volume_ml", "Volume", "scan", "ml", better=0),
        Metric("mean_error", "Mean error", "scan", "", better=0),
        Metric("r2", "R2 of the fit", "scan", "", better=0),
        Metric("seconds_detect", "Seconds of detection", "scan", "", better=-1),
        Metric("parameters_million", "Parameters, million", "scan", "", better=0),
        Metric("dice_best_iteration_oracle", "Dice, best iteration of each scan", "scan", oracle=True),
    ]  # fmt: skip
    return {metric.name: metric for metric in found}


METRICS: dict[str, Metric] = _metrics()
"""By the names that a study's tables use. Case metrics are `metrics.case.CASE_METRICS`."""


@dataclass(frozen=True)
class Record:
    """A cell of a table: one metric of one group of rows.

    `value`, `sd`, `low`, `high` and `expected` are in the metric's unit as shown (percent times 100), None where unknown; `low` and
    `high` are a 95 % bootstrap interval over subjects; `n` is the number of scans that have the value (anomalous ones for a case
    metric); `p` the Holm-corrected p of a permutation test against the table's reference, paired by subject.
    """

    line: tuple[Cell, ...]
    group: tuple[Cell, ...]
    metric: str
    value: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    expected: float | None = None
    p: float | None = None
    note: str = ""


def summarise(study: Study, table: Table, rows: Sequence[Row], histograms: Histograms) -> list[Record]:
    """The cells of a table: of every line and group that its entrants and cases make, run or not, and every metric.

    Raises `BadCall` for an unknown metric.
    """
    for name in table.metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    done = [row for row in rows if row["status"] == "done"]
    names = tuple(table.entrants or study.entrants)
    chosen = [study.case(name) for name in table.cases] if table.cases else list(study.cases)
    sizes = [name for name in (*table.rows, *table.across) if name in SIZES]
    cells: dict[tuple[tuple[Cell, ...], tuple[Cell, ...]], list[Row]] = {}
    for entrant in names:
        for case in chosen:
            facts: Row = {"entrant": entrant, "case": case.name, **case.facts}
            own = [row for row in done if row["entrant"] == entrant and row["case"] == case.name]
            for measured in itertools.product(*(SIZES[name] for name in sizes)):
                here = facts | dict(zip(sizes, measured, strict=True))
                line, group = (tuple(here.get(name) for name in keys) for keys in (table.rows, table.across))
                found = cells.setdefault((line, group), [])
                found += [row for row in own if all(row.get(name) == here[name] for name in sizes)]
    records = []
    for (line, group), own in cells.items():
        for name in table.metrics:
            said = _cell(METRICS[name], table.score, own, done, study, histograms)
            where = (", ".join(map(str, line)), ", ".join(map(str, group)), name)
            records.append(replace(said, line=line, group=group, expected=table.expected.get(where)))
    return _tested(table, records, cells)


def _cell(
    metric: Metric, score: str, own: Sequence[Row], done: Sequence[Row], study: Study, histograms: Histograms
) -> Record:
    """One metric of some rows."""
    empty = Record((), (), metric.name, None)
    if metric.kind == "case":
        return _detection(metric, score, own, done) or empty
    if metric.kind == "dataset":
        value, n = _dataset(metric.name, own, done, study, histograms)
        return replace(empty, value=metric.shown(value), n=n)
    values, subjects = _values(metric.column or metric.name, own)
    if not values:
        return empty
    means = list(_by_subject(values, subjects).values())
    if metric.quantile is not None:
        value = float(np.quantile(means, metric.quantile))
        return replace(empty, value=metric.shown(value), n=len(values))
    mean, sd = statistics.mean_sd(means)
    low, high = statistics.mean_interval(means) if len(means) > 1 else (None, None)
    return replace(
        empty,
        value=metric.shown(mean),
        sd=metric.shown(sd),
        low=metric.shown(low),
        high=metric.shown(high),
        n=len(values),
    )


def _values(column: str, rows: Sequence[Row]) -> tuple[list[float], list[str]]:
    """A column's numbers, and whose they are."""
    found = [(float(row[column]), row["subject"]) for row in rows if _is_number(row.get(column))]
    return [v for v, _ in found], [s for _, s in found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not np.isnan(value)


def _by_subject(values: Sequence[float], subjects: Sequence[str]) -> dict[str, float]:
    """Each subject's mean over its scans, in order of first appearance."""
    own: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        own.setdefault(subject, []).append(value)
    return {subject: float(np.mean(found)) for subject, found in own.items()}


def _detection(metric: Metric, score: str, own: Sequence[Row], done: Sequence[Row]) -> Record | None:
    """A case metric of anomalous rows against their controls; None where none of either has the score."""
    anomalous = [row for row in own if row["anomalous"] and _is_number(row.get(score))]
    wanted = {(row["entrant"], row["against"]) for row in anomalous}
    controls = [row for row in done if (row["entrant"], row["case"]) in wanted and not row["anomalous"] and _is_number(row.get(score))]  # fmt: skip
    if not anomalous or not controls:
        return None
    both = [*controls, *anomalous]
    scores, truth = (
        np.array([row[score] for row in both], dtype=float),
        np.array([bool(row["anomalous"]) for row in both]),
    )
    compute = cases.CASE_METRICS[metric.name]
    low = high = None
    if all(len({row["subject"] for row in one}) > 1 for one in (anomalous, controls)):
        subjects = [row["subject"] for row in both]
        if metric.name == "AUROC":
            low, high = statistics.auroc_interval(scores, truth, subjects)
        else:
            low, high = statistics.case_interval(compute, scores, truth, subjects, rounds=2000)
    return Record(
        (),
        (),
        metric.name,
        metric.shown(compute(scores, truth)),
        low=metric.shown(low),
        high=metric.shown(high),
        n=len(anomalous),
    )


def _dataset(
    name: str, own: Sequence[Row], done: Sequence[Row], study: Study, histograms: Histograms
) -> tuple[float | None, int]:
    """A metric of all maps, or all masks, together."""
    if name == "dice_pooled":
        known = [row for row in own if isinstance(row.get("both_ml"), int | float)]
        total = sum(row["mask_ml"] + row["lesion_ml"] for row in known)
        return (2 * sum(row["both_ml"] for row in known) / total if total else None), len(known)
    kept = [h for row in own if (h := histograms(row)) is not None]
    if not kept:
        return None, 0
    if name.endswith("_best_dataset_oracle"):
        threshold = oracle.best_dice_dataset_oracle(kept)[1]
        found = [oracle.overlap_at(h, threshold)[name.removesuffix("_best_dataset_oracle")] for h in kept]
        return _mean(found), len(kept)
    pooled = reduce(add, kept)
    if name == "dice_best_pooled_oracle":
        return oracle.best_pooled_dice_oracle(kept)[0], len(kept)
    if name.startswith("voxel_"):
        return (pooled.auroc() if name == "voxel_auroc_pooled" else pooled.auprc()), len(kept)
    validation = _validation(own, done, study, histograms)
    if not validation:
        return None, 0
    threshold = oracle.labelled_validation_threshold(validation)
    if name == "dice_pooled_labelled_validation":
        return oracle.dice_at(pooled, threshold), len(kept)
    return _mean([oracle.dice_at(h, threshold) for h in kept]), len(kept)


def _validation(own: Sequence[Row], done: Sequence[Row], study: Study, histograms: Histograms) -> list[VoxelHistogram]:
    """The histograms of the labelled scans that give the threshold of some rows.

    None where rows disagree on them, or where one of the rows' own subjects is among them: that would be an oracle.
    """
    labelled = {(row["entrant"], study.case(row["case"]).threshold_from) for row in own}
    if len(labelled) != 1:
        return []
    theirs = [row for row in done if (row["entrant"], row["case"]) in labelled]
    ours, others = (
        {(study.sources[study.case(row["case"]).source].variable, row["subject"]) for row in rows}
        for rows in (own, theirs)
    )
    if ours & others:
        return []
    return [h for row in theirs if (h := histograms(row)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _tested(
    table: Table, records: list[Record], cells: Mapping[tuple[tuple[Cell, ...], tuple[Cell, ...]], Sequence[Row]]
) -> list[Record]:
    """The records with p-values of scan metrics against the reference's line, Holm-corrected over the table."""
    if table.reference is None or "entrant" not in table.rows:
        return records
    at = table.rows.index("entrant")
    tested: dict[int, float] = {}
    for index, record in enumerate(records):
        metric = METRICS[record.metric]
        if metric.kind != "scan" or metric.quantile is not None or record.line[at] == table.reference:
            continue
        other = (*record.line[:at], table.reference, *record.line[at + 1 :])
        ours, theirs = (
            {(row["case"], row["scan"]): row for row in cells.get((line, record.group), ()) if _is_number(row.get(record.metric))}
            for line in (record.line, other)
        )  # fmt: skip
        paired = sorted(ours.keys() & theirs.keys())
        a, b = (_by_subject(*_values(record.metric, [rows[k] for k in paired])) for rows in (ours, theirs))
        if len(a) > 1:
            tested[index] = statistics.permutation_test(list(a.values()), list(b.values()))
    corrected = dict(zip(tested, statistics.holm(list(tested.values())), strict=True)) if tested else {}
    return [replace(record, p=float(corrected[i])) if i in corrected else record for i, record in enumerate(records)]
