"""The protocol of Behrendt's thesis and its papers.

They fit and validate on IXI (Bengs et al. on private scans), find thresholds on labelled scans of the data sets that they test on, and
test on the rest. All parts are drawn by our seed; the thesis prints means over five folds, these are one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from anomri.cohort import Cohort
from anomri.study.papers import Models, lines, part
from anomri.study.plan import Case, Entrant, Source

LABELLED = {
    "BraTS21 (T2)": ("brats2021", "T2w", 100),
    "MSLUB (T2)": ("mslub", "T2w", 10),
    "ATLAS (T1)": ("atlas2", "T1w", 175),
    "WMH (T1)": ("wmh", "T1w", 15),
}
"""The thesis' labelled data: data set, sequence, and how many scans it has to validate on."""
ENSEMBLE = (250, 500, 750)
"""Noise levels of an ensemble of reconstructions."""
MAHALANOBIS: Mapping[str, Any] = {"size": "pddpm", "t_test": 500}
"""Arguments of the cDDPM of "Leveraging the Mahalanobis distance" (section 2.4): channels of 128, 128 and 256. Its scores are those of ten
reconstructions, each with noise of its own: `ssim` of their mean is S_mean, `mhd_diag` S_MHD and `mhd_full`, slice by slice, S_sMHD."""


def ixi(sequence: str, use: str) -> Source:
    """IXI "to fit" (358 subjects), "to validate" (44), or the rest, to "test"; its T2w have a skull.

    Drawn by our seed: the published lists have 7 to 9 of the test subjects among those to fit on.
    """
    index = ("to fit", "to validate", "test").index(use)
    return Source("ixi", sequence, part(index, 358, 44, skull=sequence == "T2w"))


def ixi_to_fit() -> dict[str, Source]:
    """What the thesis fits and validates on: "IXI T1w, to fit" and so on."""
    uses = ("to fit", "to validate")
    return {f"IXI {sequence}, {use}": ixi(sequence, use) for sequence in ("T1w", "T2w") for use in uses}


def labelled(data: Mapping[str, tuple[str, str, int]], *uses: str) -> dict[str, Source]:
    """Parts "data, use" of labelled data, laid out as `LABELLED`; `uses` are "validation" and "test", the rest."""
    return {
        f"{title}, {use}": Source(name, sequence, part(("validation", "test").index(use), n))
        for title, (name, sequence, n) in data.items()
        for use in uses
    }


def cleaned(models: Models, how: str = "behrendt") -> Models:
    """A table's lines, their maps cleaned as the thesis and most of its papers do (section 3.1.2), but for a line that says how itself."""
    return {line: (method, {"cleaning": how, **arguments}) for line, (method, arguments) in models.items()}


def thesis_entrants(
    models: Models, shares: Mapping[str, str], *, calibrate: bool = True, cleaning: str = "behrendt"
) -> dict[str, Entrant]:
    """A table's lines on both sequences, "line, sequence", preprocessed as in the thesis, fitted and validated on `ixi_to_fit`.

    Parameters
    ----------
    models, shares : as in `lines`
    calibrate : are the validation scans to set a threshold, too?
    cleaning : as in `cleaned`
    """
    models = cleaned(models, cleaning)
    found: dict[str, Entrant] = {}
    for sequence in ("T1w", "T2w"):
        validate = f"IXI {sequence}, to validate"
        found |= lines(
            models,
            sequence,
            shares=shares,
            fit=f"IXI {sequence}, to fit",
            validate=validate,
            calibrate=validate if calibrate else None,
            pipeline="behrendt",
        )
    return found


def thesis_cases(models: Collection[str]) -> list[Case]:
    """Every line on the test part of every data set of `LABELLED`, by the entrant of the data's sequence."""
    return [
        Case(
            f"{data}: {model}",
            f"{data}, test",
            facts={"data": data, "model": model},
            only=[f"{model}, {sequence}"],
        )
        for data, (_, sequence, _) in LABELLED.items()
        for model in models
    ]


def mixed_normals(taken: Callable[[Cohort], Cohort]) -> Source:
    """A part of the healthy scans of spatial erasing (Bengs et al., 2021), which are private."""
    return Source(
        sequence="T1w",
        title="MixedNormals",
        variable="MIXED_NORMALS",
        offered="nowhere: private to jung diagnostics GmbH; take healthy T1w scans of many scanners, more than 1807",
        layout="BIDS, sub-01/anat/sub-01_T1w.nii.gz",
        part=taken,
    )


def erasing(model: str) -> tuple[str, dict[str, Any]]:
    """Method and arguments of a line of spatial erasing (Bengs et al., 2021, Table 1), such as 3D-Half-Volume-n.

    Its name is dimensions, what is erased, and zeros (0) or noise (n) in its place. Maps are cleaned by a median and a "slightly eroded"
    brain, neither size is said: those of the thesis.
    """
    dims, *erased = model.split("-")
    method = "vae"
    arguments: dict[str, Any] = {"dims": int(dims[0])}
    if erased != ["None"]:
        fill = {"0": "zero", "n": "noise"}[erased.pop()]
        method = "spatial_erasing"
        arguments |= {"erase": erased[0].lower(), "fill": fill}
    return method, {**arguments, "lr": 1e-3, "batch": 32, "cleaning": "median+erosion"}
