"""Pages and figures: what they hold, what they must never hold, and that partial detections get theirs too."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomri.errors import BadInput
from anomri.report import case, cohort, figures
from anomri.scan import Detection, Scan, Trace

SHAPE = (34, 42, 27)
AFFINE = np.array([[2.0, 0, 0, -31], [0, 2.5, 0, -50], [0, 0, 3.0, -22], [0, 0, 0, 1]])
HOSTILE = "\"><script>alert('x')</script></title>&"


def detection(
    channels: int = 1, affine: np.ndarray = AFFINE, shape: tuple[int, int, int] = SHAPE, **facts: Any
) -> Detection:
    """A made-up brain with one bright lesion at the patient's right, in front and above."""
    rng = np.random.default_rng(3)
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    brain = (place**2).sum(axis=0) < 0.72
    lesion = ((place - np.array([0.4, 0.35, 0.3])[:, None, None, None]) ** 2).sum(axis=0) < 0.02
    image = rng.normal(0, 0.25, (channels, *shape)) + np.sin(4 * place[0]) * 0.5
    image = np.where(brain, image + 6 * lesion, 0).astype(np.float32)
    healthy = np.where(brain, image - 6 * lesion, 0).astype(np.float32)
    error = (((image - healthy) ** 2).mean(axis=0) + rng.gamma(2, 0.02, shape)) * brain
    tau = np.quantile(error[brain], np.linspace(0.01, 1, 100)).astype(np.float32)
    order = np.where(brain, np.searchsorted(tau, error), 0).astype(np.uint8)
    stops = {
        "mask": {"gamma": 0.05, "t": 95, "tau": float(tau[94]), "ml": 9.0},
        "score": {"gamma": 0.01, "t": 90, "tau": float(tau[89]), "ml": 12.0},
    }
    known = {"fit": "tangent", "a": 0.03, "b": 0.0155, "T": 98, "r2": 0.98, "slope": [0.0] * 100, "stops": stops}
    scan = Scan(image, affine, id="sub-07", brain=brain, sequences=("T1w", "FLAIR")[:channels])
    return Detection(
        scan, error.astype(np.float32), {"volume_ml": 12.3, "mean_error": 0.04}, lesion & brain, healthy, Trace(order, tau, known),
        {"method": "itermask3d", "arguments": {"gamma_mask": 0.05}, "seconds": {"shrink": 8.25, "total": 9.5}, **facts},
    )  # fmt: skip


def turned(d: Detection, axes: tuple[int, int, int], flips: tuple[int, ...]) -> Detection:
    """The same brain in another order of axes: new axis n is old axis `axes[n]`, flipped where n is in `flips`."""
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for new, old in enumerate(axes):
        back[old, new] = -1 if new in flips else 1
        back[old, 3] = d.scan.grid.shape[old] - 1 if new in flips else 0

    def turn(x: np.ndarray) -> np.ndarray:
        lead = x.ndim - 3
        return np.flip(x.transpose(*range(lead), *(a + lead for a in axes)), [f + lead for f in flips])

    assert d.mask is not None
    assert d.healthy is not None
    assert d.trace is not None
    scan = Scan(
        turn(d.scan.image), d.scan.affine @ back, id=d.scan.id, brain=turn(d.scan.brain), sequences=d.scan.sequences
    )
    return Detection(
        scan,
        turn(d.map),
        d.scores,
        turn(d.mask),
        turn(d.healthy),
        Trace(turn(d.trace.order), d.trace.tau, d.trace.facts),
        d.facts,
    )


def minimal() -> Detection:
    """What the plainest method gives: a map and a score."""
    return dataclasses.replace(detection(), mask=None, healthy=None, trace=None, facts={}, scores={"mean_error": 0.25})


def page(d: Detection, folder: Path) -> str:
    case.write(d, folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8")


def decoded(text: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The data and volumes of a page, read independently of the viewer."""
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    volumes = {}
    for name, packed in re.findall(
        r'<script type="application/octet-stream" id="volume-(\w+)">(.*?)</script>', text, re.S
    ):
        volume = np.frombuffer(gzip.decompress(base64.b64decode(packed)), dtype=np.uint8).reshape(data["shape"])
        if name.startswith(("image", "healthy")):
            volume = np.cumsum(volume, axis=2, dtype=np.uint8)
        volumes[name] = volume
    return data, volumes


class Outline(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def needs_nothing(text: str) -> None:
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    assert "//cdn" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "eval(" not in text
    for tag, attributes in Outline(text).elements:
        assert tag not in ("iframe", "object", "embed", "img", "audio", "video", "base"), tag
        for name, value in attributes.items():
            if name in ("src", "action", "srcset", "data", "poster"):
                pytest.fail(f"<{tag} {name}={value!r}> loads something")
            if name == "href":
                assert re.fullmatch(r"data:,|\./[^/:]+\.html", value or ""), value
            assert not name.startswith("on"), f"<{tag} {name}> runs code from an attribute"


# --- the case page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [detection, minimal, lambda: detection(channels=2)], ids=["full", "minimal", "two sequences"]
)
def test_page_needs_no_network(build: Any, tmp_path: Path) -> None:
    text = page(build(), tmp_path)
    needs_nothing(text)
    assert len(text.encode()) < 8_000_000
    assert "sub-07" in text
    assert "research use" in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_page_is_the_same_twice(tmp_path: Path) -> None:
    assert page(detection(), tmp_path) == page(detection(), tmp_path)


def test_parts_that_a_method_lacks_are_left_out(tmp_path: Path) -> None:
    full, least = page(detection(), tmp_path), page(minimal(), tmp_path)
    for part in ('id="step"', 'id="curve"', 'name="mask"', 'id="volume-healthy0"', 'id="own"'):
        assert part in full, part
        assert part not in least, part
    for without in ("mask", "healthy", "trace"):
        text = page(dataclasses.replace(detection(), **{without: None}), tmp_path)
        assert ('id="step"' in text) == (without != "trace")
        assert ('id="own"' in text) == (without == "healthy")


def test_volumes_carry_the_detection(tmp_path: Path) -> None:
    d = detection(channels=2)
    data, volumes = decoded(page(d, tmp_path))
    assert set(volumes) == {"image0", "image1", "healthy0", "healthy1", "map", "mask", "order"}
    # Where the page's box lies on the grid of the scan.
    start = np.rint(np.linalg.inv(d.scan.affine) @ np.array([*np.array(data["affine"])[:3, 3], 1]))[:3].astype(int)
    box = tuple(slice(s, s + n) for s, n in zip(start, data["shape"], strict=True))
    brain, outside = d.scan.brain[box], d.scan.brain.copy()
    outside[box] = False
    assert not outside.any(), "the box cuts the brain"
    assert d.mask is not None
    assert d.healthy is not None
    assert d.trace is not None
    np.testing.assert_array_equal(volumes["mask"] > 0, d.mask[box])
    np.testing.assert_array_equal(volumes["order"], d.trace.order[box])
    np.testing.assert_array_equal(volumes["map"] > 0, brain)
    top = data["map"]["top"]
    told = data["map"]["low"] + (top - data["map"]["low"]) * ((volumes["map"][brain] - 1.0) / 254) ** 2
    assert np.abs(np.sqrt(told) - np.sqrt(d.map[box][brain])).max() <= 0.51 / 254 * np.sqrt(top)
    for c in range(2):
        low, high = data["windows"][c]
        for name, source in (("image", d.scan.image), ("healthy", d.healthy)):
            told = low + (high - low) * (volumes[f"{name}{c}"][brain] - 1.0) / 254
            assert np.abs(told - np.clip(source[c][box][brain], low, high)).max() <= 0.51 / 254 * (high - low)
            assert (volumes[f"{name}{c}"][~brain] == 0).all()


def test_volumes_in_ml_are_of_the_full_grid(tmp_path: Path) -> None:
    d = detection()
    data, volumes = decoded(page(d, tmp_path))
    assert d.mask is not None
    assert d.trace is not None
    assert data["mask"]["ml"] == pytest.approx(d.mask.sum() * 0.015)
    for t in (0, 1, 50, 95, 99, 100):
        assert data["trace"]["ml"][t] == pytest.approx(((d.trace.order >= t) & d.scan.brain).sum() * 0.015, abs=0.001)
    for code in (1, 2, 40, 255):
        assert data["map"]["above_ml"][code] == pytest.approx((volumes["map"] >= code).sum() * 0.015, abs=0.001)


@pytest.mark.parametrize(
    ("axes", "flips"), [((0, 1, 2), (0,)), ((0, 1, 2), (0, 1)), ((2, 0, 1), (1, 2)), ((1, 2, 0), ())]
)
def test_any_order_of_axes_gives_the_same_page(
    axes: tuple[int, int, int], flips: tuple[int, ...], tmp_path: Path
) -> None:
    straight, straight_volumes = decoded(page(detection(), tmp_path))
    other, other_volumes = decoded(page(turned(detection(), axes, flips), tmp_path))
    np.testing.assert_allclose(other["affine"], straight["affine"], atol=1e-9)
    for name, volume in straight_volumes.items():
        np.testing.assert_array_equal(other_volumes[name], volume, err_msg=name)


def test_viewer_starts_where_most_is_abnormal(tmp_path: Path) -> None:
    d = detection()
    assert d.mask is not None
    mask = d.mask.copy()
    mask[16, 10, 13] = True
    data, volumes = decoded(page(dataclasses.replace(d, mask=mask), tmp_path))
    i, j, k = data["start"]
    assert volumes["mask"][i, j, k]
    assert volumes["mask"][i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].all()
    # A single voxel that is worse than all others together comes first, however small.
    worse = d.map.copy()
    worse[16, 10, 13] = 2 * d.map.sum()
    data, volumes = decoded(page(dataclasses.replace(d, mask=mask, map=worse), tmp_path))
    assert volumes["map"][tuple(data["start"])] == volumes["map"].max()
    data, volumes = decoded(page(dataclasses.replace(d, mask=None), tmp_path))
    assert volumes["map"][tuple(data["start"])] == volumes["map"].max()


def test_page_that_would_be_too_large_is_drawn_coarser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = detection()
    assert d.mask is not None
    mask = d.mask.copy()
    mask[16, 10, 13] = True
    d = dataclasses.replace(d, mask=mask)
    full = page(d, tmp_path)
    fine, fine_volumes = decoded(full)
    monkeypatch.setattr(case, "LIMIT_BYTES", len(full) - 1)
    text = page(d, tmp_path)
    coarse, volumes = decoded(text)
    assert len(text.encode()) < len(full)
    assert "Drawn at 4 x 5 x 6 mm" in text
    assert "Drawn at" not in full
    assert coarse["shape"] == [n // 2 + n % 2 for n in fine["shape"]]
    assert coarse["spacing"] == pytest.approx([4, 5, 6])
    # Volumes are still those of the full grid, and a single voxel of the mask is still drawn, where it was.
    assert (coarse["mask"], coarse["trace"]["ml"], coarse["map"]["above_ml"]) == (
        fine["mask"],
        fine["trace"]["ml"],
        fine["map"]["above_ml"],
    )
    for voxel in np.argwhere(fine_volumes["mask"]):
        assert volumes["mask"][tuple(voxel // 2)]
    place = np.array(fine["affine"]) @ [8, 10, 6, 1] + np.array(fine["affine"]) @ [0.5, 0.5, 0.5, 0]
    np.testing.assert_allclose(np.array(coarse["affine"]) @ [4, 5, 3, 1], place)


def test_names_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    d = detection(preprocessing=[HOSTILE], **{HOSTILE: {HOSTILE: HOSTILE}})
    d = dataclasses.replace(d, scan=d.scan.with_(id=HOSTILE, sequences=(HOSTILE,)), scores={HOSTILE: 1.0})
    text = page(d, tmp_path)
    assert "<script>alert" not in text
    assert decoded(text)[0]["id"] == HOSTILE
    ours = [tag for tag, _ in Outline(page(detection(), tmp_path)).elements if tag == "script"]
    assert len([tag for tag, _ in Outline(text).elements if tag == "script"]) == len(ours)


def test_paths_are_not_shown(tmp_path: Path) -> None:
    text = page(
        detection(
            path="/clinic/Doe_Jane/t1.nii.gz", origin={"paths": ["/clinic/Doe_Jane"]}, arguments={"input": "Doe_Jane"}
        ),
        tmp_path,
    )
    assert "Doe_Jane" not in text
    assert "clinic" not in text


def test_empty_mask_is_said_in_words(tmp_path: Path) -> None:
    d = detection()
    assert d.mask is not None
    assert d.trace is not None
    none = {"gamma": 0.05, "t": None, "tau": None, "ml": 0.0}
    trace = dataclasses.replace(
        d.trace,
        facts={
            **d.trace.facts,
            "fit": "differences",
            "a": None,
            "b": None,
            "r2": None,
            "stops": {"mask": none, "score": none},
        },
    )
    text = page(dataclasses.replace(d, mask=np.zeros_like(d.mask), trace=trace), tmp_path)
    assert "Nothing was found" in text
    assert "does not prove that the scan is normal" in text
    assert "found no step at which to stop" in text
    assert "Nothing was found" not in page(d, tmp_path)


@pytest.mark.parametrize("bare", [{}, {"stops": {}}, {"stops": {"mask": None}}])
def test_trace_with_few_facts_gets_a_page(bare: dict[str, Any], tmp_path: Path) -> None:
    d = detection()
    assert d.trace is not None
    page(dataclasses.replace(d, trace=dataclasses.replace(d.trace, facts=bare)), tmp_path)
    figures.tau_curve(dataclasses.replace(d.trace, facts=bare))


def test_constant_and_negative_maps_get_a_page(tmp_path: Path) -> None:
    d = minimal()
    page(dataclasses.replace(d, map=np.zeros_like(d.map)), tmp_path)
    data, volumes = decoded(page(dataclasses.replace(d, map=(d.map - 2) * d.scan.brain), tmp_path))
    assert data["map"]["low"] < 0
    assert volumes["map"].max() == 255
    page(dataclasses.replace(d, scan=d.scan.with_(image=np.zeros_like(d.scan.image))), tmp_path)


def test_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot write"):
        case.write(minimal(), tmp_path / "file" / "page.html")


# --- the cohort page -----------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"id": "sub-01", "status": "ok", "score": "12.5", "mask_ml": "3.25", "seconds": "80", "message": ""},
    {"id": "sub-02", "status": "failed", "score": "n/a", "message": "scan 'sub-02': <b>3 voxels</b> are NaN"},
    {"id": "sub-03", "status": "ok", "score": 40.0, "mask_ml": 9.0, "seconds": 90, "site": "Oslo"},
    {"id": "javascript:alert(1)//../x", "status": "ok", "score": 1, "mask_ml": None, "seconds": 100.0},
]


def cohort_page(rows: list[dict[str, Any]], folder: Path) -> str:
    cohort.write(rows, folder / "cohort.html")
    return (folder / "cohort.html").read_text(encoding="utf-8")


def test_cohort_page(tmp_path: Path) -> None:
    text = cohort_page(ROWS, tmp_path)
    needs_nothing(text)
    assert "Oslo" in text
    assert "&lt;b&gt;3 voxels" in text
    assert "<b>3" not in text
    body = text[text.index("<tbody>") :]
    places = [body.index(name) for name in ("sub-02", "sub-03", "sub-01")]
    assert places == sorted(places), "failures first, then the highest score"
    links = {attributes["href"] for tag, attributes in Outline(text).elements if tag == "a"}
    assert links == {"./sub-01.html", "./sub-03.html", "./javascript%3Aalert%281%29%2F%2F..%2Fx.html"}
    dots = [attributes for tag, attributes in Outline(text).elements if tag == "circle"]
    assert len(dots) == 5, "three scores and two masks"
    assert float(dots[0]["cx"] or 0) < float(dots[1]["cx"] or 0) < float(dots[2]["cx"] or 0)


def test_a_score_is_not_drawn_twice(tmp_path: Path) -> None:
    rows = [{"id": n, "score": n, "volume_ml": n, "mean_error": n / 7, "tau": n, "seconds": 3 * n} for n in (1, 2, 3)]
    text = cohort_page(rows, tmp_path)
    assert text.count("<svg") == 2
    assert "volume (ml)" in text


def test_cohort_page_links_by_label(tmp_path: Path) -> None:
    rows = [
        {"id": "case 1", "label": "sub-case1", "status": "done"},
        {"id": "02", "label": "sub-02", "status": "skipped"},
    ]
    text = cohort_page(rows, tmp_path)
    assert {a["href"] for tag, a in Outline(text).elements if tag == "a"} == {"./sub-case1.html", "./sub-02.html"}
    assert "label" in text[text.index("<thead>") : text.index("</thead>")]
    text = cohort_page([{"id": "sub-02", "label": "sub-02", "status": "done"}], tmp_path)
    assert "label" not in text[text.index("<thead>") : text.index("</thead>")]


@pytest.mark.parametrize(
    "rows",
    [[], [{"id": "a"}], [{"id": "a", "status": "failed"}], [{"id": "a", "score": 2.0}], [{"id": "a", "score": "inf"}]],
)
def test_cohort_page_of_little(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    needs_nothing(cohort_page(rows, tmp_path))


def test_unknown_status_counts_as_failure(tmp_path: Path) -> None:
    text = cohort_page([{"id": "a", "status": "killed"}, {"id": "b", "status": "OK"}], tmp_path)
    assert "1 failed" in text
    assert "no reason was given" in text


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figures_save(ending: str, tmp_path: Path) -> None:
    d = detection()
    assert d.trace is not None
    figures.save(figures.tau_curve(d.trace), tmp_path / f"tau.{ending}")
    figures.save(figures.mosaic(d, slices=3), tmp_path / f"mosaic.{ending}", dpi=60)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"mosaic.{ending}", f"tau.{ending}"]
    assert all(p.stat().st_size > 2000 for p in tmp_path.iterdir())


def test_mosaic_draws_what_there_is() -> None:
    d = detection()
    assert len(figures.mosaic(d, slices=4).axes) == 4 * 4 + 1
    assert len(figures.mosaic(minimal(), slices=4).axes) == 2 * 4 + 1


def test_mosaic_has_the_right_at_the_left_and_anterior_on_top() -> None:
    d = detection()
    rows = [np.asarray(axes.images[0].get_array()) for axes in figures.mosaic(d, slices=5).axes[:5]]
    brightest = rows[int(np.argmax([row.max() for row in rows]))]
    y, x = np.argwhere(brightest > 4).mean(axis=0)
    assert x < brightest.shape[1] / 2
    assert y > brightest.shape[0] / 2


def test_mosaic_shows_scan_and_healthy_image_in_one_window() -> None:
    d = detection()
    windows = {axes.images[0].get_clim() for axes in figures.mosaic(d, slices=3).axes[:-1]}
    assert windows == {tuple(np.percentile(d.scan.image[0][d.scan.brain], (0.2, 99.8)))}


def test_tau_curve_marks_the_stops() -> None:
    d = detection()
    assert d.trace is not None
    axes = figures.tau_curve(d.trace).axes[0]
    assert {float(line.get_xdata()[0]) for line in axes.lines if list(line.get_ydata()) == [0, 1]} == {95.0, 90.0}
    assert axes.get_ylim()[1] == pytest.approx(2.5 * d.trace.facts["stops"]["mask"]["tau"])


def test_the_training_curve_marks_the_weights_that_are_kept(tmp_path: Path) -> None:
    log = [{"step": 10 * n, "loss": 1 / n, "validation": abs(n - 3) + 0.5} for n in range(1, 6)]
    axes = figures.training_curve(log).axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}
    assert lines["training"].tolist() == [[row["step"], row["loss"]] for row in log]
    assert [30, 0.5] in [line.tolist()[0] for line in lines.values() if len(line) == 1]
    assert "step 30" in axes.texts[0].get_text()
    figures.save(figures.training_curve([{"step": 1, "loss": 2.0}]), tmp_path / "curve.png", dpi=50)
    assert (tmp_path / "curve.png").stat().st_size > 1000
