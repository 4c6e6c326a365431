"""cDDPM with a pre-trained encoder, fitted by one of the processes that share it: python pretraining.py OUT"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from anomri import files
from anomri.cohort import Cohort
from anomri.methods.cddpm import CDDPM
from anomri.train import Job, processes
from helpers import phantom

if __name__ == "__main__":
    torch.set_num_threads(1)
    tiny = {"size": "small", "width": 4, "context": 6, "augmented": False, "steps": 2, "batch": 4}
    # Of four cells, three of which are hidden.
    cohort = Cohort([phantom(n, shape=(64, 72, 12)) for n in range(2)])
    method = CDDPM(**tiny, pretrained=True, pretraining_steps=2)
    method.fit(cohort, job=Job(device="cpu", precision="float32"))
    files.write_tensors(Path(sys.argv[1]) / f"rank-{processes()[0]}.safetensors", method.net.state_dict())
