"""Every method that trains, on one scan alone: a method that cannot learn one scan by heart has a fault, whatever its paper says.

Command (two cores: about 25 minutes; --steps 30 for a look)
    python benchmarks/overfit.py --out overfit/ [--scan brain_T1w.nii.gz]

The scan is one's own, stripped, or a phantom. Each method has the arguments of studies/controlled.py, which have no dropout; what hides a
part of the image is left on: the loss then ends above 0, at what cannot be known.
Writes `overfit.tsv`, the loss of every step, and `overfit.png`, the same as curves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from anomri import files, preprocess, study
from anomri.cohort import Cohort
from anomri.cohorts import phantom
from anomri.methods import make
from anomri.study import Entrant
from anomri.train import Job

STUDY = study.load(Path(__file__).parent.parent / "studies" / "controlled.py")
METHODS = {name: entrant for name, entrant in STUDY.entrants.items() if "steps" in entrant.arguments}
"""What studies/controlled.py trains, with its arguments."""


def curve(entrant: Entrant, scans: Cohort, steps: int) -> dict[str, list[float]]:
    """Loss of every step, of each network that the method trains."""
    told: list[tuple[int, float]] = []
    method = make(entrant.method, **{**entrant.arguments, "steps": steps})
    method.fit(scans, job=Job(every=10**9, progress=lambda at: told.append((at["step"], at["loss"]))))
    found: dict[str, list[float]] = {}
    for step, loss in told:
        if step == 1:
            found[str(len(found) + 1)] = []
        found[str(len(found))].append(loss)
    return found


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="*", help="names of METHODS")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    scan = files.read_scan({"T1w": given.scan}) if given.scan else next(iter(phantom.healthy(1)))
    scans = Cohort([preprocess.run(preprocess.preset("itermask3d", spacing=2.0), scan)])
    rows, curves = [], {}
    for title, entrant in METHODS.items():
        if given.only and title not in given.only:
            continue
        for network, losses in curve(entrant, scans, given.steps).items():
            line = title if network == "1" else f"{title}, network {network}"
            curves[line] = np.array(losses)
            rows += [{"method": line, "step": step + 1, "loss": loss} for step, loss in enumerate(losses)]
            last = curves[line][-10:].mean()
            print(f"{line:40} {losses[0]:8.4f} to {last:8.4f}, {losses[0] / last:6.1f} times less", flush=True)
    files.write_table(given.out / "overfit.tsv", rows, ["method", "step", "loss"])
    across = 3
    figure, axes = plt.subplots(
        -(-len(curves) // across), across, figsize=(11, 2.4 * -(-len(curves) // across)), squeeze=False
    )
    for axis, (line, losses) in zip(axes.flat, curves.items(), strict=False):
        axis.semilogy(np.arange(1, len(losses) + 1), losses, color="#1f5f99", linewidth=1)
        axis.set_title(line, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("loss on the one scan", fontsize=9)
    figure.tight_layout()
    figure.savefig(given.out / "overfit.png", dpi=110)


if __name__ == "__main__":
    main()
