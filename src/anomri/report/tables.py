"""Tables of a study as papers print them: Markdown, LaTeX, CSV and text, from one layout."""

from __future__ import annotations

import csv as comma
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from anomri.files import plain
from anomri.report.layout import MISSING, Block, Line, Sheet, Shown, absent, flat, lay_out

__all__ = ["MISSING", "Block", "Line", "Sheet", "Shown", "absent", "csv", "latex", "lay_out", "markdown", "text"]


# --- Markdown ------------------------------------------------------------------------------------------------------


def markdown(sheet: Sheet) -> str:
    """The table as GitHub's Markdown: a heading, a table per block, the notes."""
    parts = [f"### {_md(sheet.title)}"]
    for block in sheet.blocks:
        if block.title:
            parts.append(f"**{_md(block.title)}**")
        heads = [*map(_md, sheet.headings), *(_md(head) for head in flat(block))]
        rule = [":--"] * len(sheet.headings) + ["--:"] * len(block.columns)
        rows = [heads, rule, *(_md_line(line) for line in block.lines)]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join([*parts, *map(_md, sheet.notes)]) + "\n"


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))


def _md_line(line: Line) -> list[str]:
    def cell(shown: Shown) -> str:
        value = _md(shown.value or MISSING)
        value = f"*{value}*" if line.paper and shown.value else f"**{value}**" if shown.best else value
        rest = [_md(part) for part in (shown.spread, f"({shown.n})" if shown.n else "") if part]
        return " ".join([value + _md(shown.mark), *rest])

    names = [f"*{_md(name)}*" if line.paper and name else _md(name) for name in line.names]
    return [*names, *map(cell, line.cells)]


# --- LaTeX ---------------------------------------------------------------------------------------------------------

TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "–": "--", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≥": r"$\geq$", "≤": r"$\leq$",
    "γ": r"$\gamma$", "τ": r"$\tau$", "σ": r"$\sigma$", "*": r"\textasteriskcentered{}", '"': "''", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex(sheet: Sheet) -> str:
    """The table as LaTeX with booktabs: a float per block, no wider than the text."""
    parts = ["% Needs \\usepackage{booktabs, xcolor, adjustbox}"]
    for at, block in enumerate(sheet.blocks, 1):
        star = "*" if len(block.columns) > 3 else ""
        several = len(sheet.blocks) > 1
        caption = _tex(sheet.title) + (f": {_tex(block.title)}" if block.title else "")
        names = "l" * len(sheet.headings)
        parts += [
            f"\\begin{{table{star}}}[t]", "\\centering", f"\\caption{{{caption}.}}",
            f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', sheet.name)}{f'-{at}' if several else ''}}}",
            "\\begin{adjustbox}{max width=\\linewidth}", f"\\begin{{tabular}}{{@{{}}{names}{'r' * len(block.columns)}@{{}}}}", "\\toprule",
            *_tex_groups(block, len(sheet.headings)),
            _tex_row([*map(_tex, sheet.headings), *map(_tex, block.columns)]), "\\midrule",
            *(_tex_row(_tex_line(line)) for line in block.lines), "\\bottomrule", "\\end{tabular}", "\\end{adjustbox}",
        ]  # fmt: skip
        if sheet.notes:
            parts += [
                "",
                "\\smallskip",
                f"\\parbox{{\\linewidth}}{{\\footnotesize {' '.join(map(_tex, sheet.notes))}}}",
            ]
        parts += [f"\\end{{table{star}}}", ""]
    return "\n".join(parts)


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in " ".join(text.split()))


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_groups(block: Block, names: int) -> list[str]:
    if not block.groups:
        return []
    heads, rules, at = [""] * names, [], names + 1
    for title, span in block.groups:
        heads.append(f"\\multicolumn{{{span}}}{{c}}{{{_tex(title)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return [_tex_row(heads), "".join(rules)]


def _tex_line(line: Line) -> list[str]:
    def cell(shown: Shown) -> str:
        value = _tex(shown.value or MISSING)
        value = f"\\textbf{{{value}}}" if shown.best else value
        mark = f"\\textsuperscript{{{'*' * len(shown.mark)}}}" if shown.mark else ""
        rest = [f"{{\\scriptsize {_tex(part)}}}" for part in (shown.spread, f"({shown.n})" if shown.n else "") if part]
        return muted(" ".join([value + mark, *rest]))

    def muted(text: str) -> str:
        return f"\\textcolor{{gray}}{{{text}}}" if line.paper and text else text

    return [*(muted(_tex(name)) for name in line.names), *map(cell, line.cells)]


# --- CSV and text --------------------------------------------------------------------------------------------------


def csv(sheet: Sheet) -> str:
    """The records with all their numbers as CSV; an empty field is a missing value."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in sheet.tidy for name in row))
    writer = comma.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: plain(value) for name, value in row.items()} for row in sheet.tidy)
    return file.getvalue()


def text(sheet: Sheet, width: int = 100) -> str:
    """The table for a terminal of so many letters; blocks that are too wide are cut into several."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="standard", highlight=False)
    console.print(Text(sheet.title, style="bold"))
    for block in (part for whole in sheet.blocks for part in _narrowed(whole, width)):
        grid = Grid(title=Text(block.title) if block.title else None, title_justify="left", box=None, pad_edge=False)
        for head in sheet.headings:
            grid.add_column(Text(head), vertical="bottom")
        for head in flat(block):
            grid.add_column(Text(head), justify="right", vertical="top")
        for line in block.lines:
            style = "dim" if line.paper else ""
            names = [Text(("  " if line.paper and name == "paper" else "") + name, style=style) for name in line.names]
            cells = [Text(_plain(cell), style="bold" if cell.best else style) for cell in line.cells]
            grid.add_row(*names, *cells)
        console.print(grid)
        console.print()
    for note in sheet.notes:
        console.print(Text(note, style="dim"))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _plain(cell: Shown) -> str:
    parts = [(cell.value or MISSING) + cell.mark, cell.spread, f"({cell.n})" if cell.n else ""]
    return " ".join(part for part in parts if part)


def _narrowed(block: Block, width: int) -> Iterable[Block]:
    """The block in parts whose columns fit beside the names: group by group, then some of the columns and all lines."""
    names = max((sum(len(name) + 2 for name in line.names) for line in block.lines), default=8)
    widest = max((len(_plain(cell)) for line in block.lines for cell in line.cells), default=4)
    fits = max(1, (width - min(names, width // 2)) // (max(widest, 10) + 2))
    if len(block.columns) <= fits:
        yield block
        return
    at = 0
    for title, span in block.groups or ((block.title, len(block.columns)),):
        for start in range(at, at + span, fits):
            part = slice(start, min(start + fits, at + span))
            lines = tuple(replace(line, cells=line.cells[part]) for line in block.lines)
            yield Block(title, (), block.columns[part], lines)
        at += span
