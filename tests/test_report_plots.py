"""Figures of studies: what they show, on which axes, and that they stand partial and odd rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from anomri.metrics import case as cases
from anomri.report import plots
from anomri.report.canvas import style
from anomri.study import Case, Entrant, Plot, Row, Source, Study, Table, summarise

ARTEFACTS = ("chunk_top", "spike", "ghosting & ringing", "bias_field")
SEVERITIES = (0.25, 0.5, 1.0, 2.0, 4.0)
NASTY = "a|b & c_d % #1 <i>$x$</i>"


def study(entrants: Sequence[str] = ("IterMask3D", "DAE"), **parts: Any) -> Study:
    """Made up: controls, artefacts at five severities, and lesions of known volume."""
    cases_ = [Case("healthy", "data", anomalous=False)]
    cases_ += [
        Case(f"{name} {severity:g}", "data", against="healthy", facts={"artefact": name, "severity": severity})
        for name in ARTEFACTS
        for severity in SEVERITIES
    ]
    cases_ += [Case(f"tumour {ml} ml", "data", against="healthy", facts={"size_ml": ml}) for ml in (2, 10, 40)]
    source = Source(title="Data", variable="DATA", offered="nowhere", layout="BIDS")
    table = Table("detection", "Detection", ("AUROC", "AUPRC"))
    given: dict[str, Any] = {
        "tables": (table,), "measures": ("overlap",), "paper": "A paper, table 1", "title": "A study", "name": "made_up", **parts,
    }  # fmt: skip
    method = {"DAE": "not_there"}
    return Study(
        entrants={name: Entrant(method.get(name, "itermask3d"), model="t1w") for name in entrants},
        sources={"data": source},
        cases=cases_,
        **given,
    )


def rows_of(study: Study, scans: int = 12, seed: int = 0, entrants: Sequence[str] | None = None) -> list[Row]:
    """A row per entrant, case and scan; every eleventh failed, and some values are missing."""
    rng, rows = np.random.default_rng(seed), []
    for e, entrant in enumerate(entrants or study.entrants):
        for case in study.cases:
            for n in range(scans):
                strength = float(case.facts.get("severity", 0) or case.facts.get("size_ml", 0) or 0)
                score = rng.lognormal(1 + 0.5 * math.log1p(strength), 0.5) * (1 if e == 0 else 0.01)
                row: Row = {
                    "entrant": entrant, "case": case.name, "scan": f"sub-{n:02d}_T1w", "subject": f"sub-{n:02d}", "status": "done",
                    "message": "", "anomalous": int(case.anomalous), "against": case.against or "", **case.facts, "score": score,
                    "mean_error": score / 7, "mask_ml": 3 * score, "seconds": 1.5,
                }  # fmt: skip
                if "size_ml" in case.facts:
                    ml = strength * rng.lognormal(0, 0.3)
                    dice = float(np.clip(0.5 + 0.13 * math.log(ml) + rng.normal(0, 0.15) - 0.1 * e, 0, 1))
                    row |= {
                        "lesion_ml": ml,
                        "dice": dice,
                        "dice_best_scan_oracle": min(1.0, dice + 0.1),
                        "sensitivity": dice,
                    }
                    row |= {"assd_mm": None if dice == 0 else 5 * (1 - dice)}
                if scans > 1 and len(rows) % 11 == 10:
                    row = {
                        k: row[k] for k in ("entrant", "case", "scan", "subject", "anomalous", "against", *case.facts)
                    }
                    row |= {"status": "failed", "message": "BadInput: the brain is empty"}
                rows.append(row)
    return rows


def drawn(kind: str, rows: Sequence[Row], of: Study, y: str = "", x: str = "", **rest: Any) -> Figure:
    figure = plots.draw(Plot("p", "A plot", kind, y=y, x=x, **rest), rows, of)  # type: ignore[arg-type]
    # As saving does: the layout settles with the second drawing.
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> str:
    """All that can be read in a figure."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def panels(figure: Figure) -> list[Any]:
    return [axes for axes in figure.axes if axes.axison]


def dots(axes: Any) -> list[tuple[float, ...]]:
    """Heights of single scans, group by group: lines that are markers alone."""
    return [tuple(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "None"]


STUDY = study()
ROWS = rows_of(STUDY)
TUMOURS = ["tumour 2 ml", "tumour 10 ml", "tumour 40 ml"]
SPIKES = ["spike 0.5", "spike 4"]


def done(case: str, entrant: str, rows: Sequence[Row] = ROWS) -> list[Row]:
    return [r for r in rows if (r["case"], r["entrant"], r["status"]) == (case, entrant, "done")]


# --- forest --------------------------------------------------------------------------------------------------------


def test_a_forest_has_a_line_for_every_entrant_and_a_panel_for_every_case():
    figure = drawn("forest", ROWS, STUDY, y="dice", cases=TUMOURS)
    wanted = {
        (r.group[0], r.line[0]): r
        for r in summarise(STUDY, Table("t", "T", ("dice",), cases=TUMOURS), ROWS, lambda row: None)
    }
    first, *others = panels(figure)
    assert [label.get_text() for label in first.get_yticklabels()] == list(STUDY.entrants)
    for axes, case in zip((first, *others), TUMOURS, strict=True):
        for n, entrant in enumerate(STUDY.entrants):
            record = wanted[case, entrant]
            (dot,) = [line for line in axes.lines if line.get_marker() == "o" and list(line.get_ydata()) == [n]]
            assert list(dot.get_xdata()) == [pytest.approx(record.value)]
            (bar,) = [b for b in axes.collections if b.get_segments()[0][0][1] == n]
            assert [x for x, _ in bar.get_segments()[0]] == pytest.approx([record.low, record.high])
        assert axes.get_title(loc="left").startswith(case)
    assert "oracle" in texts(drawn("forest", ROWS, STUDY, y="dice_best_scan_oracle", cases=TUMOURS))


@pytest.mark.parametrize("kind", ["box", "scatter", "forest"])
def test_a_figure_of_some_entrants_shows_no_other(kind):
    both = Study(
        **{
            **vars(STUDY),
            "entrants": {"One": Entrant("itermask3d", model="t1w"), "Other": Entrant("itermask3d", model="t1w")},
        }
    )
    rows = rows_of(both)
    figure = drawn(
        kind, rows, both, y="dice", x="lesion_ml" if kind == "scatter" else "", cases=TUMOURS, entrants=["Other"]
    )
    assert "One" not in texts(figure)
    assert texts(figure) == texts(
        drawn(
            kind,
            [r for r in rows if r["entrant"] == "Other"],
            both,
            y="dice",
            x="lesion_ml" if kind == "scatter" else "",
            cases=TUMOURS,
        )
    )


# --- box -----------------------------------------------------------------------------------------------------------


def test_a_box_plot_has_a_dot_for_every_scan_that_was_done_in_percent():
    (axes,) = panels(drawn("box", ROWS, STUDY, y="dice", cases=TUMOURS))
    wanted = [tuple(100 * r["dice"] for r in done(case, e)) for case in TUMOURS for e in STUDY.entrants]
    assert dots(axes) == wanted
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["tumour 2 ml\nn = 10–11", "tumour 10 ml\nn = 11", "tumour 40 ml\nn = 11"]
    assert axes.get_ylabel() == "Dice, own mask (%)"
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["IterMask3D", "DAE"]


def test_scores_of_methods_never_share_an_axis_but_volumes_do():
    assert [axes.get_title(loc="left") for axes in panels(drawn("box", ROWS, STUDY, y="score", cases=SPIKES))] == [
        "IterMask3D",
        "DAE",
    ]
    assert len(panels(drawn("box", ROWS, STUDY, y="mask_ml", cases=SPIKES))) == 1


def test_controls_are_grey_and_the_legend_says_so():
    figure = drawn("box", ROWS, STUDY, y="mask_ml", cases=["healthy", "spike 4"])
    colours = [line.get_color() for axes in panels(figure) for line in axes.lines if line.get_linestyle() == "None"]
    assert colours[:2] == [plots.SOFT] * 2
    assert plots.SOFT not in colours[2:]
    assert "healthy controls" in texts(figure)


def test_an_oracle_says_so_on_its_axis():
    (axes,) = panels(drawn("box", ROWS, STUDY, y="dice_best_scan_oracle", cases=TUMOURS))
    assert "oracle" in axes.get_ylabel()
    (axes,) = panels(drawn("scatter", ROWS, STUDY, y="dice_best_scan_oracle", x="lesion_ml"))
    assert "oracle" in axes.get_ylabel()


def test_rows_of_one_panel_share_their_range():
    (first, second) = panels(drawn("box", [r for r in ROWS if r["entrant"] == "DAE"], STUDY, y="score"))
    assert first.get_ylim() == second.get_ylim()


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "", "n/a", True])
def test_what_is_no_number_is_left_out(value: Any):
    rows = [{**r, "dice": value} if r["case"] == "tumour 2 ml" and r["scan"] != "sub-03_T1w" else r for r in ROWS]
    (axes,) = panels(drawn("box", rows, STUDY, y="dice", cases=TUMOURS))
    assert [len(group) for group in dots(axes)][:2] == [1, 1]


# --- ROC and PR ----------------------------------------------------------------------------------------------------


def test_a_roc_is_the_curve_of_a_case_against_its_controls():
    figure = drawn("roc", ROWS, STUDY, cases=SPIKES)
    assert len(panels(figure)) == 2
    for axes, case in zip(panels(figure), SPIKES, strict=True):
        for line, entrant in zip(
            [line for line in axes.lines if line.get_label()[0] != "_"], STUDY.entrants, strict=True
        ):
            rows = [*done("healthy", entrant), *done(case, entrant)]
            scores, truth = [r["score"] for r in rows], [bool(r["anomalous"]) for r in rows]
            fpr, tpr, _ = cases.roc(scores, truth)
            np.testing.assert_allclose(line.get_xdata(), 100 * fpr)
            np.testing.assert_allclose(line.get_ydata(), 100 * tpr)
            assert f"{entrant} {100 * cases.auroc(scores, truth):.1f} [" in line.get_label()
    assert "11 anomalous, 11 healthy" in texts(figure)


def test_a_pr_curve_encloses_the_average_precision():
    figure = drawn("pr", ROWS, STUDY, cases=SPIKES)
    for axes, case in zip(panels(figure), SPIKES, strict=True):
        for line, entrant in zip(
            [line for line in axes.lines if line.get_label()[0] != "_"], STUDY.entrants, strict=True
        ):
            rows = [*done("healthy", entrant), *done(case, entrant)]
            x, y = line.get_xdata() / 100, line.get_ydata() / 100
            wanted = cases.auprc([r["score"] for r in rows], [bool(r["anomalous"]) for r in rows])
            assert line.get_drawstyle() == "steps-pre"
            assert np.sum(np.diff(x) * y[1:]) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_a_band_holds_its_curve_and_grows_with_fewer_subjects(kind: str):
    rng = np.random.default_rng(5)
    truth = np.repeat([False, True], [60, 40])
    scores = rng.normal(size=100) + 1.2 * truth
    each = [f"s{n}" for n in range(100)]
    x, low, high = plots.curve_band(kind, scores, truth, each)
    assert x.shape == low.shape == high.shape == (101,)
    assert (low <= high).all()
    assert low.min() >= 0
    assert high.max() <= 1
    at, y = plots._curve_of(kind, scores, truth)
    curve = np.interp(x, at, y) if kind == "roc" else y[np.searchsorted(at, x - 1e-12).clip(max=len(at) - 1)]
    assert np.mean((low - 1e-9 <= curve) & (curve <= high + 1e-9)) > 0.95
    # Five scans of each subject are worth fewer than five subjects.
    _, few_low, few_high = plots.curve_band(
        kind, np.repeat(scores[::5], 5), np.repeat(truth[::5], 5), [f"s{n // 5}" for n in range(100)]
    )
    assert (few_high - few_low).mean() > 1.25 * (high - low).mean()


def test_a_band_is_where_resamples_lie():
    """Against a plain bootstrap of the true positive rate at a false positive rate of 0.5."""
    rng = np.random.default_rng(8)
    truth = np.repeat([False, True], [200, 150])
    scores = rng.normal(size=350) + truth
    _, low, high = plots.curve_band("roc", scores, truth, [f"s{n}" for n in range(350)])
    found = []
    for _ in range(1000):
        healthy, ill = rng.choice(scores[:200], 200), rng.choice(scores[200:], 150)
        fpr, tpr, _ = cases.roc([*healthy, *ill], truth)
        found.append(np.interp(0.5, fpr, tpr))
    # Drawing without replacement would give a band narrower by a quarter.
    wanted = np.quantile(found, [0.025, 0.975])
    assert high[50] - low[50] == pytest.approx(np.ptp(wanted), rel=0.12)
    np.testing.assert_allclose([low[50], high[50]], wanted, atol=0.015)


def test_subjects_of_both_classes_keep_their_pair():
    """A subject whose two scans always rank alike: with pairs kept, the curve of one subject cannot leave the diagonal's side."""
    scores, truth = np.array([1.0, 2.0, 1.0, 2.0]), np.array([False, True, False, True])
    _, low, high = plots.curve_band("roc", scores, truth, ["a", "a", "b", "b"], rounds=50)
    assert (low == 1).all()
    assert (high == 1).all()


def test_without_controls_a_roc_says_so():
    rows = [r for r in ROWS if r["case"] != "healthy"]
    for kind in ("roc", "pr"):
        assert "No anomalous scans with controls" in texts(drawn(kind, rows, STUDY)).replace("\n", " ")


def test_many_lines_have_no_bands():
    many = study([f"M{n}" for n in range(7)])
    rows = rows_of(many, 6)
    (axes,) = panels(drawn("roc", rows, many, cases=["spike 4"]))
    assert not axes.collections
    (axes,) = panels(drawn("roc", rows[: len(rows) * 2 // 7], many, cases=["spike 4"]))
    assert len(axes.collections) == 2


# --- curves and dots -----------------------------------------------------------------------------------------------


def test_a_curve_has_the_values_of_the_summary_at_each_severity():
    (axes,) = panels(drawn("curve", ROWS, STUDY, y="mask_ml", x="severity", cases=[f"spike {s:g}" for s in SEVERITIES]))
    for line, entrant in zip(axes.lines, STUDY.entrants, strict=True):
        wanted = [np.mean([r["mask_ml"] for r in done(f"spike {s:g}", entrant)]) for s in SEVERITIES]
        assert tuple(line.get_xdata()) == SEVERITIES
        np.testing.assert_allclose(line.get_ydata(), wanted)
    assert axes.get_xlabel() == "Severity"
    assert axes.get_ylabel() == "Mask (ml)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.25", "0.5", "1", "2", "4"]


def test_curves_by_a_fact_have_a_panel_per_entrant_and_never_pool_two():
    figure = drawn("curve", ROWS, STUDY, y="AUROC", x="severity", by="artefact")
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    assert titles == ["IterMask3D, n = 10–11 at each point", "DAE, n = 10–11 at each point"]
    rows = [*done("healthy", "DAE"), *done("spike 4", "DAE")]
    wanted = 100 * cases.auroc([r["score"] for r in rows], [bool(r["anomalous"]) for r in rows])
    assert panels(figure)[1].lines[1].get_ydata()[-1] == pytest.approx(wanted)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ARTEFACTS)


def test_lines_of_many_have_bars_beside_each_other_inside_the_axes():
    many = study([f"M{n}" for n in range(6)])
    figure = drawn("curve", rows_of(many, 4), many, y="mask_ml", x="severity")
    (axes,) = panels(figure)
    box = axes.get_window_extent()
    ends = [line.get_transform().transform(np.column_stack(line.get_data())) for line in axes.lines]
    assert all(box.x0 < x < box.x1 for end in ends for x in end[:, 0])
    assert len({round(float(end[0, 0]), 1) for end in ends}) == 6


def test_a_fact_of_words_is_an_axis_too():
    (axes,) = panels(drawn("curve", ROWS, STUDY, y="mask_ml", x="artefact"))
    assert [label.get_text() for label in axes.get_xticklabels()] == list(ARTEFACTS)


def test_a_scatter_has_a_dot_per_scan_on_a_log_axis_of_ml():
    rows = [{**r, "lesion_ml": 0.0} if r["scan"] == "sub-05_T1w" else r for r in ROWS]
    (axes,) = panels(drawn("scatter", rows, STUDY, y="dice", x="lesion_ml"))
    assert axes.get_xscale() == "log"
    for line, entrant in zip(axes.lines, STUDY.entrants, strict=True):
        own = [r for case in TUMOURS for r in done(case, entrant) if r["scan"] != "sub-05_T1w"]
        assert sorted(line.get_xdata()) == sorted(r["lesion_ml"] for r in own)
        assert sorted(line.get_ydata()) == sorted(100 * r["dice"] for r in own)
        assert line.get_label() == f"{entrant}, n = {len(own)}"
    assert axes.get_xlabel() == "Lesion (ml)"


# --- all kinds -----------------------------------------------------------------------------------------------------

EVERY: list[Mapping[str, Any]] = [
    {"kind": "box", "y": "score"}, {"kind": "box", "y": "mask_ml", "x": "severity", "by": "artefact"}, {"kind": "roc"},
    {"kind": "pr", "by": "artefact"}, {"kind": "curve", "y": "AUROC", "x": "severity"}, {"kind": "scatter", "y": "dice", "x": "lesion_ml"},
    {"kind": "forest", "y": "dice"},
]  # fmt: skip


@pytest.mark.parametrize("plot", EVERY, ids=lambda plot: plot["kind"])
@pytest.mark.parametrize("rows", ["none", "failed", "one scan", "one entrant"])
def test_every_figure_stands_few_rows(plot: Mapping[str, Any], rows: str):
    small = [r for r in ROWS if r["entrant"] == "IterMask3D" and r["case"] in ("healthy", "spike 4", "tumour 2 ml")]
    given = {
        "none": [], "failed": [{**r, "status": "failed"} for r in small], "one scan": [r for r in small if r["subject"] == "sub-01"],
        "one entrant": small,
    }[rows]  # fmt: skip
    figure = drawn(rows=given, of=STUDY, **plot)
    assert ("Nothing was measured" in texts(figure) or "No anomalous scans" in texts(figure)) == (
        rows in ("none", "failed")
    )


def test_an_entrant_has_one_colour_in_every_figure():
    only = [r for r in ROWS if r["entrant"] == "DAE"]
    colours = set()
    for plot in ({"kind": "roc"}, {"kind": "curve", "y": "AUROC", "x": "severity"}):
        figure = drawn(rows=only, of=STUDY, cases=[f"spike {s:g}" for s in SEVERITIES], **plot)
        colours |= {line.get_color() for line in panels(figure)[0].lines if line.get_linewidth() > 1}
    assert colours == {style(1).colour}


def test_colours_stay_apart_without_colour_by_marker_and_dash():
    looks = [(style(n).colour, style(n).marker, style(n).dash) for n in range(32)]
    assert len(set(looks)) == 32
    assert len({(marker, dash) for _, marker, dash in looks[:8]}) == 8


@pytest.mark.parametrize("plot", EVERY, ids=lambda plot: plot["kind"])
def test_nothing_is_clipped_and_no_labels_overlap(plot: Mapping[str, Any]):
    figure = drawn(rows=ROWS, of=STUDY, **plot, cases=["healthy", *SPIKES, *TUMOURS, "ghosting & ringing 2"])
    whole = figure.bbox
    for axes in panels(figure):
        box = axes.get_tightbbox()
        assert box.x0 >= whole.x0 - 1
        assert box.y0 >= whole.y0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
        shown = [
            label.get_window_extent()
            for label in axes.get_xticklabels()
            if label.get_text() and not label.get_rotation()
        ]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(shown))


def test_the_same_rows_give_the_same_svg_and_names_are_escaped():
    nasty = study((NASTY, "B"))
    plot = Plot("p", "t", "scatter", y="dice", x="lesion_ml")
    first, again = (plots.svg(plots.draw(plot, rows_of(nasty, 3), nasty)) for _ in range(2))
    assert first == again
    assert first.startswith("<?xml")
    assert "<i>" not in first


LONG = ("IterMask3D", "IterMask3D at a fixed threshold of healthy scans")


@pytest.mark.parametrize("plot", EVERY, ids=lambda plot: plot["kind"])
def test_long_names_leave_room_for_what_is_drawn(plot: Mapping[str, Any]):
    of = study(LONG)
    figure = drawn(rows=rows_of(of, 6), of=of, **plot, cases=["healthy", *SPIKES, *TUMOURS])
    for axes in panels(figure):
        box = axes.get_window_extent()
        assert min(box.width, box.height) / figure.dpi > 1
        assert axes.get_tightbbox().x1 <= figure.bbox.x1 + 1
