"""From what a study says of an entrant to a method that can look: loaded or fitted, set, calibrated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomri import files, methods, preprocess
from anomri.cohort import Cohort, Entry, Step
from anomri.errors import AnomriError, BadInput, unknown
from anomri.method import Method, versions
from anomri.run import hashed, weights_hash
from anomri.study.kept import slug
from anomri.study.plan import Entrant, Study, named
from anomri.train import Job


@dataclass(frozen=True)
class Ready:
    """An entrant that can look: its method, its preprocessing, and what its rows depend on."""

    name: str
    method: Method
    steps: tuple[Step, ...]
    score: str | None
    about: Mapping[str, Any]


def _model(study: Study, name: str, models: Mapping[str, str]) -> str | None:
    """The model that an entrant takes: the one named for it, or for the one whose weights it shares, or the study's."""
    origin = study.weights_of(name)
    return models.get(name) or models.get(origin) or study.entrants[origin].model


def waits(study: Study, name: str, models: Mapping[str, str], remarks: list[str]) -> bool:
    """Is an entrant's method not in the tool, and no model named in its place? Then a remark says so."""
    origin = study.weights_of(name)
    method = study.entrants[origin].method
    waits = not {name, origin} & set(models) and method not in [m.name for m in methods.METHODS]
    if waits:
        remarks.append(f"{name} waits: method '{method}' is not in the tool yet")
    return waits


def make_ready(
    study: Study,
    name: str,
    out: Path,
    places: Mapping[str, str],
    models: Mapping[str, str],
    device: str,
    precision: str,
    remarks: list[str],
    say: Callable[[str], None],
) -> Ready | None:
    """An entrant's method, loaded or fitted; None, and a remark, where that cannot be."""
    entrant = study.entrants[name]

    def weights(of: str) -> Method:
        """Loaded or fitted; what its training begins with is loaded or fitted first."""
        origin, chosen = study.weights_of(of), _model(study, of, models)
        if chosen is not None:
            return methods.load(chosen)
        learned = study.entrants[origin]
        made = methods.make(learned.method, **learned.arguments)
        made.preset, made.preset_arguments = learned.pipeline, dict(learned.preset)
        start = weights(learned.start) if learned.start else None
        return _fitted(origin, learned, made, start, _opener(study, places, made), out, study.seed, device, say)

    try:
        method = weights(name)
        opened = _opener(study, places, method)
        method.device, method.precision = device, precision
        for attribute, value in entrant.set.items():
            if not hasattr(method, attribute):
                raise unknown(f"argument of method '{method.name}':", attribute, method.arguments)
            setattr(method, attribute, value)
        # Another setting of shared weights has another threshold.
        if entrant.calibrate and (method.threshold is None or entrant.shares or entrant.set):
            healthy, left = opened(entrant.calibrate), set(method.data.get("left_out", ()))
            healthy = healthy.only(id for id in healthy.ids if id not in left) if left else healthy
            _calibrate(name, method, healthy, out, study.seed, say)
        if entrant.then is not None:
            entrant.then(method, opened)
    except AnomriError as error:
        remarks.append(f"{name} cannot compete: {error}")
        return None
    steps = tuple(method.pipeline())
    about = {
        "method": method.name,
        "arguments": method.arguments,
        "weights": method.weights_sha256 or weights_hash(method),
        "threshold": method.threshold,
        "precision": method.precision,
        "preprocessing": preprocess.describe(steps),
        "score": entrant.score,
        "parameters": sum(p.numel() for net in method.networks().values() for p in net.parameters()),
        "version": versions()["anomri"],
    }
    return Ready(name, method, steps, entrant.score, files.plain(about))


def _opener(study: Study, places: Mapping[str, str], method: Method) -> Callable[[str | Sequence[str]], Cohort]:
    """What opens a study's sources, preprocessed for a method."""

    def opened(source: str | Sequence[str]) -> Cohort:
        names = named(source)
        again = {at: names[:at].count(name) for at, name in enumerate(names)}
        parts = {
            f"{name}, {again[at] + 1}" if again[at] else name: study.sources[name].open(places)
            for at, name in enumerate(names)
        }
        if not parts:
            raise BadInput("it names no source; name one or several")
        whole = Cohort.joined(parts) if len(parts) > 1 else next(iter(parts.values()))
        return whole.map(*method.pipeline())

    return opened


def _fitted(
    name: str,
    entrant: Entrant,
    method: Method,
    start: Method | None,
    opened: Callable[[str | Sequence[str]], Cohort],
    out: Path,
    seed: int,
    device: str,
    say: Callable[[str], None],
) -> Method:
    """A method fitted on the study's scans, or the one that an earlier run has fitted, with this one's `weightless` arguments."""
    if entrant.fit is None:
        made = f"anomri fit {entrant.method} --preset {entrant.pipeline}"
        raise BadInput(f"it has no model; give --model '{name}=FOLDER' with one that '{made}' wrote")
    folder = out / "models" / slug(name)
    healthy = opened(entrant.fit)
    validation = opened(entrant.validate) if entrant.validate else None
    both = _files(healthy) & _files(validation) if validation else set()
    if both:
        raise BadInput(
            f"'{Path(min(both)).name}' is both to fit and to validate on ({len(both)} files are); give sources that share none"
        )
    free = {argument: value for argument, value in method.arguments.items() if argument in method.weightless}
    asked = files.plain({
        "arguments": method.learning,
        "pipeline": method.preset, "preset": method.preset_arguments, "seed": seed, "healthy": healthy.digest(),
        "validation": validation.digest() if validation else None, **({"half": True} if entrant.half else {}),
        **({"start": start.weights_sha256 or weights_hash(start)} if start else {}),
    })  # fmt: skip
    if (folder / "asked.json").is_file() and _told(folder / "asked.json", method) == asked:
        kept = methods.load(folder)
        if kept.data.get("left_out"):
            say(f"{name} was fitted without {', '.join(kept.data['left_out'])}; take '{folder}' away to fit it anew")
        for argument, value in free.items():
            setattr(kept, argument, value)
        return kept
    healthy, wrong = healthy.usable()
    if validation is not None:
        validation, more = validation.usable()
        wrong |= more
    for said in wrong.values():
        say(f"Left out of {name}: {said}")
    say(f"Fitting {name} on {len(healthy)} scans of {' and '.join(named(entrant.fit))}; a run that is stopped goes on")
    # A checkpoint does not say how its scans were preprocessed.
    training = folder / f"training-{hashed(asked)[:12]}"
    if start is not None:
        method.begin_with(start)
    method.fit(healthy, validation=validation, seed=seed, job=Job(training, device=device, warm=start is not None))
    method.data = {**method.data, "left_out": sorted(wrong)}
    method.save(folder, half=entrant.half)
    files.write_json(folder / "asked.json", asked)
    # Rounded weights look as they will ever after.
    return methods.load(folder) if entrant.half else method


def _files(cohort: Cohort) -> set[str]:
    """What a cohort's scans are read from."""
    return {path for entry in cohort.entries if isinstance(entry, Entry) for path in entry.images.values()}


def _told(path: Path, method: Method) -> dict[str, Any]:
    """What a fitted model depends on, as an earlier run, or version, has written it: arguments that it had not are at their defaults."""
    told = files.read_json(path)
    had = {name: p.default for name, p in inspect.signature(type(method)).parameters.items()} | told["arguments"]
    arguments = {argument: value for argument, value in had.items() if argument not in method.weightless}
    # The first version knew one pipeline only, and kept all arguments.
    return {"pipeline": "itermask3d", **told, "arguments": arguments}


def _calibrate(name: str, method: Method, healthy: Cohort, out: Path, seed: int, say: Callable[[str], None]) -> None:
    """Sets a method's threshold on healthy scans, and what it settles on them, or gives back what an earlier run has found."""
    path = out / "models" / slug(name) / "calibration.json"
    asked = files.plain({
        "arguments": method.arguments, "weights": method.weights_sha256 or weights_hash(method),
        "preprocessing": preprocess.describe(method.pipeline()), "healthy": healthy.digest(), "seed": seed,
    })  # fmt: skip
    if path.is_file() and (kept := files.read_json(path))["asked"] == asked:
        method.threshold, method.data = kept["threshold"], {**method.data, **kept["data"]}
        return
    say(f"Calibrating {name} on {len(healthy)} healthy scans")
    before = files.plain(method.data)
    method.calibrate(healthy, seed=seed)
    found = files.plain(method.data)
    changed = {entry: value for entry, value in found.items() if entry not in before or before[entry] != value}
    files.write_json(path, {"asked": asked, "threshold": method.threshold, "data": changed})
