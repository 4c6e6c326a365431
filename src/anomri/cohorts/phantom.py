"""Scans made from what packages ship: no downloads, nothing private, free to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from anomri.corruptions.lesions import blob, paste
from anomri.preprocess.space import mni152
from anomri.scan import Scan


def template_with_lesion(
    *, ml: float = 12.0, change: float = 2.5, mni_mm: Sequence[float] = (26.0, 34.0, 22.0), seed: int = 0
) -> Scan:
    """The MNI152 T1 template (1 mm, nilearn's) with a lesion planted in it, and its truth.

    Parameters
    ----------
    ml : the lesion's volume
    change : its intensity above the brain's mean, in SD of the brain
    mni_mm : its centre, in MNI coordinates (right, anterior, superior)
    """
    healthy = mni152()
    centre = np.linalg.inv(healthy.affine) @ np.array([*mni_mm, 1.0])
    shape = blob(healthy.grid.shape, list(centre[:3]), ml, healthy.spacing, torch.Generator().manual_seed(seed))
    image, lesion = paste(torch.tensor(healthy.image), torch.tensor(healthy.brain), shape, change, healthy.spacing)
    return healthy.with_(image=image.numpy(), lesion=lesion.numpy(), id="template")
