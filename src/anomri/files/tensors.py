"""Named tensors (weights, checkpoints, histograms) and NumPy arrays. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomri.errors import BadInput
from anomri.files.opening import reading, replacing, short


def write_tensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Writes named tensors as safetensors, atomically."""
    from safetensors.torch import save

    with replacing(path) as part:
        part.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Reads safetensors; raises `BadInput` where the file is missing or damaged. Runs no code from the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with reading(path) as file:
        # Rust's message for a missing file says less than the operating system's.
        file.open("rb").close()
        try:
            return load_file(file)
        except SafetensorError as error:
            raise BadInput(
                f"weights '{path}' are damaged or not safetensors ({short(error)}); copy the model folder again"
            ) from error


def read_array(path: str | Path) -> NDArray[Any]:
    """Reads a `.npy` file of numbers; raises `BadInput` where it is none. Runs no code from the file."""
    with reading(path) as file:
        try:
            return np.asarray(np.load(file, allow_pickle=False))
        except ValueError as error:
            raise BadInput(f"'{path}' is no array of numbers (.npy); copy it again") from error
