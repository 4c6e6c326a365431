"""What the shipped T1w weights do on scans that they never saw: OpenNeuro ds002748, pasted lesions, and one real MS case.

Data
    $HEALTHY_T1     OpenNeuro ds002748 (58 skull-stripped T1w; CC0): BIDS, https://openneuro.org/datasets/ds002748
    $LESION_MASKS   a folder of lesion masks in MNI space, `*_lesion.nii.gz` (made from OpenNeuro ds004889)
    $MS_CASE        a folder with T1.nii.gz and lesion.nii.gz of one MS patient (MSLUB, doi 10.1007/s12021-017-9348-7)

Split
    `Cohort.split(34, 12, 12, seed=20261120)`: 34 to fit, 12 to validate on, 12 to test on, by a rule that depends on the subjects'
    ids alone. No weights that ship, and no choice that was made, ever saw the last 12.

Commands (two cores: about 65 minutes, and 11)
    python studies/healthy_t1.py fit $HEALTHY_T1 --out model
    python studies/healthy_t1.py evaluate model --healthy $HEALTHY_T1 --masks $LESION_MASKS --ms $MS_CASE --out table.tsv

The first phase of `fit` is what this does, the second goes on from its weights with `contrast`:
    python studies/healthy_t1.py split $HEALTHY_T1 split.tsv
    anomri fit itermask3d --cohort $HEALTHY_T1 --split split.tsv --spacing 2 --out first \\
        --set width=8 --set dropout=0.0 --set whole_brain=0.2 --set flip=0.5 --set steps=4400 --set final=0.02

Expected
    See docs/results.md: the numbers of the run that made the shipped weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomri import files, preprocess
from anomri.cohort import Cohort
from anomri.cohorts import open_cohort
from anomri.corruptions.lesions import paste
from anomri.method import Method
from anomri.methods import load
from anomri.methods.itermask3d import IterMask3D
from anomri.metrics.voxel import best_dice, dice
from anomri.preprocess import brain, space
from anomri.scan import Mask, Moved, Scan
from anomri.train import Job

SEED = 20261120
PARTS = {"fit": 34, "validate": 12, "test": 12}
NETWORK = {"width": 8, "dropout": 0.0, "whole_brain": 0.2, "flip": 0.5, "final": 0.02}
FIRST = {"steps": 4400}
SECOND = {"steps": 2000, "lr": 6e-4, "contrast": 0.7}
SIZES_ML = {"2 ml": (1.5, 3.0), "10 ml": (8.0, 12.0), "40 ml": (30.0, 60.0)}
CHANGES = {"bright": 3.0, "dark": -2.0}


def split(folder: str) -> dict[str, Cohort]:
    """The scans to fit, to validate and to test on."""
    return dict(zip(PARTS, open_cohort(folder).split(*PARTS.values(), seed=SEED), strict=True))


def fit(folder: str, out: str) -> None:
    """Makes the weights that ship: first on the scans as they are, then also as other scanners might show them."""
    parts = split(folder)
    method = None
    for name, phase in (("first", FIRST), ("second", SECOND)):
        before, method = method, IterMask3D(**NETWORK, **phase)
        method.preset_arguments = {"spacing": 2.0}
        if before is not None:
            method.begin_with(before)
        job = Job(Path(out) / name, warm=before is not None, progress=told)
        healthy, validation = (parts[part].map(*method.pipeline()) for part in ("fit", "validate"))
        method.fit(healthy, validation=validation, job=job)
    assert method is not None
    method.save(out, half=True)


def told(r: Mapping[str, Any]) -> None:
    """Prints every 50th step."""
    if r["step"] % 50 == 0:
        print(
            f"step {r['step']} of {r['steps']}, loss {r['loss']:.4f}, validation {r['validation']}, {r['seconds_per_step']:.2f} s a step",
            flush=True,
        )


def masks_of(folder: str, low: float, high: float, n: int) -> list[Path]:
    """n lesion masks with volumes between low and high (ml), drawn by the seed."""
    fitting = []
    for path in sorted(Path(folder).glob("*_lesion.nii.gz")):
        data, grid, _ = files.read_image(path)
        if low <= float((data > 0.5).sum()) * grid.voxel_ml <= high:
            fitting.append(path)
    order = np.random.default_rng(SEED).permutation(len(fitting))
    return [fitting[i] for i in order[:n]]


def placed(scan: Scan, mask: Path) -> Mask:
    """A mask of MNI space in a scan's own space, by an affine registration of the scan to MNI152; inside the brain."""
    key = scan.id
    if key not in _WORLD:
        moved = space.register(scan)
        change = moved.history[-1]
        assert isinstance(change, Moved)
        _WORLD[key] = change.world
    data, grid, _ = files.read_image(mask)
    # The registration takes MNI coordinates to the scan's; here the scan's grid is filled from MNI space.
    inside: Mask = space.between(data > 0.5, grid, scan.grid, "mask", np.linalg.inv(_WORLD[key])) & scan.brain
    return inside


_WORLD: dict[str, Any] = {}


def pasted(scan: Scan, lesion: Mask, change: float) -> Scan:
    """The raw scan with a lesion of one contrast pasted in, before any preprocessing."""
    image, truth = paste(torch.tensor(scan.image), torch.tensor(scan.brain), torch.tensor(lesion), change, scan.spacing)
    return scan.with_(image=image.numpy(), lesion=truth.numpy())


def look(method: Method, scan: Scan, **about: Any) -> dict[str, Any]:
    """A row of the table: the scan preprocessed, looked at, and compared with its truth on the method's grid."""
    begun = time.perf_counter()
    ready = preprocess.run(method.pipeline(), scan)
    prepared = time.perf_counter()
    found = method.detect(ready)
    row: dict[str, Any] = {
        "scan": scan.id,
        **about,
        "lesion_ml": None,
        "mask_ml": float(found.mask.sum()) * ready.voxel_ml if found.mask is not None else None,
        **found.scores,
        "seconds_preprocess": prepared - begun,
        "seconds_detect": time.perf_counter() - prepared,
    }
    if found.trace is not None:
        row |= {k: found.trace.facts[k] for k in ("fit", "r2")} | {"tau": found.trace.facts["stops"]["mask"]["tau"]}
    if ready.lesion is not None and ready.lesion.any() and found.mask is not None:
        best, at = best_dice(found.map[ready.brain], ready.lesion[ready.brain])
        row |= {
            "lesion_ml": float(ready.lesion.sum()) * ready.voxel_ml,
            "dice_own_mask": dice(found.mask, ready.lesion),
            "hit": bool((found.mask & ready.lesion).any()),
            "dice_best_threshold_oracle": best,
            "best_threshold_oracle": at,
        }
    return row


def rows(
    method: Method, scans: Cohort, masks: str | None, ms: str | None, only: str | None = None, jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """Every case: untouched, pasted by size and contrast, and the MS case; `jobs` scans at a time, in order."""
    chosen = {size: masks_of(masks, *ml, len(scans)) for size, ml in SIZES_ML.items()} if masks else {}

    def cases(index: int) -> list[dict[str, Any]]:
        scan = brain.extract(space.reorient(scans[index]))
        found = [look(method, scan, case="untouched")]
        for size, paths in chosen.items():
            lesion = placed(scan, paths[index % len(paths)])
            for contrast, change in CHANGES.items():
                if lesion.any() and only in (None, f"{contrast} {size}"):
                    found.append(look(method, pasted(scan, lesion, change), case=f"{contrast} {size}"))
        return found

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(cases, range(len(scans))):
            yield from found
    if ms:
        case = files.read_scan({"T1w": Path(ms) / "T1.nii.gz"}, lesion=Path(ms) / "lesion.nii.gz", id="ms-case")
        yield look(method, case, case="MS, T1w")


def summary(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line per case: medians, and what was missed."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in table):
        own = [row for row in table if row["case"] == case]
        line: dict[str, Any] = {
            "case": case,
            "n": len(own),
            "mask_ml_median": np.median([r["mask_ml"] for r in own]),
            "mask_ml_worst": max(r["mask_ml"] for r in own),
        }
        line |= {
            "volume_ml_median": np.median([r["volume_ml"] for r in own]),
            "mean_error_median": np.median([r["mean_error"] for r in own]),
        }
        if "dice_own_mask" in own[0]:
            line |= {
                "lesion_ml_median": np.median([r["lesion_ml"] for r in own]),
                "dice_own_mask": np.mean([r["dice_own_mask"] for r in own]),
                "missed": sum(r["dice_own_mask"] == 0 for r in own),
                "dice_best_threshold_oracle": np.mean([r["dice_best_threshold_oracle"] for r in own]),
            }
        line["seconds_detect"] = np.median([r["seconds_detect"] for r in own])
        lines.append(line)
    return lines


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    splits = verbs.add_parser("split")
    splits.add_argument("healthy")
    splits.add_argument("out")
    fits = verbs.add_parser("fit")
    fits.add_argument("healthy")
    fits.add_argument("--out", required=True)
    evaluate = verbs.add_parser("evaluate")
    evaluate.add_argument("model")
    evaluate.add_argument("--healthy", required=True)
    evaluate.add_argument("--masks")
    evaluate.add_argument("--ms")
    evaluate.add_argument("--part", choices=("validate", "test"), default="test")
    evaluate.add_argument("--limit", type=int, help="only so many scans")
    evaluate.add_argument("--only", help="besides the untouched scans only this case, such as 'bright 10 ml'")
    evaluate.add_argument("--jobs", type=int, default=1, help="so many scans at a time, sharing the threads")
    evaluate.add_argument("--out", required=True)
    given = parser.parse_args()
    if given.verb == "fit":
        fit(given.healthy, given.out)
        return
    parts = split(given.healthy)
    if given.verb == "split":
        files.write_table(given.out, [{"id": id, "split": name} for name, part in parts.items() for id in part.ids])
        return
    table = []
    for row in rows(load(given.model), parts[given.part][: given.limit], given.masks, given.ms, given.only, given.jobs):
        table.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        files.write_table(given.out, table)
    files.write_table(Path(given.out).with_suffix(".summary.tsv"), summary(table))
    print(Path(given.out).with_suffix(".summary.tsv").read_text())


if __name__ == "__main__":
    main()
