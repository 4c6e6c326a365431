"""The viewer of the case page in a real browser: it draws the right voxels on the right side, and every control does something."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomri.report import case, cohort
from anomri.scan import Detection
from test_report import ROWS, decoded, detection, minimal

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
if not CHROMIUM or not CHROMEDRIVER:
    pytest.skip("needs chromium and chromedriver on the path", allow_module_level=True)

from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

PLANES = ("axial", "coronal", "sagittal")
# Two frames: changes by hand are drawn in the next one.
SETTLE = (
    "const done = arguments[arguments.length - 1]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
)


class Page:
    """A page in the browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get_log("browser")
        browser.get(path.as_uri())
        self.data, self.volumes = decoded(path.read_text(encoding="utf-8"))
        failed = browser.execute_async_script(
            "const done = arguments[0]; window.anomri.ready.then(() => done(null), (error) => done(String(error)))"
        )
        assert failed is None, failed

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def set(self, **changes: Any) -> None:
        self.js("window.anomri.set(arguments[0])", changes)

    def state(self) -> dict[str, Any]:
        return dict(self.js("return window.anomri.state"))

    def settle(self) -> None:
        self.browser.execute_async_script(SETTLE)

    def picture(self) -> list[str]:
        return list(self.js("return [...document.querySelectorAll('#panes canvas')].map((c) => c.id + c.toDataURL())"))

    def pixels(self, name: str) -> np.ndarray:
        """`(rows, columns, 4)` of a canvas."""
        width, height, packed = self.js(
            "const c = document.getElementById(arguments[0]);"
            "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let s = ''; for (let n = 0; n < p.length; n += 8192) s += String.fromCharCode(...p.subarray(n, n + 8192));"
            "return [c.width, c.height, btoa(s)]",
            name,
        )
        return np.frombuffer(base64.b64decode(packed), dtype=np.uint8).reshape(height, width, 4)

    def element(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def press(self, name: str, *keys: str) -> None:
        self.element(name).send_keys(*keys)
        self.settle()

    def pick(self, name: str, value: str) -> None:
        """Clicks a radio button by its label, as a person does."""
        self.browser.find_element(By.CSS_SELECTOR, f"label:has(> input[name='{name}'][value='{value}'])").click()
        self.settle()

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1100",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER, log_output=subprocess.DEVNULL))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    case.write(detection(channels=2), folder / "full.html")
    case.write(minimal(), folder / "minimal.html")
    case.write(one_spot(), folder / "spot.html")
    cohort.write(ROWS, folder / "cohort.html")
    return folder


@pytest.fixture
def full(browser: Any, built: Path) -> Page:
    return Page(browser, built / "full.html")


def one_spot() -> Detection:
    """A grey brain with one bright spot, to the patient's right, in front, and a little above the middle."""
    d = minimal()
    image = np.zeros(d.scan.brain.shape, dtype=np.float32)
    image[d.scan.brain] = np.linspace(-0.2, 0.2, int(d.scan.brain.sum()))
    image[25:29, 26:31, 16:20] = 9.0
    return dataclasses.replace(d, scan=d.scan.with_(image=image[None]), map=np.maximum(image, 0))


# --- drawing -------------------------------------------------------------------------------------------------------


def test_viewer_draws(full: Page) -> None:
    names = [f"{kind}-{plane}" for kind in ("image", "healthy") for plane in PLANES]
    for name in names:
        assert full.pixels(name)[..., :3].std() > 10, name
    assert len({full.pixels(name).tobytes() for name in names}) == 6
    assert full.errors() == []


def test_minimal_page_draws(browser: Any, built: Path) -> None:
    page = Page(browser, built / "minimal.html")
    for plane in PLANES:
        assert page.pixels(f"image-{plane}")[..., :3].std() > 10
    assert page.js("return document.querySelectorAll('#panes canvas').length") == 3
    assert page.errors() == []


def test_volumes_arrive_as_they_were_written(full: Page) -> None:
    rng = np.random.default_rng(0)
    voxels = [
        *rng.integers(0, full.data["shape"], (200, 3)).tolist(),
        full.data["start"],
        [n - 1 for n in full.data["shape"]],
    ]
    for name, volume in full.volumes.items():
        told = full.js("return arguments[1].map((v) => window.anomri.code(arguments[0], ...v))", name, voxels)
        assert told == [int(volume[tuple(v)]) for v in voxels], name


@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_sides(browser: Any, built: Path, convention: str) -> None:
    page = Page(browser, built / "spot.html")
    bright = np.argwhere(page.volumes["image0"] == 255).mean(axis=0)
    page.set(map=False, crosshair=False, convention=convention, at=[int(n) for n in bright])
    # Where right and anterior lie on the screen: at the left if radiological.
    share = (bright + 0.5) / page.data["shape"]
    across = 1 - share if convention == "radiological" else share
    expected = {
        "axial": (across[0], 1 - share[1]),
        "coronal": (across[0], 1 - share[2]),
        "sagittal": (across[1], 1 - share[2]),
    }
    for plane, (x, y) in expected.items():
        rgb = page.pixels(f"image-{plane}")[..., :3].astype(int)
        grey = (rgb.max(axis=2) - rgb.min(axis=2) == 0) & (rgb[..., 0] > 215)
        row, column = (np.argwhere(grey) + 0.5).mean(axis=0) / rgb.shape[:2]
        assert (column, row) == pytest.approx((x, y), abs=0.03), plane
    assert (expected["axial"][0] < 0.5) == (convention == "radiological")
    assert expected["axial"][1] < 0.5
    assert page.errors() == []


@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_letters(full: Page, convention: str) -> None:
    full.js(
        "window.told = []; const draw = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {"
        "  window.told.push([this.canvas.id, text, x / this.canvas.width, y / this.canvas.height]); draw.call(this, text, x, y); }"
    )
    full.set(convention=convention)
    told = {(name, text): (x, y) for name, text, x, y in full.js("return window.told")}
    left, right = ("R", "L") if convention == "radiological" else ("L", "R")
    front, back = ("A", "P") if convention == "radiological" else ("P", "A")
    for plane, letters in (
        ("axial", (left, right, "A", "P")),
        ("coronal", (left, right, "S", "I")),
        ("sagittal", (front, back, "S", "I")),
    ):
        at = [told["image-" + plane, letter] for letter in letters]
        assert max(at[0][0], 1 - at[1][0], at[2][1], 1 - at[3][1]) < 0.1, plane
    assert len(told) == 24


def test_map_and_mask_are_drawn_where_they_are(full: Page) -> None:
    _i, _j, k = full.data["start"]
    full.set(crosshair=False, opacity=1, mask="fill")
    shape = full.data["shape"]
    inside = full.volumes["mask"][::-1, ::-1, k].T > 0
    for changes, colour in (
        ({"map": False}, lambda p: p[..., 2].astype(int) - p[..., 0] > 40),
        ({"map": True, "mask": "off"}, lambda p: p[..., 0].astype(int) - p[..., 2] > 40),
    ):
        full.set(**changes)
        pixels = full.pixels("image-axial")
        rows = ((np.arange(shape[1]) + 0.5) / shape[1] * pixels.shape[0]).astype(int)
        columns = ((np.arange(shape[0]) + 0.5) / shape[0] * pixels.shape[1]).astype(int)
        drawn = colour(pixels[np.ix_(rows, columns)])
        if changes["map"]:
            # Letters are yellow: look only near the lesion.
            expected = full.data["threshold"] <= full.volumes["map"][::-1, ::-1, k].T
            drawn, expected = drawn & inside, expected & inside
        else:
            expected = inside
        assert expected.sum() > 10
        assert (drawn != expected).sum() <= 0.1 * expected.sum()


# --- controls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("opacity", Keys.HOME),
        ("opacity", Keys.ARROW_LEFT),
        ("threshold", Keys.HOME),
        ("threshold", Keys.END),
        ("step", Keys.HOME),
        ("step", Keys.ARROW_LEFT * 9),
    ],
)
def test_sliders_change_the_picture(full: Page, name: str, keys: str) -> None:
    # Filled, so that a mask that changes by a voxel is seen; with the threshold low, so that there is a map to see.
    full.set(mask="fill", threshold=20)
    before, said = full.picture(), full.element(f"{name}-said").text
    full.press(name, keys)
    after = full.picture()
    assert after != before
    assert full.element(f"{name}-said").text != said
    if name != "step":
        # Only the scan carries the map.
        assert [a for a in after if a.startswith("healthy")] == [b for b in before if b.startswith("healthy")]
    assert full.errors() == []


@pytest.mark.parametrize("name", ["crosshair", "map"])
def test_checkboxes_change_the_picture_and_back(full: Page, name: str) -> None:
    before = full.picture()
    full.element(name).click()
    full.settle()
    assert full.picture() != before
    full.element(name).click()
    full.settle()
    assert full.picture() == before


def test_choices_change_the_picture(full: Page) -> None:
    before = full.picture()
    for name, values in (
        ("mask", ("fill", "off", "outline")),
        ("convention", ("neurological", "radiological")),
        ("layout", ("axial", "sagittal", "coronal", "all")),
    ):
        seen = [before]
        for value in values:
            full.pick(name, value)
            seen.append(full.picture())
            assert seen[-1] != seen[-2], f"{name}: {value}"
        assert seen[-1] == before, f"{name}: back where it was"
    assert full.errors() == []


def test_one_plane_shows_scan_and_healthy_image(full: Page) -> None:
    full.pick("layout", "coronal")
    assert full.js("return [...document.querySelectorAll('#panes canvas')].map((c) => c.id)") == [
        "image-coronal",
        "healthy-coronal",
    ]
    assert full.pixels("healthy-coronal")[..., :3].std() > 10


def test_sequences(full: Page) -> None:
    before = full.picture()
    full.js("const s = document.getElementById('sequence'); s.value = '1'; s.dispatchEvent(new Event('change'))")
    full.settle()
    assert full.picture() != before
    assert full.state()["sequence"] == 1


def test_shrinking_shows_the_mask_of_the_step_and_goes_back(full: Page) -> None:
    before = full.picture()
    assert full.state()["step"] is None
    assert not full.element("own").is_enabled()
    full.press("step", Keys.HOME)
    assert "Step 0 of 100: the whole brain" in full.element("step-said").text
    full.press("step", Keys.ARROW_RIGHT * 40)
    assert full.state()["step"] == 40
    ml, tau = full.data["trace"]["ml"][40], full.data["trace"]["tau"][39]
    words = full.element("step-said").text
    assert words.startswith("Step 40 of 100")
    assert f"{ml:.3g} ml" in words
    assert f"{float(f'{tau:.3g}')}" in words
    assert full.js("return document.querySelector('#now').getAttribute('transform')").startswith("translate(148.00")
    full.element("own").click()
    full.settle()
    assert full.picture() == before
    assert "own mask" in full.element("step-said").text


def test_curve_can_be_clicked(full: Page) -> None:
    curve = full.element("curve")
    full.js("arguments[0].scrollIntoView({block: 'center'})", curve)
    width = curve.size["width"]
    x = (40 + 270 * 0.3) / 320 * width - width / 2
    ActionChains(full.browser).move_to_element_with_offset(curve, round(x), 10).click().perform()
    full.settle()
    assert abs(full.state()["step"] - 30) <= 1


def test_saved_mask_lies_on_the_brain(full: Page) -> None:
    d = detection(channels=2)
    assert d.trace is not None
    assert d.mask is not None
    for step, expected in ((None, d.mask), (60, (d.trace.order >= 60) & d.scan.brain), (0, d.scan.brain)):
        full.set(step=step)
        packed = full.js(
            "let s = ''; for (const b of window.anomri.nifti()) s += String.fromCharCode(b); return btoa(s)"
        )
        image = nib.Nifti1Image.from_bytes(base64.b64decode(packed))
        assert image.get_sform(coded=True)[1] == 1
        assert image.header.get_zooms() == pytest.approx(d.scan.spacing)

        def world(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
            return np.unique(np.round(np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3], 3), axis=0)

        np.testing.assert_allclose(
            world(np.asarray(image.dataobj) > 0, image.affine), world(expected, d.scan.affine), atol=0.01
        )


# --- moving --------------------------------------------------------------------------------------------------------


def test_click_moves_to_the_voxel_under_the_pointer(full: Page) -> None:
    canvas = full.element("image-axial")
    shape, i, j = full.data["shape"], 6, 9
    dx = ((shape[0] - 1 - i + 0.5) / shape[0] - 0.5) * canvas.size["width"]
    dy = ((shape[1] - 1 - j + 0.5) / shape[1] - 0.5) * canvas.size["height"]
    before = full.picture()
    ActionChains(full.browser).move_to_element_with_offset(canvas, round(dx), round(dy)).click().perform()
    full.settle()
    assert full.state()["at"] == [i, j, full.data["start"][2]]
    assert full.picture() != before


def test_wheel_and_keys_move(full: Page) -> None:
    i, j, k = full.data["start"]
    ActionChains(full.browser).scroll_from_origin(
        ScrollOrigin.from_element(full.element("image-coronal")), 0, 100
    ).perform()
    full.settle()
    assert full.state()["at"] == [i, j - 1, k]
    full.press("image-coronal", Keys.PAGE_UP)
    assert full.state()["at"] == [i, j, k]
    full.press("image-coronal", Keys.ARROW_LEFT, Keys.ARROW_UP)
    # Left on the screen is the patient's right.
    assert full.state()["at"] == [i + 1, j, k + 1]
    full.set(at=[-5, 500, 2])
    assert full.state()["at"] == [0, full.data["shape"][1] - 1, 2]


def test_unknown_setting_is_refused(full: Page) -> None:
    told = full.js("try { window.anomri.set({ opacty: 1 }); return null } catch (error) { return error.message }")
    assert "opacty" in told
    assert "opacity" in told


def test_no_request_leaves_the_page(full: Page) -> None:
    assert (
        full.js("return performance.getEntriesByType('resource').filter((r) => !r.name.startsWith('data:')).length")
        == 0
    )


# --- the cohort ----------------------------------------------------------------------------------------------------


def test_cohort_sorts_and_filters(browser: Any, built: Path) -> None:
    browser.get_log("browser")
    browser.get((built / "cohort.html").as_uri())

    def ids() -> list[str]:
        return [
            row.find_element(By.TAG_NAME, "td").text
            for row in browser.find_elements(By.CSS_SELECTOR, ".rows tbody tr")
            if row.is_displayed()
        ]

    first = ids()
    assert first[:2] == ["sub-02", "sub-03"]
    head = {button.text.split()[0]: button for button in browser.find_elements(By.CSS_SELECTOR, ".rows th button")}
    head["score"].click()
    assert ids() == ["sub-03", "sub-01", "javascript:alert(1)//../x", "sub-02"]
    head["score"].click()
    assert ids() == ["javascript:alert(1)//../x", "sub-01", "sub-03", "sub-02"], "a scan without a score stays last"
    head["id"].click()
    assert ids()[1:] == ["sub-01", "sub-02", "sub-03"]
    browser.find_element(By.ID, "filter").send_keys("oslo")
    assert ids() == ["sub-03"]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
