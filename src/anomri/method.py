"""What every method is: `fit` on healthy scans, `calibrate` on other healthy scans, `detect` on one scan.

A method says how it learns (`learn`) and what it finds (`find`); everything else is done here, once, and the same for all: the
map is zero outside the brain, scores are pooled, masks are cut, arguments and seeds are recorded, weights are saved.
"""

from __future__ import annotations

import inspect
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from anomri import files, preprocess
from anomri.cohort import Cohort, Step
from anomri.errors import BadCall, BadInput, NotFitted, unknown
from anomri.nets.device import pick_device, pick_precision
from anomri.nets.engine import pick_engine
from anomri.scan import Detection, Finding, Scan
from anomri.scoring.cleaning import cleaning
from anomri.scoring.thresholds import healthy_threshold
from anomri.train import Job, generator

FORMAT = 1
NO_PRESET = "none"
"""The preset of scans that are preprocessed already: no step, no arguments."""


class Method(ABC):
    """A way to find what is abnormal. Subclasses store each constructor argument under its own name: that is the configuration.

    What is learned lives in `nn.Module` attributes made by the constructor; they are saved and loaded by name. Class
    attributes say what `anomri methods` lists.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    dimensions: ClassVar[str]
    needs: ClassVar[str] = "healthy scans"
    map_unit: ClassVar[str]
    #: Names of arguments that weights do not depend on.
    weightless: ClassVar[frozenset[str]] = frozenset()

    #: Preprocessing of the scans it was fitted on: a preset's name (or `NO_PRESET`) and arguments. Kept with the weights.
    preset: str = "itermask3d"
    preset_arguments: Mapping[str, Any] = {}
    #: A map's threshold from healthy scans, for methods without a mask of their own; set by `calibrate`.
    threshold: float | None = None
    #: Facts about the data that it learned from: number of scans, digest, spacing, sequences.
    data: Mapping[str, Any] = {}
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    weights_sha256: str | None = None
    #: How a map, and the mask cut from it, are cleaned: one of `scoring.cleaning.CLEANINGS`.
    cleaning: str = "none"

    @abstractmethod
    def learn(self, healthy: Cohort, validation: Cohort | None, rng: torch.Generator, job: Job) -> Mapping[str, Any]:
        """Learns from preprocessed healthy scans; returns facts worth keeping (losses, best step)."""

    @abstractmethod
    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        """Looks at one preprocessed scan."""

    def build(self, data: Mapping[str, Any]) -> None:  # noqa: B027, a hook that most leave empty
        """Makes the networks whose shape depends on the scans that were learned from, before weights are loaded into them."""

    def settle(self, healthy: Cohort, seed: int) -> None:  # noqa: B027, another
        """Finds what a method itself takes from the healthy scans of `calibrate`, before it looks at them."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def learning(self) -> dict[str, Any]:
        """The arguments that weights depend on."""
        return {name: value for name, value in self.arguments.items() if name not in self.weightless}

    @property
    def fitted(self) -> bool:
        """Whether it has learned, or weights were loaded."""
        return bool(self.data)

    def pipeline(self, **changes: Any) -> tuple[Step, ...]:
        """The preprocessing that a raw scan needs before `detect`: the preset it was fitted with, with changes.

        Raises `BadCall` where the preset is not known or does not take an argument.
        """
        return steps_of(self.preset, {**self.preset_arguments, **changes})

    @final
    def fit(self, healthy: Cohort, *, validation: Cohort | None = None, seed: int = 0, job: Job | None = None) -> Self:
        """Learns what is normal from preprocessed healthy scans.

        Parameters
        ----------
        validation : other healthy scans, on which the best weights are picked; never test scans
        job : device, checkpoints, progress

        Raises `BadCall` where a scan is in both cohorts, `BadInput` where the scans do not fit together.
        """
        if len(healthy) == 0:
            raise BadCall("no healthy scan to fit on; the cohort is empty")
        both = set(healthy.ids) & set(validation.ids if validation else ())
        if both:
            raise BadCall(
                f"scan '{min(both)}' is both among the scans to fit and to validate on ({len(both)} are); split the cohort"
            )
        healthy = healthy.map(_without_truth).kept()
        validation = validation.map(_without_truth).kept() if validation else None
        first = healthy[0]
        seen: list[dict[str, None]] = [{} for _ in first.sequences]
        for scan in (*healthy, *(validation or ())):
            if not np.allclose(scan.spacing, first.spacing, rtol=0.01) or len(scan.sequences) != len(first.sequences):
                raise BadInput(
                    f"scan '{scan.id}' has {_mm(scan)} and {len(scan.sequences)} channels, '{first.id}' {_mm(first)} and {len(first.sequences)}; "
                    "preprocess all scans alike (cohort.map(*preset(...)))"
                )
            if not scan.brain.any():
                raise BadInput(
                    f"scan '{scan.id}': its brain mask is empty; check the brain extraction or leave the scan out"
                )
            for names, name in zip(seen, scan.sequences, strict=True):
                names[name] = None
        job = job or Job()
        start = self.weights_sha256 if job.warm else None
        facts = self.learn(healthy, validation, generator(seed, "fit"), job)
        self.data = {
            "scans": len(healthy),
            "validation_scans": len(validation or ()),
            "digest": healthy.digest(),
            "spacing_mm": [round(s, 4) for s in first.spacing],
            "sequences": list(first.sequences),
            "learned": [list(names) for names in seen],
            "seed": seed,
            "start_weights_sha256": start,
            **facts,
        }
        self.weights_sha256 = self.threshold = None
        return self

    @property
    def learned(self) -> tuple[tuple[str, ...], ...]:
        """The sequences that each channel was seen in: one, or several where it learned from scans of each."""
        found = self.data.get("learned") or [[name] for name in self.data.get("sequences", ())]
        return tuple(tuple(names) for names in found)

    @final
    def calibrate(self, healthy: Cohort, *, rate: float = 0.01, seed: int = 0) -> Self:
        """Sets the map's threshold so that a share `rate` of the brain voxels of other healthy scans exceeds it.

        Also keeps the case scores of those scans, so that a score can be placed among healthy ones. Never uses labels.
        """
        if len(healthy) == 0:
            raise BadCall("no healthy scan to calibrate on; the cohort is empty")
        self._check_fitted()
        before = self.data
        try:
            self.settle(healthy, seed)
            maps, scores = [], []
            for scan in healthy:
                detection = self.detect(scan, seed=seed)
                maps.append(detection.map[scan.brain])
                scores.append(dict(detection.scores))
            self.threshold = healthy_threshold(maps, rate)
        except BaseException:
            # A calibration that fails leaves the method as it was.
            self.data = before
            raise
        reference = {name: sorted(s[name] for s in scores) for name in scores[0]}
        self.data = {
            **self.data,
            "calibration": {
                "scans": len(healthy),
                "rate": rate,
                "digest": healthy.digest(),
                "healthy_scores": reference,
            },
        }
        return self

    @final
    def detect(self, scan: Scan, *, seed: int = 0) -> Detection:
        """What is abnormal in one preprocessed scan. The same scan and seed give the same answer, whatever ran before.

        Draws depend on the seed, not on the scan: all scans are looked at by the same draws, which scores of a cohort are compared under.
        Raises `NotFitted` before `fit`, `BadInput` where the scan was not preprocessed as the scans of `fit` were.
        """
        self._check_fitted()
        spacing, sequences = self.data["spacing_mm"], self.data["sequences"]
        if not np.allclose(scan.spacing, spacing, rtol=0.01):
            raise BadInput(
                f"scan '{scan.id}' has {_mm(scan)}, the model was fitted at {' x '.join(f'{s:g}' for s in spacing)} mm; run preprocess.run(method.pipeline(), scan) first"
            )
        if len(scan.sequences) != len(sequences):
            raise BadInput(
                f"scan '{scan.id}' has {len(scan.sequences)} channels ({', '.join(scan.sequences)}), the model needs {', '.join(sequences)}"
            )
        if not scan.brain.any():
            raise BadInput(
                f"scan '{scan.id}': its brain mask is empty; check the brain extraction (--brain gives a mask)"
            )
        begun = time.perf_counter()
        finding = self.find(_without_truth(scan), generator(seed, "detect"))
        clean = cleaning(self.cleaning)
        error = clean.map(np.where(scan.brain, finding.map, 0).astype(np.float32), scan.brain)
        if not np.isfinite(error).all():
            raise BadInput(
                f"scan '{scan.id}': {self.name} gave a map with NaN or infinite values; check the scan's intensities"
            )
        mask = finding.mask
        if mask is None and self.threshold is not None:
            mask = clean.mask(error > self.threshold)
        if mask is not None:
            mask = mask & scan.brain
        inside = error[scan.brain]
        scores = {**finding.scores, "mean_error": float(inside.mean()) if inside.size else 0.0}
        facts = {
            "method": self.name,
            "arguments": self.arguments,
            "map_unit": self.map_unit,
            "threshold": self.threshold,
            "seed": seed,
            "seconds": {"detect": time.perf_counter() - begun},
            "weights_sha256": self.weights_sha256,
            "versions": versions(),
        }
        return Detection(scan, error, scores, mask, finding.healthy, finding.trace, facts)

    @final
    def begin_with(self, other: Method) -> Self:
        """Takes another model's weights as a start for `fit` with `Job(warm=True)`; raises `BadCall` where they do not fit."""
        theirs = other.networks()
        self.build(other.data)
        for part, net in self.networks().items():
            try:
                net.load_state_dict(theirs[part].state_dict())
            except (KeyError, RuntimeError) as error:
                raise BadCall(
                    f"the weights of {other.name} {other.arguments} do not fit {self.name} {self.arguments}; use the arguments that they were made with"
                ) from error
        self.weights_sha256 = other.weights_sha256
        return self

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise NotFitted(
                f"{self.name} has not learned yet; call fit(healthy), or load weights with anomri.load(folder)"
            )

    def networks(self) -> dict[str, nn.Module]:
        """What it learned, by attribute."""
        return {name: part for name, part in vars(self).items() if isinstance(part, nn.Module)}

    def runtime(self) -> tuple[torch.device, torch.dtype, str]:
        """Device, precision and engine that networks run in."""
        device = pick_device(self.device)
        dtype = pick_precision(self.precision, device)
        return device, dtype, pick_engine(self.engine, device, dtype)

    @final
    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a model folder: `weights.safetensors` and `model.json`.

        Parameters
        ----------
        half : store weights as bfloat16, half the size; they come back as float32

        Raises `NotFitted` where there is nothing to save.
        """
        if not self.fitted:
            raise NotFitted(f"{self.name} has not learned yet; call fit(healthy) before save")
        folder = Path(folder)
        tensors: dict[str, Tensor] = {}
        for part, net in self.networks().items():
            for key, value in net.state_dict().items():
                tensors[f"{part}.{key}"] = value.to(torch.bfloat16) if half and value.is_floating_point() else value
        files.write_tensors(folder / "weights.safetensors", tensors)
        self.weights_sha256 = files.sha256(folder / "weights.safetensors")
        about = {
            "format": FORMAT,
            "method": self.name,
            "arguments": self.arguments,
            "preset": self.preset,
            "preset_arguments": dict(self.preset_arguments),
            "threshold": self.threshold,
            "data": dict(self.data),
            "weights_sha256": self.weights_sha256,
            "versions": versions(),
        }
        files.write_json(folder / "model.json", about)
        return folder

    @final
    def take(self, folder: Path, about: Mapping[str, Any]) -> Self:
        """Takes weights and facts from a model folder; `methods.load` calls it. Raises `BadInput` where they do not fit."""
        path = folder / "weights.safetensors"
        tensors = files.read_tensors(path)
        sha = files.sha256(path)
        if about.get("weights_sha256") not in (None, sha):
            raise BadInput(
                f"weights '{path}' have hash {sha[:12]}, model.json says {str(about['weights_sha256'])[:12]}; copy the model folder again"
            )
        self.build(about["data"])
        for part, net in self.networks().items():
            own = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
            try:
                net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in own.items()})
            except RuntimeError as error:
                raise BadInput(
                    f"weights '{path}' do not fit {self.name} with its arguments in model.json: {str(error).splitlines()[-1].strip()}"
                ) from error
        self.preset, self.preset_arguments = about["preset"], about["preset_arguments"]
        self.threshold, self.data, self.weights_sha256 = about["threshold"], about["data"], sha
        return self


def steps_of(preset: str, arguments: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of a preset by name, none for `NO_PRESET`; raises `BadCall` for an unknown name or argument."""
    if preset not in presets():
        raise unknown("preset", preset, presets())
    if preset != NO_PRESET:
        return preprocess.preset(preset, **arguments)
    if arguments:
        raise BadCall(f"preset '{NO_PRESET}' leaves scans as they are, it does not take {', '.join(arguments)}")
    return ()


def presets() -> tuple[str, ...]:
    """What the preset of a method may be."""
    return (*preprocess.PRESETS, NO_PRESET)


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("anomri", "torch", "numpy", "SimpleITK", "nibabel"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def _without_truth(scan: Scan) -> Scan:
    return scan.with_(lesion=None) if scan.lesion is not None else scan


def _mm(scan: Scan) -> str:
    return " x ".join(f"{s:.3g}" for s in scan.spacing) + " mm"
