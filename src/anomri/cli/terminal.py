"""What a verb says: remarks and progress on stderr, JSON on stdout, errors in one line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from anomri.errors import AnomriError

BAD_CALL, SOME_FAILED = 2, 3
EVERY_S = 60.0
"""How often progress is told where stderr is no terminal, such as a cluster's log."""

Say = Callable[[str], None]


def complain(text: str) -> None:
    """An error, in one line on stderr."""
    typer.echo(f"anomri: {' '.join(text.split())}", err=True)


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    from anomri.files import plain

    typer.echo(json.dumps(plain(content), indent=2, allow_nan=False))


@contextmanager
def remarks(quiet: bool) -> Iterator[Say]:
    """Gives a function for remarks on stderr; what anomri foresaw goes wrong in one line, with exit code 2."""
    try:
        yield lambda text: None if quiet else typer.echo(text, err=True)
    except AnomriError as error:
        complain(str(error))
        raise typer.Exit(BAD_CALL) from error


def tell_failed(row: Mapping[str, Any]) -> None:
    """Says why a scan failed, if it did."""
    if row["status"] == "failed":
        complain(f"{row['id']}: {row['message']}")


@contextmanager
def progress(quiet: bool, what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Progress on stderr: a bar in a terminal, else a line a minute.

    Gives a function of how far it has come, a text, and the total where it was not known before.
    """
    if quiet:
        yield lambda done, text="", of=None: None
        return
    if not sys.stderr.isatty():
        yield _Lines(what, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, text="")
        yield lambda done, text="", of=None: bar.update(task, completed=done, total=of or total, text=text)


class _Lines:
    """Progress for a log: a line a minute."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.last = what, total, time.monotonic()

    def __call__(self, done: float, text: str = "", of: int | None = None) -> None:
        if time.monotonic() - self.last >= EVERY_S:
            self.last = time.monotonic()
            typer.echo(f"{self.what}: {done:g} of {of or self.total or '?'} {text}".rstrip(), err=True)
