"""How a page becomes one file that needs nothing else: templates, style and scripts of this folder, put into each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def render(template: str, scripts: tuple[str, ...], **values: Any) -> str:
    """The text of a page: a template of this folder with `style.css` and the named scripts written into it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (HERE / "style.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts)
    return environment.get_template(template).render(style=style, script=script, **values)


def number(value: float) -> str:
    """A number as a reader wants it: three significant digits, no exponent where none is needed."""
    if not math.isfinite(value):
        return "n/a"
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    if 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.2e}"


def named(name: str) -> tuple[str, str]:
    """The words and the unit of a column or score: `volume_ml` is ("volume", "ml")."""
    words = name.split("_")
    for unit in ("ml", "mm", "s"):
        if len(words) > 1 and words[-1] == unit:
            return " ".join(words[:-1]), unit
    return " ".join(words), ""
