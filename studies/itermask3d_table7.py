"""IterMask3D, second version, Table 7: real artefacts by a threshold for all scans and by each scan's own.

Data
    $OASIS3, $ADNI                          as in itermask3d_table2.py
    $SUSCEPTIBILITY, $ADNI_FAILED_STRIPS    as in itermask3d_table2.py, with the same stand-ins

Split
    ADNI and OASIS-3 come with a skull: ROBEX takes it off, as in the paper (`pip install 'anomri[strip]'`). Of each
    healthy data set 25 subjects held out as controls, 25 more to find the fixed threshold on, the rest to fit on, drawn
    by our seed. The paper does not say on how many it found the threshold. Both rows share their weights: "fixed" takes
    those of "adapt".

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask3d_table7.py --out OUT --data OASIS3=/data/OASIS3 --data ADNI=/data/ADNI

Expected
    `PRINTED`, in percent. "adapt" of the failed strips is 86.1 and 87.5 here, 90.0 and 91.9 in Table 2. The fixed
    threshold is the 80th percentile of the errors under random masks on healthy scans, IterMask²'s; the paper names
    none. Scores are mean errors, as in Table 2.
"""

from __future__ import annotations

from collections.abc import Callable

from anomri.cohort import Cohort
from anomri.errors import BadCall
from anomri.method import Method
from anomri.methods.itermask3d import IterMask3D, healthy_tau
from anomri.study import Change, Entrant, Plot, Source, Study, Table
from anomri.study.changes import artefact
from anomri.study.papers import expected, part
from anomri.study.papers.itermask import HEALTHY, artefact_cases, real_artefacts

METRICS = ("AUROC", "AUPRC")
MODELS = ("Itermask3D - fixed", "Itermask3D - adapt")
SUSCEPTIBILITY, STRIPS = "Metallic Susceptibility Artifact", "Failed skull-stripping"

PRINTED = {
    SUSCEPTIBILITY: {"Itermask3D - fixed": (89.3, 91.8), "Itermask3D - adapt": (99.7, 99.6)},
    STRIPS: {"Itermask3D - fixed": (72.0, 76.6), "Itermask3D - adapt": (86.1, 87.5)},
}
EXPECTED = expected(PRINTED, METRICS)


# 200 epochs of the scans of each sequence, two at a time.
STEPS = {"T2w": 70_500, "FLAIR": 91_100}
# Group of columns: its sequence, its source, and what is done to the scans.
LOOKED_AT: dict[str, tuple[str, str, Change | None]] = {
    SUSCEPTIBILITY: ("T2w", "T2w with metal", None),
    STRIPS: ("FLAIR", "ADNI FLAIR, failed strips", None),
    "susceptibility, synthetic": ("T2w", "healthy T2w, held out", artefact("susceptibility")),
    "residual tissue, synthetic": ("FLAIR", "healthy FLAIR, held out", artefact("residual_tissue")),
    "missing brain, synthetic": ("FLAIR", "healthy FLAIR, held out", artefact("missing_brain")),
}


def fixed(source: str) -> Callable[[Method, Callable[[str], Cohort]], None]:
    """Gives the method a threshold for all scans, found on a source of healthy ones."""

    def then(method: Method, opened: Callable[[str], Cohort]) -> None:
        if not isinstance(method, IterMask3D):
            raise BadCall(f"a fixed tau is IterMask3D's, the method is {method.name}; give a model of IterMask3D")
        method.tau = healthy_tau(method, opened(source))

    return then


CASES = artefact_cases(LOOKED_AT, {sequence: f"healthy {sequence}, held out" for sequence in HEALTHY}, MODELS)
STUDY = Study(
    name="itermask3d-table7",
    title="Fixed against adaptive threshold, real artefacts",
    paper="Liang et al., IterMask3D, second version, Table 7",
    entrants={
        **{
            f"Itermask3D - adapt, {sequence}": Entrant(
                "itermask3d", {"steps": steps}, fit=f"healthy {sequence}, to fit", score="mean_error"
            )
            for sequence, steps in STEPS.items()
        },
        **{
            f"Itermask3D - fixed, {sequence}": Entrant(
                "itermask3d",
                shares=f"Itermask3D - adapt, {sequence}",
                then=fixed(f"healthy {sequence}, for tau"),
                score="mean_error",
            )
            for sequence in HEALTHY
        },
    },
    sources={
        **{
            f"healthy {sequence}, {use}": Source(name, sequence, part(index, 25, 25, skull=True, facts=facts))
            for sequence, (_, name, facts) in HEALTHY.items()
            for index, use in enumerate(("held out", "for tau", "to fit"))
        },
        **real_artefacts("the docstring of itermask3d_table2.py"),
    },
    cases=CASES,
    measures=(),
    tables=[
        Table(
            "table7",
            "Fixed against adaptive threshold (IterMask3D v2, Table 7)",
            METRICS,
            rows=("model",),
            across=("artefact",),
            cases=[case.name for case in CASES if case.against],
            expected=EXPECTED,
        )
    ],
    plots=[Plot("scores", "Case scores", "box", y="score", x="artefact")],
)
