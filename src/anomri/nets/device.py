"""Where networks run, and in which precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from anomri.errors import BadInput, unknown


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises `BadInput` where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device '{name}' is not available here; use --device cpu") from error
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where asked for, or where "auto" and the processor multiplies it in hardware; else float32."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
            fast = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
        return torch.bfloat16 if fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise unknown("precision", name, ["auto", *known])
    return known[name]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Runs the network in `dtype` where that is not float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
