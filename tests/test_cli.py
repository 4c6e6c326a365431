"""The command line: what it prints where, how it ends, and what it makes of bad input."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import anomri
from anomri import cli, files, methods
from anomri.cli import looking, main, terminal
from anomri.cohort import Cohort
from anomri.cohorts import open_cohort
from anomri.errors import BadCall
from anomri.methods import load
from anomri.methods.threshold import Threshold
from anomri.preprocess import PRESETS, describe
from conftest import brain_at, grid, world
from small import MM, fitted, mask_file, scan_file, tree

VERBS = ("detect", "report", "demo", "preprocess", "fit", "calibrate", "methods", "corrupt", "phantom")
GROUPS = {"cohort": ("check", "split", "list"), "study": ("run", "show")}
FIT = (
    "fit",
    "itermask3d",
    "--spacing",
    str(MM),
    *(f"--set={x}" for x in ("width=2", "batch=1", "steps=4", "step_percent=5")),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted model and a good scan."""
    home = tmp_path_factory.mktemp("cli")
    fitted(home)
    scan_file(home / "good.nii.gz", 1, lesion=True)
    return home


@pytest.fixture
def ask(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a command line in an empty folder; gives exit code, stdout, and the lines of stderr."""
    monkeypatch.chdir(tmp_path)
    if not (tmp_path / "model").exists():
        os.symlink(home / "model", tmp_path / "model")
        shutil.copy(home / "good.nii.gz", tmp_path / "good.nii.gz")

    def ask(*words: str | Path) -> tuple[int, str, list[str]]:
        capfd.readouterr()
        code = main([str(w) for w in words])
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return ask


# --- help ----------------------------------------------------------------------------------------------------------


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom anomri.cli import main\n"
        "assert main(['--help']) == 0 and main(['detect', '--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'numpy', 'nibabel', 'SimpleITK', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_without_arguments_it_says_how_to_begin(ask):
    code, out, err = ask()
    assert (code, err) == (0, [])
    assert "anomri demo" in out
    assert all(verb in out for verb in (*VERBS, *GROUPS))


@pytest.mark.parametrize("verb", [*VERBS, *(f"{group} {verb}" for group, verbs in GROUPS.items() for verb in verbs)])
def test_every_verb_has_help_with_an_example_that_is_right(ask, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = ask(*verb.split(), "--help")
    assert (code, err) == (0, [])
    examples = re.findall(rf"^ *(anomri {verb}.*?) *$", out, re.M)
    assert examples
    known = set(re.findall(r"--[a-z0-9-]+|-[a-z]\b", out))
    for example in examples:
        assert set(re.findall(r"(?<= )--?[a-z0-9-]+", example)) <= known
        assert "anomri[" not in example


@pytest.mark.parametrize("verb", ["fit", "preprocess"])
def test_help_names_every_preset(ask, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    (line,) = (line for line in ask(verb, "--help")[1].splitlines() if re.match(r"\W+--preset ", line))
    assert set(PRESETS) <= set(re.findall(r"\w+", line))
    assert ("or none" in line) == (verb == "fit")


def test_the_version_is_the_package_s(ask):
    from anomri.method import versions

    assert ask("--version") == (0, f"{anomri.__version__}\n", [])
    assert versions()["anomri"] == anomri.__version__


@pytest.mark.parametrize(("before", "after"), [({}, "1"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")])
def test_large_pages_are_asked_for_before_torch_is_loaded(before, after):
    program = """
import os, sys
from anomri.cli import main
early = "torch" in sys.modules
main(["--version"])
print(early, os.environ["THP_MEM_ALLOC_ENABLE"])
"""
    env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"} | before
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert ran.stdout.split()[-2:] == ["False", after]


def test_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "anomri", "detcet"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "anomri: no such command 'detcet'. Did you mean 'detect'? See 'anomri --help'\n"


# --- bad calls: one line, exit code 2 ------------------------------------------------------------------------------


BAD_CALLS: dict[str, tuple[str, str]] = {
    "detect good.nii.gz --register-by ants": ("unknown registration 'ants'; known: greedy, simpleitk", "registration"),
    "detect good.nii.gz --template gone.nii.gz": ("template 'gone.nii.gz' does not exist", "no template"),
    "detect good.nii.gz --template good.nii.gz --no-register": ("leave one out", "template or not"),
    "detect": ("in one way", "no scan"),
    "detect good.nii.gz --cohort .": ("got files and --cohort", "two ways"),
    "detect none.nii.gz": ("no file 'none.nii.gz'", "missing file"),
    "detect .": ("is a folder", "folder"),
    "detect good.nii.gz --brain none.nii.gz": ("no file 'none.nii.gz'", "missing mask"),
    "detect good.nii.gz good.nii.gz --id a": ("for one scan, 2 were given", "id for two"),
    "detect good.nii.gz good.nii.gz": ("'good' occurs twice", "same id twice"),
    "detect --image good.nii.gz": ("not NAME=VALUE", "image without sequence"),
    "detect --image T1w=good.nii.gz --image T1w=good.nii.gz": ("twice", "sequence twice"),
    "detect --image T1w=good.nii.gz --sequence T2w": ("names the sequence itself", "sequence for image"),
    "detect --cohort none": ("'none' does not exist", "missing cohort"),
    "detect --cohort empty": ("holds no scan", "empty folder"),
    "detect --cohort . --brain good.nii.gz": ("for one scan", "brain for cohort"),
    "detect --cohort . --where a": ("not NAME=VALUE", "where without value"),
    "detect --cohort . --where age=3": ("no column 'age'", "where unknown column"),
    "detect good.nii.gz --where a=b": ("there is none", "where without cohort"),
    "detect good.nii.gz --model none": ("not a model folder", "unknown model"),
    "detect good.nii.gz --strip knife": ("known: auto, deepbet", "unknown strip"),
    "detect good.nii.gz --device abacus": ("device 'abacus'", "unknown device"),
    "detect good.nii.gz --precision half": ("known: auto, bfloat16, float32", "unknown precision"),
    "detect good.nii.gz --shard 2": ("not I/N", "shard text"),
    "detect good.nii.gz --shard 0/2": ("1/2 to 2/2", "shard zero"),
    "detect good.nii.gz --shard 1/0": ("1 shard or more", "no shards"),
    "detect good.nii.gz --seed x": ("--seed", "seed text"),
    "detect good.nii.gz --sede 1": ("no such option: --sede", "unknown option"),
    "detect good.nii.gz --id ???": ("no letter or digit", "id of no letters"),
    "detcet good.nii.gz": ("Did you mean 'detect'", "unknown verb"),
    "fit": ("missing", "no method"),
    "fit magic --cohort . --out m": ("itermask3d", "unknown method"),
    "fit itermask3d --cohort .": ("--out", "no out"),
    "fit itermask3d --cohort . --out m --set widht=3": ("known: batch", "unknown argument"),
    "fit itermask3d --cohort . --out m --set width": ("not NAME=VALUE", "set without value"),
    "fit itermask3d --cohort . --out m --set width=wide": ("needs a whole number", "set of another type"),
    "fit itermask3d --cohort . --out m --set width=2.5": ("needs a whole number", "set of another number"),
    "fit itermask3d --cohort . --out m --set width=-1": ("cannot be made", "set to nonsense"),
    "fit itermask3d --cohort . --out m --set step_percent=99": ("step_percent is 99", "set out of range"),
    "fit itermask3d --cohort . --out m --validate 9": ("cannot be split", "too many to validate"),
    "fit itermask3d --cohort . --out m --validate -1": ("--validate", "negative validate"),
    "fit itermask3d --cohort . --out m --spacing 900": ("900 mm", "spacing"),
    "fit itermask3d --cohort . --out m --split none.tsv": ("none.tsv", "missing split"),
    "fit itermask3d --cohort . --out m --split odd.tsv": ("columns id and split", "odd split"),
    "fit itermask3d --cohort . --out m --device abacus": ("device 'abacus'", "fit device"),
    "detect good.nii.gz --jobs 0": ("'--jobs'", "no jobs"),
    "preprocess good.nii.gz --jobs none": ("'--jobs'", "jobs without a number"),
    "preprocess good.nii.gz --preset none": ("known: behrendt, bengs, itermask2, itermask3d", "unknown preset"),
    "preprocess good.nii.gz --preset behrendt --spacing 2": (
        "preset 'behrendt' does not take --spacing; it takes --strip, --n4, --register, --template, --register-by",
        "preset argument",
    ),
    "preprocess good.nii.gz --prepare clip=3": ("clip is 3; needs two numbers, the lower one first", "one limit"),
    "preprocess good.nii.gz --prepare clip=4,-3": ("clip is (4, -3); needs two numbers", "limits the wrong way"),
    "preprocess good.nii.gz --prepare landmarks=1,2": ("landmarks: 2 values, needs 11 that rise", "few landmarks"),
    "preprocess good.nii.gz --prepare landmarks=some": ("landmarks are 'some'; needs 11 numbers", "landmarks in words"),
    "preprocess good.nii.gz --prepare k=wide": (
        "--prepare k=wide: k needs a number, such as 3.0",
        "prepare another type",
    ),
    "preprocess good.nii.gz --prepare clap=1": ("known: clip", "unknown argument of a preset"),
    "preprocess good.nii.gz --preset bengs --prepare clip=-3,4": (
        "unknown argument of preset 'bengs'",
        "clip of bengs",
    ),
    "preprocess good.nii.gz --prepare spacing=2": ("spacing has an option of its own, --spacing", "spacing prepared"),
    "fit itermask3d --cohort . --out m --preset none --prepare k=2": ("preset 'none'", "prepare of none"),
    "preprocess good.nii.gz --preset bengs --template good.nii.gz": (
        "preset 'bengs' does not take --template; it takes --strip",
        "preset template",
    ),
    "fit ae --cohort . --out m --preset magic": (
        "unknown preset 'magic'; known: behrendt, bengs, itermask2, itermask3d, none",
        "fit preset",
    ),
    "fit ae --cohort . --out m --preset bengs --no-n4": ("preset 'bengs' does not take --n4; it", "preset n4"),
    "fit ae --cohort . --out m --preset itermask2 --register": ("does not take --register; it", "preset register"),
    "fit ae --cohort . --out m --preset itermask2 --register-by greedy": ("does not take --register-by", "preset by"),
    "fit ae --cohort . --out m --preset none --spacing 2": (
        "preset 'none' does not take --spacing; it takes no option of preprocessing",
        "no preset's argument",
    ),
    "fit ae --cohort . --out m --preset none --strip robex": ("'none' does not take --strip", "no preset's strip"),
    "report empty": ("holds no results", "no results"),
    "report none": ("holds no results", "no results folder"),
    "calibrate none --cohort .": ("not a model folder", "calibrate unknown"),
    "calibrate model --cohort . --rate 2": ("between 0 and 1", "rate"),
    "calibrate itermask3d-t1w-2mm --cohort .": ("comes with the package", "calibrate the package's"),
    "methods --what": ("no such option", "methods option"),
}


@pytest.mark.parametrize("call", BAD_CALLS, ids=[b[1] for b in BAD_CALLS.values()])
def test_a_bad_call_gets_one_line_and_changes_nothing(ask, call, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.tsv").write_text("id\tpart\ngood\tfit\n")
    before = tree(tmp_path)
    words = call.split()
    if words[0] == "detect" and "--model" not in words:
        words += ["--model", "model"]
    code, out, err = ask(*words)
    assert (code, out) == (2, "")
    assert len(err) == 1, err
    assert err[0].startswith("anomri: ")
    assert BAD_CALLS[call][0] in err[0]
    assert "Traceback" not in err[0]
    assert tree(tmp_path) == before


def test_results_where_nothing_may_be_written(ask, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = ask("detect", "good.nii.gz", "--model", "model", "--out", "file/results")
    assert (code, out, len(err)) == (2, "", 1)
    assert "a part of the path is a file" in err[0]


def test_no_permission(ask, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.opening.Path, "mkdir", refuse)
    code, out, err = ask("detect", "good.nii.gz", "--model", "model")
    assert (code, out, len(err)) == (2, "", 1)
    assert "permission denied" in err[0]


def test_interrupted(ask, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(looking, "pipeline_of", stop)
    assert ask("detect", "good.nii.gz", "--model", "model") == (
        130,
        "",
        ["anomri: interrupted; run the same command again to go on"],
    )


# --- bad scans: one line each, the others done, exit code 3 --------------------------------------------------------


def _image(path: Path, change: Callable[[Any], Any] = lambda x: x, **header: Any) -> None:
    on = grid()
    x = np.where(brain_at(world(on)), 700.0, 0).astype(np.float32)
    image = nib.Nifti1Image(change(x), on.affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)


def _raw(path: Path, offset: int, content: bytes) -> None:
    """Changes bytes of a header behind nibabel's back."""
    _image(path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(data)))


def _singular(path: Path) -> None:
    # Row x of the sform becomes row y: two axes along one line.
    row = np.array([0, 5.5, 0, 0], "<f4").tobytes()
    _raw(path, 280, row)


def _nan(x: Any) -> Any:
    x = x.copy()
    x[3, 4, 5] = np.nan
    return x


BAD_SCANS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.touch(), "empty"),
    "truncated": (lambda p: (_image(p), p.write_bytes(p.read_bytes()[:-300])), "cut short"),
    "text": (lambda p: p.write_text("hello" * 200), "not a NIfTI"),
    "flat": (lambda p: _image(p, lambda x: x[:, :, 0]), "3D"),
    "series": (lambda p: _image(p, lambda x: np.stack([x, x], -1)), "2 volumes"),
    "nan": (lambda p: _image(p, _nan), "NaN"),
    "constant": (lambda p: _image(p, lambda x: x * 0 + 3), "constant"),
    "brainless": (lambda p: _image(p, lambda x: x * (np.indices(x.shape)[0] < 8)), "brain"),
    "onevalue": (_image, "constant"),
    "zerovoxel": (lambda p: _raw(p, 84, bytes(4)), "voxel size"),
    "singular": (_singular, "singular"),
}


@pytest.mark.parametrize("what", BAD_SCANS)
def test_a_bad_scan_gets_one_line(ask, tmp_path, what):
    make, said = BAD_SCANS[what]
    make(tmp_path / f"{what}.nii.gz")
    words = ("--strip", "stripped") if what == "brainless" else ()
    code, out, err = ask("detect", f"{what}.nii.gz", "--model", "model", "--out", "r", *words)
    assert (code, out) == (3, "")
    assert len(err) == 1, err
    assert err[0].startswith(f"anomri: {what}: ")
    assert said in err[0]
    (row,) = files.read_table(tmp_path / "r" / "group_T1w.tsv")
    assert (row["status"], row["id"]) == ("failed", what)
    assert said in row["message"]
    assert not list((tmp_path / "r").rglob("*.nii.gz"))
    assert ask("preprocess", f"{what}.nii.gz", "--out", "p", "--spacing", MM, "-q", *words) == (3, "", [err[0]])


def test_a_brain_mask_on_another_grid(ask, tmp_path):
    mask_file(tmp_path / "other.nii.gz", codes="RAS")
    code, out, err = ask("detect", "good.nii.gz", "--brain", "other.nii.gz", "--model", "model", "-q")
    assert (code, out, len(err)) == (3, "", 1)
    assert "brain mask 'other.nii.gz' has" in err[0]


def test_a_cohort_goes_on(ask, tmp_path):
    for name in ("empty", "text", "nan"):
        BAD_SCANS[name][0](tmp_path / f"{name}.nii.gz")
    table = (
        "id\tT1w\none\tgood.nii.gz\n"
        + "".join(f"{n}\t{n}.nii.gz\n" for n in ("empty", "text", "nan", "none"))
        + "two\tgood.nii.gz\n"
    )
    (tmp_path / "cohort.tsv").write_text(table)
    call = ("detect", "--cohort", "cohort.tsv", "--model", "model", "--out", "r")
    code, out, err = ask(*call, "--json")
    assert code == 3
    shown = json.loads(out)
    assert [row["status"] for row in shown["scans"]] == ["done", "failed", "failed", "failed", "failed", "done"]
    errors = [line for line in err if line.startswith("anomri: ")]
    # Told as they end; the next scans are read while one is looked at.
    assert sorted(line.split(":")[1].strip() for line in errors) == ["empty", "nan", "none", "text"]
    rows = {row["id"]: row for row in files.read_table(tmp_path / "r/group_T1w.tsv")}
    assert rows["one"]["status"] == rows["two"]["status"] == "done"
    assert "no such file" in rows["none"]["message"]
    page = (tmp_path / "r/group_T1w.html").read_text()
    assert "sub-one.html" in page
    assert "4 failed" in page
    # Once mended, it is done and no longer in the way; the good ones are left alone.
    for name in ("empty", "text", "nan", "none"):
        scan_file(tmp_path / f"{name}.nii.gz", 5)
    code, out, err = ask(*call)
    assert (code, out) == (0, "")
    assert err[0].startswith("4 done, 2 skipped (done before), 0 failed. Table: ")
    assert {row["status"] for row in files.read_table(tmp_path / "r/group_T1w.tsv")} == {"done"}


def test_no_space_left(ask, monkeypatch):
    real = files.opening.os.replace

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(".nii.gz"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.opening.os, "replace", replace)
    code, out, err = ask("detect", "good.nii.gz", "--model", "model", "-q")
    assert (code, out, len(err)) == (3, "", 1)
    assert "no space left on the device" in err[0]


def test_the_unexpected_is_one_line_and_a_log(ask, tmp_path, monkeypatch):
    def boom(*_: Any, **__: Any) -> None:
        raise RuntimeError("the roof\nis on fire")

    monkeypatch.setattr(methods.IterMask3D, "find", boom)
    code, out, err = ask("detect", "good.nii.gz", "--model", "model", "--out", "r", "-q")
    assert (code, out, len(err)) == (3, "", 1)
    assert "unexpected RuntimeError: the roof is on fire" in err[0]
    assert "Traceback" in json.loads((tmp_path / "r/logs/sub-good.json").read_text())["traceback"]


# --- good calls ----------------------------------------------------------------------------------------------------


def test_detect_in_words_in_json_and_in_silence(ask, tmp_path):
    call = ("detect", "good.nii.gz", "--model", "model", "--out", "r")
    code, out, err = ask(*call)
    assert (code, out, len(err)) == (0, "", 2)
    assert re.match(r"good: [\d.]+ ml marked as abnormal, score .* s\. Results: r", err[0])
    assert Path(err[1].removeprefix("Page: ")).is_file()
    assert (tmp_path / "r/sub-good.html").is_file()
    assert (tmp_path / "r/group_T1w.html").is_file()
    assert ask(*call, "--quiet") == (0, "", [])
    code, out, err = ask(*call, "--json")
    assert (code, err[0].startswith("good (done before): ")) == (0, True)
    (row,) = json.loads(out)["scans"]
    assert row["status"] == "skipped"
    assert ask(*call, "--json", "--quiet")[1:] == (out, [])
    (line,) = files.read_table(tmp_path / "r/group_T1w.tsv")
    assert float(line["score"]) == pytest.approx(row["score"], rel=1e-4)
    assert line["status"] == "done"


def test_a_wrong_sequence_is_remarked_on_for_one_scan_and_counted_for_many(ask, tmp_path, monkeypatch):
    from anomri.preprocess import sequence

    monkeypatch.setattr(sequence, "other_than_said", lambda scan: {"T1w": "FLAIR"} if scan.id != "b" else {})
    _, _, err = ask("detect", "good.nii.gz", "--model", "model", "--out", "r")
    assert err[1] == "Note: it is called T1w and looks like FLAIR; check its name, or say --sequence of a file"
    for name in ("a", "b"):
        shutil.copy("good.nii.gz", f"{name}.nii.gz")
    _, _, err = ask("detect", "a.nii.gz", "b.nii.gz", "good.nii.gz", "--model", "model", "--out", "r")
    assert err[1] == "Note: 2 look like another sequence than they are called, such as 'a'; the table says which"


def test_each_sequence_is_looked_at_by_the_package_s_model_for_it(ask, tmp_path, monkeypatch):
    shutil.copytree("model", "flair")
    about = json.loads(Path("flair/model.json").read_text())
    about["data"]["learned"] = [["FLAIR"]]
    about["arguments"]["gamma_score"] = 0.02
    Path("flair/model.json").write_text(json.dumps(about))
    monkeypatch.setattr(methods, "DEFAULTS", {("T1w",): "model", ("FLAIR",): "flair"})
    for name in ("a_T1w", "b_FLAIR", "c", "d_T2w"):
        shutil.copy("good.nii.gz", f"{name}.nii.gz")
    code, out, err = ask("detect", "a_T1w.nii.gz", "b_FLAIR.nii.gz", "c.nii.gz", "d_T2w.nii.gz", "--out", "r", "--json")
    assert code == 0
    assert [row["id"] for row in json.loads(out)["scans"]] == ["a", "b", "c", "d"]
    used = {id: json.loads((tmp_path / f"r/logs/sub-{id}.json").read_text())["facts"]["arguments"] for id in "abcd"}
    assert {id: used[id]["gamma_score"] for id in "abcd"} == {"a": 0.1, "b": 0.02, "c": 0.1, "d": 0.1}
    # For what the package has no weights for, those of T1w look, and it is said.
    assert [line for line in err if "has learned" in line] == [
        "Note: the model has learned T1w, 'd' is T2w (of a file, --sequence says what it is)"
    ]
    for i in (1, 2):
        ask("detect", "a_T1w.nii.gz", "b_FLAIR.nii.gz", "c.nii.gz", "--out", "s", "-q", "--shard", f"{i}/2")
        assert len(list((tmp_path / "s/logs").glob("*.json"))) == (2 if i == 1 else 3)
    ask("detect", "b_FLAIR.nii.gz", "--model", "model", "--out", "t", "-q")
    assert json.loads((tmp_path / "t/logs/sub-b.json").read_text())["facts"]["arguments"]["gamma_score"] == 0.1


def test_the_package_s_models_have_learned_what_they_are_taken_for():
    for sequences, name in methods.DEFAULTS.items():
        learned = load(name).learned
        assert len(learned) == len(sequences)
        assert all(one in names for one, names in zip(sequences, learned, strict=True))
    assert methods.default_for(["T1w"]) == methods.default_for(["DWI"]) == methods.DEFAULTS[("T1w",)]


def test_another_sequence_is_remarked_on(ask, tmp_path):
    shutil.copy("good.nii.gz", "a_flair.nii.gz")
    code, _, err = ask("detect", "a_flair.nii.gz", "--model", "model", "--out", "r")
    assert code == 0
    assert err[0].startswith("Note: the model has learned T1w, 'a' is FLAIR")
    assert (tmp_path / "r/group_FLAIR.tsv").exists()


def test_ids_and_given_masks(ask, tmp_path):
    mask_file(tmp_path / "brain.nii.gz")
    call = (
        "detect",
        "good.nii.gz",
        "--brain",
        "brain.nii.gz",
        "--id",
        "sub-07_ses-2",
        "--model",
        "model",
        "--no-page",
        "-q",
    )
    assert ask(*call) == (0, "", [])
    written = nib.load(next((tmp_path / "results/sub-07/ses-2/anat").glob("*desc-brain_mask.nii.gz")))
    truth = brain_at(world(grid("LAS", oblique=12.0)))
    assert 2 * (np.asarray(written.dataobj) * truth).sum() / (np.asarray(written.dataobj).sum() + truth.sum()) > 0.97
    assert not list((tmp_path / "results").glob("sub*.html"))


def test_the_seed_is_heard(ask, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert (
            ask("detect", "good.nii.gz", "--model", "model", "--no-page", "-q", "--seed", seed, "--out", name)[0] == 0
        )
    images = [{k: v for k, v in tree(tmp_path / n).items() if k.endswith(".nii.gz")} for n in "abc"]
    assert images[0] == images[1]
    assert images[0] != images[2]


def test_shards_are_gathered_by_report(ask, tmp_path):
    (tmp_path / "cohort.csv").write_text("id,T1w\n" + "".join(f"s{k},good.nii.gz\n" for k in range(3)))
    call = ("detect", "--cohort", "cohort.csv", "--model", "model", "--out", "r", "--no-page", "-q")
    for part in ("1/2", "2/2"):
        assert ask(*call, "--shard", part) == (0, "", [])
    for name in ("group_T1w.tsv", "group_T1w.html"):
        (tmp_path / "r" / name).unlink(missing_ok=True)
    code, out, err = ask("report", "r", "--json")
    assert code == 0
    assert [row["id"] for row in json.loads(out)["scans"]] == ["s0", "s1", "s2"]
    assert err[0] == "3 scans, 0 failed. Table: r/group_T1w.tsv"
    assert len(files.read_table(tmp_path / "r/group_T1w.tsv")) == 3
    assert (tmp_path / "r/group_T1w.html").exists()
    # Pages, where the input is found.
    code, _, err = ask("report", "r", "--pages")
    assert (code, len(err)) == (2, 1)
    assert "--images" in err[0]
    assert ask("report", "r", "--pages", "--images", ".", "-q") == (0, "", [])
    assert len(list((tmp_path / "r").glob("sub-s*.html"))) == 3


def test_jobs_change_nothing_but_the_time(ask, tmp_path):
    (tmp_path / "cohort.csv").write_text("id,T1w\n" + "".join(f"s{k},good.nii.gz\n" for k in range(3)))
    for jobs in ("1", "2"):
        words = ("--cohort", "cohort.csv", "--model", "model", "--out", f"r{jobs}", "--jobs", jobs, "-q")
        assert ask("detect", *words) == (0, "", [])
        words = ("--cohort", "cohort.csv", "--spacing", MM, "--out", f"p{jobs}", "-j", jobs, "-q")
        assert ask("preprocess", *words) == (0, "", [])
        rows = files.read_table(tmp_path / f"r{jobs}/group_T1w.tsv")
        assert [(row["id"], row["status"]) for row in rows] == [(f"s{k}", "done") for k in range(3)]
    for kind in ("r", "p"):
        one, two = (tree(tmp_path / f"{kind}{jobs}") for jobs in ("1", "2"))
        assert one.keys() == two.keys()
        # Fewer threads a scan may change a map's last digits, preprocessing's not.
        assert all(two[name] == content for name, content in one.items() if "preproc_T1w.nii" in name)


def test_preprocess_then_fit_on_the_folder_then_calibrate(ask, tmp_path):
    table = ["id\tT1w"]
    for n in range(4):
        scan_file(tmp_path / f"in/h{n}.nii.gz", 20 + n)
        table.append(f"sub-h{n}\tin/h{n}.nii.gz")
    (tmp_path / "in.tsv").write_text("\n".join(table))
    assert ask("preprocess", "--cohort", "in.tsv", "--spacing", MM, "--out", "ready", "-q") == (0, "", [])
    code, out, _ = ask("preprocess", "--cohort", "in.tsv", "--spacing", MM, "--out", "ready", "--json")
    assert (code, [r["status"] for r in json.loads(out)["scans"]]) == (0, ["skipped"] * 4)

    fit = (*FIT, "--cohort", "ready", "--validate", 1, "--out", "m")
    code, out, err = ask(*fit, "--json")
    assert code == 0
    known = json.loads(out)
    assert (known["scans"], known["validation_scans"], known["finished"]) == (3, 1, True)
    assert any("Fitting IterMask3D on 3 scans, choosing the weights on 1" in line for line in err)
    split = files.read_table(tmp_path / "m/split.tsv")
    assert sorted(row["split"] for row in split) == ["fit", "fit", "fit", "validate"]
    assert (tmp_path / "m/training/log.tsv").exists()
    assert (tmp_path / "m/training/curve.png").exists()
    model = load(tmp_path / "m")
    assert (model.arguments["width"], model.preset_arguments) == (2, {"spacing": MM})

    code, out, _ = ask("calibrate", "m", "--cohort", "ready", "--split", "m/split.tsv", "--rate", "0.05", "--json")
    assert (code, json.loads(out)["scans"], json.loads(out)["rate"]) == (0, 1, 0.05)
    calibrated = load(tmp_path / "m")
    assert calibrated.threshold == pytest.approx(json.loads(out)["threshold"])

    # The same command again trains nothing, reads nothing, and keeps the calibration.
    before = tree(tmp_path / "m")
    shutil.move(tmp_path / "m/training", tmp_path / "aside")
    code, _, err = ask(*fit)
    assert (code, len(err)) == (0, 1)
    assert "nothing to do" in err[0]
    shutil.move(tmp_path / "aside", tmp_path / "m/training")
    assert tree(tmp_path / "m") == before
    # With a split table, what is for tests is not even read.
    names = [row["id"] for row in split]
    (tmp_path / "split.tsv").write_text(f"id\tsplit\n{names[0]}\tfit\n{names[1]}\tvalidate\n{names[2]}\ttest\n")
    for path in (tmp_path / "ready" / names[2].split("_")[0]).rglob("*.nii.gz"):
        path.write_bytes(b"")
    code, out, _ = ask(*FIT, "--cohort", "ready", "--split", "split.tsv", "--out", "m2", "--json")
    assert (code, json.loads(out)["scans"]) == (0, 1)
    assert {row["split"] for row in files.read_table(tmp_path / "m2/split.tsv")} == {"fit", "validate", "test"}


def test_two_sequences_of_one_scan_are_not_looked_at_in_one_folder(ask, tmp_path):
    scan_file(tmp_path / "sub-7_T1w.nii.gz", 1)
    scan_file(tmp_path / "sub-7_FLAIR.nii.gz", 2)
    code, _, err = ask("detect", "sub-7_T1w.nii.gz", "sub-7_FLAIR.nii.gz", "--out", "o")
    assert code == 2
    assert len(err) == 1
    assert "are both scan 'sub-7'; look at one sequence at a time, each with its own --out" in err[0]
    assert not (tmp_path / "o").exists()


def test_a_scan_that_cannot_be_read_is_left_out_of_a_fit(ask, tmp_path):
    for n in range(3):
        scan_file(tmp_path / f"in/h{n}.nii.gz", 20 + n)
    whole = (tmp_path / "in/h1.nii.gz").read_bytes()
    (tmp_path / "in/h1.nii.gz").write_bytes(whole[: len(whole) // 2])
    code, out, err = ask(*FIT, "--cohort", "in", "--out", "m", "--json")
    assert (code, json.loads(out)["scans"]) == (0, 2)
    said = [line for line in err if "Left out: " in line]
    assert len(said) == 1
    assert "h1.nii.gz" in said[0]
    assert str(tmp_path) not in json.dumps(json.loads(out)["left_out"])
    assert list(json.loads(out)["left_out"]) == ["h1"]
    rows = files.read_table(tmp_path / "m/split.tsv")
    assert {row["id"]: row["split"] for row in rows} == {"h0": "fit", "h1": "left out", "h2": "fit"}
    # The table can be given back.
    code, out, _ = ask(*FIT, "--cohort", "in", "--split", "m/split.tsv", "--out", "again", "--json")
    assert (code, json.loads(out)["scans"], json.loads(out)["left_out"]) == (0, 2, {})
    for n in (0, 2):
        (tmp_path / f"in/h{n}.nii.gz").write_bytes(b"")
    code, _, err = ask(*FIT, "--cohort", "in", "--out", "m2")
    assert code == 2
    assert "none of the 3 scans can be used; the first: " in err[-1]


@pytest.mark.parametrize(
    ("words", "preset", "arguments", "grid"),
    [
        ((), "itermask3d", {}, "1 mm"),
        (("--spacing", 6, "--no-n4"), "itermask3d", {"spacing": 6.0, "n4": False}, "6 mm"),
        (("--preset", "itermask2"), "itermask2", {}, "1.88 x 1.88 x 1 mm"),
        (("--preset", "bengs", "--strip", "stripped"), "bengs", {}, "2.47 x 2.98 x 2.55 mm"),
        (("--preset", "behrendt", "--no-register", "--no-n4"), "behrendt", {"register": False, "n4": False}, "2 mm"),
    ],
)
def test_a_model_is_fitted_with_the_preset_that_is_named(ask, tmp_path, words, preset, arguments, grid):
    scan_file(tmp_path / "in/h.nii.gz", 20)
    code, _, err = ask("fit", "threshold", "--cohort", "in", "--out", "m", *words)
    assert code == 0
    assert f"Fitting Intensity threshold on 1 scans, choosing the weights on 0 others, at {grid}" in err
    model = load(tmp_path / "m")
    assert (model.preset, model.preset_arguments) == (preset, arguments)
    (scan,) = Cohort([files.read_scan({"T1w": tmp_path / "in/h.nii.gz"})]).map(*PRESETS[preset](**arguments))
    np.testing.assert_allclose(model.data["spacing_mm"], scan.spacing, rtol=1e-3)
    assert describe(model.pipeline()) == describe(PRESETS[preset](**arguments))


def test_a_model_of_another_preset_is_fitted_anew_and_looks_with_it(ask, tmp_path):
    scan_file(tmp_path / "in/h.nii.gz", 20)
    fit = ("fit", "threshold", "--cohort", "in", "--out", "m")
    assert ask(*fit, "--spacing", 6, "-q") == (0, "", [])
    assert "nothing to do" in ask(*fit, "--spacing", 6)[2][0]
    assert "Fitting" in ask(*fit, "--preset", "bengs")[2][0]
    assert ask("calibrate", "m", "--cohort", "in", "-q") == (0, "", [])
    code, out, _ = ask("detect", "good.nii.gz", "--model", "m", "--no-page", "--json")
    assert (code, json.loads(out)["scans"][0]["status"]) == (0, "done")
    told = json.loads((tmp_path / "results/logs/sub-good.json").read_text())
    assert told["facts"]["preprocessing"] == describe(PRESETS["bengs"]())
    code, _, err = ask("detect", "good.nii.gz", "--model", "m", "--n4")
    assert (code, err) == (2, ["anomri: preset 'bengs' does not take --n4; it takes --strip"])


def test_scans_that_were_preprocessed_before_are_fitted_on_as_they_are(ask, tmp_path, monkeypatch):
    scan_file(tmp_path / "in/h.nii.gz", 20)
    assert ask("preprocess", "in/h.nii.gz", "--preset", "bengs", "--out", "ready", "-q") == (0, "", [])
    learned, real = [], Threshold.learn
    monkeypatch.setattr(
        Threshold, "learn", lambda self, healthy, *rest: learned.extend(healthy) or real(self, healthy, *rest)
    )
    code, _, err = ask("fit", "threshold", "--cohort", "ready", "--preset", "none", "--out", "m")
    assert (code, err[0].endswith("at 2.47 x 2.98 x 2.55 mm")) == (0, True)
    (written,) = open_cohort(tmp_path / "ready")
    np.testing.assert_array_equal(learned[0].image, written.image)
    np.testing.assert_array_equal(learned[0].brain, written.brain)
    assert (load(tmp_path / "m").preset, load(tmp_path / "m").pipeline()) == ("none", ())
    assert ask("calibrate", "m", "--cohort", "ready", "-q") == (0, "", [])
    assert ask("detect", "--cohort", "ready", "--model", "m", "-q") == (0, "", [])
    code, _, err = ask("detect", "in/h.nii.gz", "--model", "m", "-q", "--out", "raw")
    assert (code, len(err)) == (3, 1)
    assert "the model was fitted at 2.46" in err[0]
    with pytest.raises(BadCall, match="preset 'none' leaves scans as they are, it does not take spacing"):
        load(tmp_path / "m").pipeline(spacing=2.0)


def test_a_fit_that_was_paused_goes_on(ask, tmp_path):
    for n in range(2):
        scan_file(tmp_path / f"in/h{n}.nii.gz", 20 + n)
    fit = (*FIT, "--cohort", "in", "--set=steps=6")
    code, out, err = ask(*fit, "--out", "m", "--minutes", 1e-9, "--json")
    assert (code, json.loads(out)["finished"]) == (0, False)
    assert any("paused; the same command goes on" in line for line in err)
    code, out, err = ask(*fit, "--out", "m", "--json")
    assert (code, json.loads(out)["finished"]) == (0, True)
    assert ask(*fit, "--out", "whole", "-q") == (0, "", [])
    assert (tmp_path / "m/weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()
    # Other settings are another training: not mixed with this one.
    code, _, err = ask(*fit, "--set=lr=0.01", "--out", "m", "-q")
    assert (code, len(err)) == (2, 1)
    assert "other settings" in err[0]


def test_a_fit_may_begin_with_a_models_weights(ask, tmp_path):
    for n in range(2):
        scan_file(tmp_path / f"in/h{n}.nii.gz", 20 + n)
    fit = (*FIT, "--cohort", "in", "--set=steps=1", "--set=lr=1e-12")
    assert ask(*fit, "--start", "model", "--out", "warm", "-q") == (0, "", [])
    assert ask(*fit, "--out", "cold", "-q") == (0, "", [])
    first, warm, cold = (load(tmp_path / name) for name in ("model", "warm", "cold"))
    weights = [m.networks()["net"].state_dict() for m in (first, warm, cold)]
    kernels = [name for name in weights[0] if name.endswith("0.weight")]
    apart = [max(float((w[k] - weights[0][k]).abs().max()) for k in kernels) for w in weights]
    assert apart[1] < 1e-6 < apart[2]
    assert warm.data["start_weights_sha256"] == first.weights_sha256
    assert cold.data["start_weights_sha256"] is None
    # Weights of another size, and a folder that was trained from another start, are refused.
    code, _, err = ask(*fit, "--set=width=3", "--start", "model", "--out", "wide")
    assert (code, len(err)) == (2, 1)
    assert "use the arguments that they were made with" in err[0]
    code, _, err = ask(*fit, "--start", "cold", "--out", "warm", "-q")
    assert (code, len(err)) == (2, 1)
    assert "other settings" in err[0]


def test_any_argument_of_a_preset_can_be_said_and_is_remembered(ask, tmp_path):
    for n in range(2):
        scan_file(tmp_path / f"in/h{n}.nii.gz", 20 + n)
    clipped = ("--prepare", "clip=-1,1.5", "--prepare", "field_mm=208")
    assert ask(*FIT, "--cohort", "in", *clipped, "--out", "m", "-q") == (0, "", [])
    assert load(tmp_path / "m").preset_arguments == {"spacing": MM, "clip": [-1, 1.5], "field_mm": 208.0}
    assert ask("preprocess", "good.nii.gz", "--spacing", MM, *clipped, "--out", "p", "-q")[0] == 0
    (image,) = (tmp_path / "p").rglob("*_T1w.nii.gz")
    values = nib.load(image).get_fdata()
    assert (values.min(), values.max()) == pytest.approx((-1.0, 1.5), abs=1e-4)
    assert max(values.shape) * MM >= 208


def test_calibrate_leaves_out_what_cannot_be_used_and_says_so(ask, tmp_path):
    scan_file(tmp_path / "in/h.nii.gz", 30)
    (tmp_path / "in/broken.nii.gz").write_bytes(b"no image")
    code, _, err = ask("calibrate", "model", "--cohort", "in", "--out", "calibrated")
    assert code == 0
    assert [line for line in err if "Left out" in line and "broken" in line]
    assert "In 1 healthy scan," in err[-1]
    assert load(tmp_path / "calibrated").threshold > 0


def test_calibrate_into_another_folder(ask, tmp_path):
    scan_file(tmp_path / "in/h.nii.gz", 30)
    before = tree(tmp_path / "model")
    code, _, err = ask("calibrate", "model", "--cohort", "in", "--out", "calibrated")
    assert code == 0
    assert "In 1 healthy scan," in err[0]
    assert tree(tmp_path / "model") == before
    assert load(tmp_path / "calibrated").threshold is not None


def test_demo(ask, home, tmp_path, monkeypatch):
    # The tiny model stands in for the one of the package, and a coarse phantom for the template.
    from anomri.cohorts import phantom
    from conftest import lesion_at
    from conftest import phantom as made

    on = grid()
    monkeypatch.setattr(methods, "DEFAULTS", {("T1w",): "model"})
    monkeypatch.setattr(phantom, "template_with_lesion", lambda seed: made(on, lesion=lesion_at(world(on))))
    code, out, err = ask("demo")
    assert (code, out) == (0, "")
    assert re.search(
        r"Planted 1[0-9.]+ ml, marked [0-9.]+ ml, Dice 0\.\d\d \(the method saw no label\)", "\n".join(err)
    )
    assert Path(err[-1].removeprefix("Page: ")).is_file()
    code, out, err = ask("demo", "--json", "--quiet")
    assert (code, err) == (0, [])
    assert json.loads(out)["status"] == "skipped"
    assert 0 <= json.loads(out)["dice"] <= 1
    (tmp_path / "model").unlink()
    assert ask("demo")[0] == 2


def test_methods_in_words_and_in_json(ask):
    code, out, err = ask("methods")
    assert (code, err) == (0, [])
    cells = [re.split(" {2,}", line.strip()) for line in out.splitlines()]
    assert ["itermask3d", "3D", "2025", "healthy scans", methods.METHODS[0].paper] in cells
    assert [m.name for m in methods.METHODS] == [row[0] for row in cells if len(row) == 5]
    code, out, err = ask("methods", "--json")
    assert json.loads(out)["methods"][0]["name"] == "itermask3d"
    assert {m["name"] for m in json.loads(out)["models"]} == set(methods.shipped())


@pytest.mark.parametrize("name", [m.name for m in methods.METHODS])
def test_a_method_tells_its_paper_and_its_arguments(ask, name):
    code, out, err = ask("methods", name)
    assert (code, err) == (0, [])
    cls = methods.method_class(name)
    assert out.startswith(f"{cls.paper} ({cls.year})")
    for argument, value in cls().arguments.items():
        assert f"--set {argument}={value}" in out
        assert re.search(rf"^[a-z_0-9, ]*\b{argument}\b[a-z_0-9, ]* : ", out, re.M), f"{argument} is not explained"
    assert len(json.loads(ask("methods", name, "--json")[1])["methods"]) == 1


@pytest.mark.parametrize("name", methods.shipped())
def test_each_model_of_the_package_has_a_card(ask, name):
    code, out, err = ask("methods", name)
    assert (code, err) == (0, [])
    for told in (
        "## Learned from",
        "Licence",
        "ages",
        "## Never seen",
        "## Numbers",
        "## Where it fails",
        "not a diagnosis",
    ):
        assert told in out
    model = load(name)
    assert all(sequence in out for names in model.learned for sequence in names)
    assert (methods.WEIGHTS / name / "weights.safetensors").stat().st_size <= 10 * 2**20


def test_a_method_that_is_not_there_is_told(ask):
    code, _, err = ask("methods", "magic")
    assert (code, len(err)) == (2, 1)
    assert "unknown method or model 'magic'" in err[0]
    assert "itermask3d-t1w-2mm" in err[0]


# --- progress ------------------------------------------------------------------------------------------------------


def test_progress_is_a_bar_in_a_terminal_and_a_line_a_minute_in_a_log(monkeypatch, capfd):
    with terminal.progress(False, "Looking", 3) as told:
        told(1, "a")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(terminal, "EVERY_S", 0)
    with terminal.progress(False, "Looking", 3) as told:
        told(1, "a")
    assert capfd.readouterr() == ("", "Looking: 1 of 3 a\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.progress(False, "Looking") as told:
        told(1, "a", 3)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "1/3" in shown.err
    with terminal.progress(True, "Looking", 3) as told:
        told(1, "a")
    assert capfd.readouterr() == ("", "")


def test_nothing_else_is_exported():
    assert set(cli.__all__) == {"app", "main"}
    for name in anomri.__all__:
        assert getattr(anomri, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        anomri.nothing  # noqa: B018
