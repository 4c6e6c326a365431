"""`anomri study run` and `show`: what they print where, what they write, and how they end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from anomri import methods
from anomri.cli import main
from stand_in import Brightness, brains

STUDY = """
from anomri.study import Case, Entrant, Plot, Source, Study, Table
from stand_in import brighten

DATA = {"title": "Tiny brains", "variable": "TINY", "offered": "nowhere", "layout": "a folder"}
STUDY = Study(
    "tiny", "A tiny study", "Nobody, 2026",
    {"Bright": Entrant("brightness", fit="healthy", preset={"spacing": 6.0}), "GAN": Entrant("fanogan")},
    {"healthy": Source(**DATA, part=lambda c: c[:2]), "test": Source(**DATA, part=lambda c: c[2:])},
    [Case("plain", "test", anomalous=False), Case("ball", "test", brighten(4.0), against="plain")],
    ("overlap", "oracle"),
    [Table("all", "What is found", ("AUROC", "dice", "dice_best_scan_oracle"), cases=["ball"],
           expected={("GAN", "ball", "AUROC"): 61.2})],
    [Plot("dice", "Dice", "box", y="dice", cases=["ball"])],
)
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command line in a folder with a study and five brains; gives exit code, stdout and the lines of stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "METHODS", [*methods.METHODS, Brightness])
    # Set and taken away again, so that what the command sets does not stay.
    monkeypatch.setenv("TINY", "x")
    monkeypatch.delenv("TINY")
    (tmp_path / "tiny.py").write_text(STUDY)
    brains(tmp_path / "data")

    def ask(*words: str) -> tuple[int, str, list[str]]:
        capfd.readouterr()
        code = main(list(words))
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return ask


def test_a_study_gives_tables_plots_a_page_and_says_what_it_did_not_run(ask, tmp_path):
    code, out, err = ask("study", "run", "tiny.py", "--data", "TINY=data")
    assert code == 0
    assert "What is found" in out
    assert "oracle" in out
    assert "61.2" in out
    assert "Not run: GAN waits: method 'fanogan' is not in the tool yet" in err
    assert err[-2] == "6 detections, 0 failed. Rows: tiny/rows.csv"
    assert err[-1].startswith("Page: ")
    rows = list(csv.DictReader((tmp_path / "tiny" / "rows.csv").read_text().splitlines()))
    assert [(r["entrant"], r["case"], r["scan"]) for r in rows][:4] == [
        ("Bright", "plain", f"s{n}") for n in (2, 3, 4)
    ] + [("Bright", "ball", "s2")]
    assert float(rows[3]["dice"]) > 0.5
    assert rows[0]["dice"] == ""
    names = {str(p.relative_to(tmp_path / "tiny")) for p in (tmp_path / "tiny").rglob("*") if p.is_file()}
    assert {
        "tables/all.csv",
        "tables/all.md",
        "tables/all.tex",
        "plots/dice.png",
        "plots/dice.svg",
        "index.html",
        "study.json",
    } <= names
    assert str(tmp_path) not in (tmp_path / "tiny" / "rows.csv").read_text()


def test_parquet_and_json(ask, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet is an extra")
    code, out, _ = ask(
        "study", "run", "tiny.py", "--data", "TINY=data", "--out", "o", "--limit", "1", "--parquet", "--json", "-q"
    )
    assert code == 0
    said = json.loads(out)
    assert (said["study"], len(said["rows"])) == ("tiny", 2)
    frame = pandas.read_parquet(tmp_path / "o" / "rows.parquet")
    assert list(frame["case"]) == ["plain", "ball"]
    assert frame["dice"].isna().tolist() == [True, False]


def test_some_failed_scans_are_told_and_the_code_is_3(ask, tmp_path):
    (tmp_path / "data" / "broken.nii.gz").write_bytes((tmp_path / "data" / "s0.nii.gz").read_bytes())
    text = STUDY.replace("c[:2]", "c[1:3]").replace("c[2:]", "c.only(['broken', 's4'])")
    (tmp_path / "tiny.py").write_text(text)
    code, _, err = ask("study", "run", "tiny.py", "--data", "TINY=data")
    assert code == 3
    assert "anomri: Bright, plain, broken: RuntimeError: the network fell over" in err
    assert "4 detections, 2 failed. Rows: tiny/rows.csv" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study run none.py", "'none.py' is not a study (a Python file that defines STUDY)"),
        (
            "study run tiny.py",
            "nothing of this study can be run here: Tiny brains is not here: set TINY, or give --data TINY=FOLDER",
        ),
        ("study run tiny.py --data TINY", "--data 'TINY' is not NAME=VALUE"),
        ("study run tiny.py --data TINY=gone", "cannot be read"),
        ("study run tiny.py --data TINY=data --only x", "unknown entrant or case 'x'"),
        ("study run tiny.py --data TINY=data --shard 3/2", "shard 3/2 does not exist"),
        ("study run tiny.py --data TINY=data --model Bright=gone", "'gone' is not a model folder"),
        ("study show none.py", "is not a study"),
    ],
)
def test_bad_calls_are_one_line_and_code_2(ask, words, said):
    code, out, err = ask(*words.split())
    assert (code, out) == (2, "")
    complaints = [line for line in err if line.startswith("anomri: ")]
    assert len(complaints) == 1
    assert said in complaints[0]


def test_quiet_prints_nothing_and_a_table_is_as_wide_as_the_terminal(ask, monkeypatch):
    assert ask("study", "run", "tiny.py", "--data", "TINY=data", "--limit", "1", "-q") == (0, "", [])
    monkeypatch.setenv("COLUMNS", "50")
    _, out, err = ask("study", "run", "tiny.py", "--data", "TINY=data", "--limit", "1")
    assert max(map(len, out.splitlines())) <= 50
    assert "Not run: scans after the first 1 of each source (--limit 1)" in err


def test_a_path_that_is_not_there_is_not_here(ask):
    _, out, _ = ask("study", "show", "tiny.py", "--data", "TINY=gone")
    assert "test: Tiny brains is not here" in out


def test_show_says_what_is_here(ask):
    code, out, _ = ask("study", "show", "tiny.py")
    assert code == 0
    assert "test: Tiny brains is not here: set TINY" in out
    assert "GAN (fanogan): not in the tool yet" in out
    code, out, _ = ask("study", "show", "tiny.py", "--data", "TINY=data", "--json")
    said = json.loads(out)
    assert said["sources"]["test"]["here"]
    assert said["entrants"]["Bright"] == {"method": "brightness", "here": True}
