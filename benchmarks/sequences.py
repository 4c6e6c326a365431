"""Learns what T1w, T2w and FLAIR look like (`preprocess/sequences.json`), and says how often it is right on scans that it has not seen.

Command (two cores: five minutes)
    python benchmarks/sequences.py --healthy-t1 ds002748/ --varied varied/ --repainted repainted/ --out sequences.json

The scans are those of studies/shipped_weights.py, of its three data sets what is there to fit on; the phantoms to look at are of other heads
and scanners. `--scan T2w=brain.nii.gz` looks at scans of one's own, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from anomri import files, preprocess
from anomri.preprocess import sequence
from anomri.scan import Scan
from anomri.study import Source
from anomri.study.ours import healthy_t1, phantoms, repainted

STEPS = preprocess.preset("itermask3d", spacing=sequence.GRID_MM)
SEQUENCES = ("T1w", "T2w", "FLAIR")


def rounded(number: object) -> object:
    """Numbers, in lists of lists, to six digits after the point."""
    return [rounded(one) for one in number] if isinstance(number, list) else round(float(str(number)), 6)


def told(name: str, called: str, scans: Iterable[Scan], likeness: partial[dict[str, float]]) -> None:
    """A line on scans of a known sequence: for how many it is the likeliest, and how many would be said to look like another."""
    found = [likeness(scan) for scan in scans]
    right = sum(max(like, key=lambda one: like[one]) == called for like in found)
    wrong = sum(max(like.values()) >= sequence.SURE and like[called] != max(like.values()) for like in found)
    least = min(like[called] for like in found)
    print(
        f"{name:28} {right:3} of {len(found):3} right, {wrong:3} called wrong, least probability {least:.3f}",
        flush=True,
    )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy-t1", required=True)
    parser.add_argument("--varied", required=True)
    parser.add_argument("--repainted", required=True)
    parser.add_argument("--scan", action="append", default=[], metavar="SEQUENCE=FILE")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    places = {"HEALTHY_T1": given.healthy_t1, "VARIED": given.varied, "REPAINTED": given.repainted}

    def opened(source: Source) -> Iterable[Scan]:
        return source.open(places).map(*STEPS)

    seen = {name: [*opened(phantoms(name, "fit")), *opened(repainted(0, name))] for name in SEQUENCES}
    seen["T1w"] += list(opened(healthy_t1(0)))
    table = sequence.learn(seen)
    table = {
        "scans": table["scans"],
        "means": {k: rounded(v) for k, v in table["means"].items()},
        "covariance": rounded(table["covariance"]),
    }
    files.write_json(given.out, table)
    likeness = partial(sequence.likeness, table=table)
    for name in SEQUENCES:
        told(f"{name}, seen", name, seen[name], likeness)
        told(
            f"{name}, other heads",
            name,
            [scan for use in ("validate", "choose", "other") for scan in opened(phantoms(name, use))],
            likeness,
        )
        told(f"{name}, repainted, not seen", name, opened(repainted(1, name)), likeness)
    told("real T1w, not seen", "T1w", opened(healthy_t1(1)), likeness)
    for said in given.scan:
        name, _, path = said.partition("=")
        told(Path(path).name, name, [preprocess.run(STEPS, files.read_scan({name: path}))], likeness)


if __name__ == "__main__":
    main()
