"""How far the fast IterMask3D agrees with the plain loop of the paper, at 2 mm, and how far the plain loop agrees with itself.

Command:  HEALTHY_T1=FOLDER python benchmarks/agreement.py      (about 25 minutes on two cores)

HEALTHY_T1 is a cohort of healthy T1w scans, of which 15 that the shipped weights have not learned from are taken (`Cohort.split(34, 12,
12, seed=20261120)`: the last 12, and 3 of validation); without it, 15 phantoms are. Five stay as they are, ten are given a lesion of 10
or 40 ml, brighter or darker. Four runs of each: plain (`plain.py`: float32, the whole field of view, every step), plain under another
seed of the noise, ours as `detect` runs it, under the first seed, and the same in the box of the brain, in float32 and with every step
(`--schedule exact --precision float32`): what the quick schedule and precision change, without what the box does. The network has
learned in such a box, and sees zeros of its own making around it; in the whole field of view it sees more of them.
Agreement is the Dice of two final masks. No label is used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from anomri import files, preprocess
from anomri.cohort import Cohort
from anomri.cohorts import open_cohort, phantom
from anomri.metrics.voxel import dice
from anomri.scan import Scan
from anomri.study.changes import lesion
from anomri.train import generator
from plain import Plain, shipped
from side_by_side import Goal, machine, table

CHANGES = (
    None, lesion("stroke", "hyper", 10), lesion("tumour", "hypo", 40), None, lesion("stroke", "hypo", 10), lesion("tumour", "hyper", 40),
)  # fmt: skip
COLUMNS = (
    "scan", "change", "lesion_ml", "engine", "seconds", "plain_seconds", "passes", "plain_passes", "fit", "plain_fit", "step", "plain_step",
    "tau_off", "curve_off", "mask_ml", "plain_ml", "exact_ml", "dice", "dice_exact", "plain_dice_with_itself",
)  # fmt: skip


def cohort() -> Cohort:
    """Scans that the shipped weights have not learned from, or phantoms."""
    place = os.environ.get("HEALTHY_T1")
    if not place:
        return Cohort(phantom.healthy(15))
    _, validation, test = open_cohort(place).split(34, 12, 12, seed=20261120)
    return Cohort([*test.entries, *validation.entries[:3]])


def compare(scan: Scan, name: str) -> list[dict[str, object]]:
    """A row for each engine."""
    method = shipped()
    begun = time.perf_counter()
    slow = Plain(method, scan).detect()
    seconds = time.perf_counter() - begun
    again = Plain(method, scan, seed=1).detect()
    itself = dice(slow.mask, again.mask)
    rows = []
    for engine in dict.fromkeys(("torch", method.runtime()[2])):
        method.engine = engine
        method.schedule, method.precision = "exact", "float32"  # type: ignore[attr-defined]
        exact = method.detect(scan)
        method.schedule, method.precision = "adaptive", "auto"  # type: ignore[attr-defined]
        method.detect(scan)
        begun = time.perf_counter()
        fast = method.detect(scan)
        mine = time.perf_counter() - begun
        assert fast.trace is not None
        assert fast.mask is not None
        assert exact.mask is not None
        facts = fast.trace.facts
        end = facts["stops"]["mask"]
        plain_tau = slow.tau[slow.step - 1] if slow.step else float("nan")
        off = np.abs(fast.trace.tau / np.array(slow.tau) - 1)
        rows.append(
            {
                "scan": scan.id, "change": name, "lesion_ml": 0.0 if scan.lesion is None else float(scan.lesion.sum()) * scan.voxel_ml,
                "engine": engine, "seconds": mine, "plain_seconds": seconds, "passes": facts["passes"], "plain_passes": slow.passes,
                "fit": facts["fit"], "plain_fit": slow.curve.fit, "step": end["t"], "plain_step": slow.step,
                "tau_off": (end["tau"] or float("nan")) / plain_tau - 1, "curve_off": float(np.median(off)),
                "mask_ml": float(fast.mask.sum()) * scan.voxel_ml, "plain_ml": float(slow.mask.sum()) * scan.voxel_ml,
                "exact_ml": float(exact.mask.sum()) * scan.voxel_ml, "dice": dice(fast.mask, slow.mask),
                "dice_exact": dice(fast.mask, exact.mask), "plain_dice_with_itself": itself,
            }
        )  # fmt: skip
    return rows


def rows(limit: int | None = None) -> list[dict[str, object]]:
    """All comparisons, told as they are made."""
    method = shipped()
    found = []
    scans = cohort()[:limit]
    for index, raw in enumerate(scans):
        scan = preprocess.run(method.pipeline(), raw)
        change = CHANGES[index % len(CHANGES)]
        if change is not None:
            scan = change(scan, generator("agreement", index))
        for row in compare(scan, "none" if change is None else repr(change)):
            found.append(row)
            cells = (f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS)
            print("  ".join(cells), flush=True)
    return found


def goals(found: list[dict[str, object]] | None = None) -> list[Goal]:
    """Agreement as a share that is missing, 1 - Dice, so that less is better; and the speed at 2 mm."""
    found = rows() if found is None else found
    of = "phantoms" if not os.environ.get("HEALTHY_T1") else "scans"
    made = []
    for engine in dict.fromkeys(str(row["engine"]) for row in found):
        here = [row for row in found if row["engine"] == engine]
        large = [row for row in here if float(row["lesion_ml"]) > 5]  # type: ignore[arg-type]
        worst = min(here, key=lambda row: float(row["dice"]))  # type: ignore[arg-type]

        def median(name: str, among: list[dict[str, object]]) -> float:
            return float(np.median([float(row[name]) for row in among]))  # type: ignore[arg-type]

        note = f"worst {worst['dice']:.3f}: {worst['scan']}, {worst['change']}"
        mine, itself = 1 - median("dice", here), 1 - median("plain_dice_with_itself", here)
        made += [
            Goal(f"1 - Dice with plain, {len(here)} {of}, {engine}", mine, itself, 1.0, "", "against plain with itself; " + note),
            Goal(f"1 - Dice with plain, {len(large)} lesions over 5 ml, {engine}", 1 - median("dice", large), 0.02, 1.0, ""),
            Goal(f"1 - Dice with every step in float32 in the box, {len(large)} lesions over 5 ml, {engine}",
                 1 - median("dice_exact", large), 0.02, 1.0, ""),
            Goal(f"detect at 2 mm, {engine}", sum(float(r["seconds"]) for r in here), sum(float(r["plain_seconds"]) for r in here), 1.0,
                 note=f"{median('passes', here):.0f} passes against {median('plain_passes', here):.0f} (medians)"),
        ]  # fmt: skip
    return made


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first so many scans")
    parser.add_argument("--out", type=Path, help="write the comparisons as a table")
    given = parser.parse_args()
    print(machine())
    print("  ".join(COLUMNS))
    found = rows(given.limit)
    if given.out:
        files.write_table(given.out, found, list(COLUMNS))
    made = goals(found)
    print(table(made))
    sys.exit(not all(goal.met for goal in made))


if __name__ == "__main__":
    main()
