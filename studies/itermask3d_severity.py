"""IterMask3D, second version, Fig. 5: AUROC over the severity of each synthetic artefact.

Data
    $ADNI   FLAIR of cognitively normal subjects

Split
    ADNI comes with a skull: ROBEX takes it off, as in the paper (`pip install 'anomri[strip]'`). 25 subjects held out,
    the rest to fit on, drawn by our seed (as in itermask3d_table1.py, whose model serves: `--model IterMask3D=FOLDER`).

Command (not run here: no machine of ours has the data)
    anomri study run studies/itermask3d_severity.py --out OUT --data ADNI=/data/ADNI

Expected
    Fig. 5 varies the width of the missing chunks, the noise's scale, the spike's intensity, the bias field's
    coefficients, the ghosts' intensity and the number of zippers. Its values and its curves are not in the text:
    nothing is expected but Table 1's AUROC at severity 1.
"""

from __future__ import annotations

from anomri.study import Case, Plot, Study, Table
from anomri.study.changes import artefact
from anomri.study.papers.itermask import HELD_OUT, fitted, healthy

SEVERITIES = (0.25, 0.5, 1.0, 2.0, 4.0)
# AUROC of IterMask3D in Table 1.
PRINTED = {
    "chunk missing (top)": ("chunk_top", 82.0),
    "chunk missing (middle)": ("chunk_middle", 95.5),
    "Gaussian noise": ("gaussian_noise", 100.0),
    "spike noise": ("spike", 97.2),
    "bias field": ("bias_field", 96.2),
    "ghosting": ("ghosting", 98.0),
    "zipper": ("zipper", 98.0),
}


CHANGED = [
    Case(
        f"{name}, severity {severity:g}",
        HELD_OUT["FLAIR"],
        artefact(kind, severity),
        prepared=True,
        against="normal",
        facts={"artefact": name, "severity": severity},
    )
    for name, (kind, _) in PRINTED.items()
    for severity in SEVERITIES
]
STUDY = Study(
    name="itermask3d-severity",
    title="Severity of synthetic artefacts",
    paper="Liang et al., IterMask3D, second version, Fig. 5",
    entrants={"IterMask3D": fitted("itermask3d", {}, "FLAIR")},
    sources=healthy("FLAIR", "to fit", "held out"),
    cases=[Case("normal", HELD_OUT["FLAIR"], anomalous=False), *CHANGED],
    measures=(),
    tables=[
        Table(
            "severity",
            "AUROC over severity (IterMask3D v2, Fig. 5)",
            ("AUROC",),
            rows=("artefact",),
            across=("severity",),
            cases=[case.name for case in CHANGED],
            expected={(name, "1.0", "AUROC"): value for name, (_, value) in PRINTED.items()},
            note="Severity 1 is Table 1's; 0 would change nothing.",
        )
    ],
    plots=[
        Plot(
            "severity",
            "AUROC over severity",
            "curve",
            y="AUROC",
            x="severity",
            by="artefact",
            cases=[case.name for case in CHANGED],
        )
    ],
)
