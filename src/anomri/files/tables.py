"""Text, JSON and tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomri.errors import BadCall, BadInput
from anomri.files.opening import reading, replacing, short


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically; NaN and infinities become null, arrays lists, so that any reader takes it."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON object; raises `BadInput` where there is none."""
    with reading(path) as file:
        text = file.read_bytes()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadInput(f"'{path}' is not valid JSON ({short(error)})") from error
    if not isinstance(content, dict):
        raise BadInput(f"'{path}' holds a JSON {type(content).__name__}, needs an object")
    return content


def plain(value: Any) -> Any:
    """The same content in JSON's types."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, set | frozenset):
        return plain(sorted(value, key=str))
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if value is None or isinstance(value, str):
        return value
    return str(value)


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes rows as TSV, atomically; missing values are `n/a`, as BIDS wants them."""
    names = list(columns) if columns else list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: Any) -> str:
        value = plain(value)
        if value is None or value == "":
            return "n/a"
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        return " ".join(text.split())

    lines = ["\t".join(names), *("\t".join(cell(row.get(name)) for name in names) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with all their digits, atomically: CSV, or Parquet where the path ends so; missing values are empty.

    Raises `BadCall` where Parquet is asked for and pyarrow is not installed.
    """
    from pandas import DataFrame

    frame = DataFrame([{name: plain(value) for name, value in row.items()} for row in rows])
    if Path(path).suffix != ".parquet":
        write_text(path, frame.to_csv(index=False, lineterminator="\n"))
        return
    try:
        with replacing(path) as part:
            frame.to_parquet(part, index=False)
    except ImportError as error:
        raise BadCall("Parquet needs pyarrow: pip install 'anomri[parquet]'; or take the CSV") from error


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Reads a table with a header line (tabs, commas or semicolons) as rows of text; `n/a` becomes an empty string.

    Raises `BadInput` where it cannot be read, has no header, or a line has more or fewer cells than it.
    """
    with reading(path) as file:
        content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"table '{path}' is not UTF-8 text; save it as UTF-8 CSV or TSV") from error
    first = text.lstrip().partition("\n")[0]
    if not first:
        raise BadInput(f"table '{path}' is empty; it needs a header line and a line per scan")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max("\t,;", key=first.count))
    names: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not names:
                names = cells
                twice = [name for name in names if names.count(name) > 1]
                if twice:
                    raise BadInput(f"table '{path}' has two columns '{twice[0]}'; rename one")
                continue
            if len(cells) != len(names):
                raise BadInput(
                    f"table '{path}', line {reader.line_num}: {len(cells)} cells, the header has {len(names)}"
                )
            rows.append({name: "" if cell == "n/a" else cell for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        raise BadInput(
            f"table '{path}', line {reader.line_num}: {short(error)}; save it as UTF-8 CSV or TSV"
        ) from error
    return rows
