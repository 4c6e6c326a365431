"""How a trained network is run: batch norm folded, weights of up-sampled convolutions added, channels last, in the processor's
fast precision; by torch, or on a CPU by OpenVINO where that is installed.

An engine is made once for a network and remembered until its weights change, by each thread its own: threads do not wait for each
other. What takes long, the graph that OpenVINO makes of a network, they share.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anomri.errors import BadInput, unknown
from anomri.nets.fused import FusedConv, SlabConv, UpByPlaces, UpInPieces
from anomri.nets.layers import CONVOLUTIONS, TRANSPOSED, Dropout, UpConv3d, layout

Run = Callable[..., Tensor]
"""float32 to float32, what the network computes in eval mode: of images, and of vectors where it is given those beside them."""
ENGINES = ("auto", "torch", "openvino")
SHAPES = 4
"""Of how many shapes of slices, met more than once, OpenVINO keeps a graph for that shape alone: it takes a quarter to a third less time."""


def pick_engine(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """torch or openvino. Raises `BadInput` where what is asked for cannot be had.

    "auto" is openvino on a CPU without bfloat16 arithmetic, where it is installed: it is up to twice as fast in float32 where
    channels are few; in bfloat16 torch is (docs/decisions/0007).
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    there = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and (not there or device.type != "cpu"):
        why = f"it runs on a CPU, not on '{device}'" if there else "it is not installed; pip install 'anomri[openvino]'"
        raise BadInput(f"engine 'openvino' cannot be used here: {why}, or take engine 'torch'")
    if name == "auto":
        return "openvino" if there and device.type == "cpu" and dtype == torch.float32 else "torch"
    return name


_KEPT = threading.local()
_GRAPHS: WeakKeyDictionary[nn.Module, tuple[object, Any]] = WeakKeyDictionary()
_MAKING = threading.Lock()


def engine(net: nn.Module, device: torch.device, dtype: torch.dtype, name: str = "torch") -> Run:
    """A fast function that computes what `net` computes in eval mode; `net` itself stays as it is.

    Parameters
    ----------
    dtype : the precision that the convolutions run in; bfloat16 differs from float32 by about half a percent
    name : torch or openvino, as `pick_engine` says; torch, with a warning, for a network that OpenVINO cannot run

    A network that takes vectors `(B, n)` beside images says n as its attribute `vector`.
    """
    kept: WeakKeyDictionary[nn.Module, tuple[object, dict[object, Run]]] = _KEPT.__dict__.setdefault(
        "engines", WeakKeyDictionary()
    )
    weights = [(id(t), t.data_ptr(), t._version) for t in (*net.parameters(), *net.buffers())]
    if net not in kept or kept[net][0] != weights:
        kept[net] = (weights, {})
    how = (device, dtype, name, torch.get_num_threads())
    made = kept[net][1]
    if how not in made:
        made[how] = _made(net, weights, device, dtype, name)
    return made[how]


def _made(net: nn.Module, weights: object, device: torch.device, dtype: torch.dtype, name: str) -> Run:
    if name == "openvino":
        try:
            with _MAKING:
                if net not in _GRAPHS or _GRAPHS[net][0] != weights:
                    _GRAPHS[net] = (weights, _graph(_ready(net)))
            return _openvino(_GRAPHS[net][1], dtype)
        except Exception as error:  # Whatever it dislikes in a network, torch can run it.
            said = " ".join(str(error).split())[:200]
            warnings.warn(f"openvino cannot run this network, torch does ({type(error).__name__}: {said})")
    return _torch(_ready(net), device, dtype)


def _torch(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Run:
    channels_last(model.to(device))
    if device.type == "cpu":
        _fuse(model, dtype)

    @torch.inference_mode()
    def run(x: Tensor, *given: Tensor) -> Tensor:
        # Autocast, not a cast of the network: some layers have no bfloat16 kernel on a CPU.
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            y: Tensor = model(x.to(device, memory_format=layout(x)), *(one.to(device) for one in given))
        return y.float()

    return run


def _graph(model: nn.Module) -> Any:
    """A network as OpenVINO has it, for any batch and any grid."""
    import openvino

    for tensor in model.parameters():
        tensor.data = tensor.data.contiguous()
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    axes = first.weight.ndim - 2
    with warnings.catch_warnings():
        # It still traces by what torch calls deprecated.
        warnings.simplefilter("ignore")
        # A network of one grid, such as one with a dense latent, says so.
        edges, vector = getattr(model, "edges", None), getattr(model, "vector", None)
        image = torch.zeros(1, first.in_channels, *(edges or [32] * axes))
        example = image if vector is None else (image, torch.zeros(1, vector))
        graph = openvino.convert_model(model, example_input=example)
    shape = [-1, first.in_channels, *(edges or [-1] * axes)]
    graph.reshape(shape if vector is None else {0: shape, 1: [-1, vector]})
    return graph


def _openvino(graph: Any, dtype: torch.dtype) -> Run:
    import numpy as np
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(graph, "CPU", hints).create_infer_request()
    slices = len(graph.inputs[0].partial_shape) == 4
    seen: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()

    def of_shape(*shapes: tuple[int, ...]) -> Any:
        """A request for these shapes alone where they have come before, for any shapes where not."""
        # Only in bfloat16: fixed shapes in float32 crash OpenVINO 2026.4. Volumes gain a tenth, and come in many shapes.
        if not slices or dtype != torch.bfloat16:
            return request
        if shapes in seen and seen[shapes] is None:
            with _MAKING:
                fixed = graph.clone()
            fixed.reshape(dict(enumerate(map(list, shapes))))
            seen[shapes] = core.compile_model(fixed, "CPU", hints).create_infer_request()
        seen.setdefault(shapes, None)
        seen.move_to_end(shapes)
        if len(seen) > SHAPES:
            seen.popitem(last=False)
        return seen[shapes] or request

    def run(*given: Tensor) -> Tensor:
        # Shared: a request's own copy of an input cannot grow with the next scan.
        arrays = {n: np.ascontiguousarray(one.detach().numpy(), dtype=np.float32) for n, one in enumerate(given)}
        found = of_shape(*(one.shape for one in arrays.values())).infer(arrays, share_inputs=True)[0]
        return torch.from_numpy(found)

    return run


def channels_last(net: nn.Module) -> nn.Module:
    """The network with its 2D and 3D convolution weights laid out channels last, in place; gives it back."""
    for tensor in (*net.parameters(), *net.buffers()):
        # Not `contiguous`, which leaves weights of one input channel as they are: torch then takes the other layout throughout.
        tensor.data = tensor.data.to(memory_format=layout(tensor))
    return net


def _ready(net: nn.Module) -> nn.Module:
    """A copy that only infers."""
    model = copy.deepcopy(net).eval().requires_grad_(False)
    fold(model)
    _replace(model, lambda layer: isinstance(layer, UpConv3d), UpConv3d.fixed)
    for parent in list(model.modules()):
        if (
            isinstance(parent, nn.Sequential)
            and len(parent) > 1
            and isinstance(parent[0], (*CONVOLUTIONS, *TRANSPOSED))
        ):
            *between, last = list(parent)[1:]
            if isinstance(last, nn.PReLU) and last.num_parameters == 1 and all(map(_passes, between)):
                # What comes out of a convolution is nobody else's: it may be changed in place.
                parent[-1] = nn.LeakyReLU(float(last.weight), inplace=True)
    return model


def _replace(model: nn.Module, which: Callable[[nn.Module], bool], by: Callable[[Any], nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if which(child):
                parent._modules[name] = by(child)


def _fuse(model: nn.Module, dtype: torch.dtype) -> None:
    """Every convolution in the form that a CPU computes quickest, with the rectifier that follows it in a `Sequential`."""
    for chain in list(model.modules()):
        places = list(_leaves(chain)) if isinstance(chain, nn.Sequential) else []

        def slope(at: int, places: list[tuple[nn.Module, str, nn.Module]] = places) -> float | None:
            """Of the rectifier at a place; None where there is none."""
            layer = places[at][2] if at < len(places) else None
            if isinstance(layer, nn.LeakyReLU):
                return float(layer.negative_slope)
            return 0.0 if isinstance(layer, nn.ReLU) else None

        def put(at: int, layer: nn.Module, count: int, places: list[tuple[nn.Module, str, nn.Module]] = places) -> None:
            for offset in range(count):
                parent, name, _ = places[at + offset]
                parent._modules[name] = nn.Identity() if offset else layer

        at = 0
        while at < len(places):
            conv, after = places[at][2], slope(at + 1)
            if not FusedConv.suits(conv):
                at += 1
                continue
            count = 1 if after is None else 2
            fused = FusedConv(conv, 1.0 if after is None else after, dtype)
            last = places[at + count][2] if at + count < len(places) else None
            if UpByPlaces.suits(conv):
                put(at, UpByPlaces(conv, 1.0 if after is None else after, dtype), count)
            elif last is not None and UpInPieces.suits(conv, last):
                below = slope(at + count + 1)
                second = SlabConv(last, dtype) if SlabConv.suits(last) else FusedConv(last, dtype=dtype)
                count += 1 if below is None else 2
                put(at, UpInPieces(fused, second, 1.0 if below is None else below), count)
            elif count == 2 or not SlabConv.suits(conv):
                put(at, fused, count)
            at += count
    _replace(model, SlabConv.suits, lambda conv: SlabConv(conv, dtype))
    _replace(model, FusedConv.suits, lambda conv: FusedConv(conv, dtype=dtype))


def _leaves(chain: nn.Sequential) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The layers of a chain in their order, those of chains within it too, each with whom it belongs to and its name there."""
    for name, layer in chain.named_children():
        if isinstance(layer, nn.Sequential):
            yield from _leaves(layer)
        elif not _passes(layer):
            yield chain, name, layer


def _passes(layer: nn.Module) -> bool:
    """Whether a layer gives back what it is given, in eval mode."""
    return isinstance(layer, nn.Identity | Dropout | nn.Dropout | nn.Dropout2d | nn.Dropout3d)


def fold(module: nn.Module) -> None:
    """Folds every batch norm that follows a convolution in a `Sequential` into it, in place; exact in eval mode."""
    for child in module.children():
        fold(child)
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = module._modules[first], module._modules[second]
            if isinstance(conv, (*CONVOLUTIONS, *TRANSPOSED)) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                module._modules[first] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, TRANSPOSED))
                module._modules[second] = nn.Identity()
