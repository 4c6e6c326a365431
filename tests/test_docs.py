"""The code in README.md and docs/ runs: Python blocks as they stand, and the shell commands that need no data of the reader's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
NEEDS_DATA = re.compile(r"\$[A-Z]|scan\.nii\.gz|git clone|make demo|pip install|model/")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def commands(page: Path) -> list[str]:
    lines = "\n".join(code for kind, code in blocks(page) if kind == "bash").replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if not NEEDS_DATA.search(command):
            words = shlex.split(command)
            assert words[0] == "anomri", f"{page.name} shows a command that nothing checks: {command}"
            ran = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
    names: dict[str, object] = {}
    for kind, code in blocks(page):
        if kind == "python":
            exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_options_that_a_page_names_exist(page):
    from typer.main import get_command

    from anomri.cli import app

    verbs = get_command(app).commands
    for command in commands(page):
        words = shlex.split(command)
        if words[0] != "anomri":
            continue
        assert words[1] in verbs, command
        verb = verbs[words[1]]
        verb = verb.commands[words[2]] if hasattr(verb, "commands") else verb
        known = {option for parameter in verb.params for option in parameter.opts}
        assert {w for w in words if w.startswith("-")} <= known, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} points to {target}"
