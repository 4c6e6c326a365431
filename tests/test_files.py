"""Reading and writing: any NIfTI in, the same conventions out, one line for all that cannot be used."""

from __future__ import annotations

import errno
import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes

from anomri import files
from anomri.errors import AnomriError, BadCall, BadInput
from anomri.scan import Grid, Origin
from conftest import grid, phantom

Write = Callable[..., Path]
RAMP = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def refused(said: str, path: Path, read: Callable[[Path], Any] = files.read_image) -> None:
    with pytest.raises(BadInput, match=said) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "ein Kopf ü 脳.nii.gz", "A.NII.GZ"])
def test_reads_both_formats_zipped_or_not_under_any_name(write: Write, kind: Any, name: str) -> None:
    affine = grid("PIR", oblique=20).affine
    volume, on, origin = files.read_image(write(name, RAMP, affine, kind=kind))
    assert volume.dtype == np.float32
    assert volume.flags.c_contiguous
    assert np.array_equal(volume, RAMP)
    assert np.allclose(on.affine, affine, atol=1e-5)
    assert on.shape == (3, 4, 5)
    assert origin.version == (2 if kind is nib.Nifti2Image else 1)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "f4", ">f4", "f8"])
def test_reads_any_number_and_its_scaling(tmp_path: Path, dtype: str) -> None:
    data = (RAMP % 50).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(0.25, -3)
    image = nib.Nifti1Image(data, np.diag([2, 2.5, 3, 1]), header)
    image.header.set_slope_inter(0.25, -3)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    assert np.allclose(files.read_image(tmp_path / "a.nii")[0], (RAMP % 50) * 0.25 - 3)


def test_what_is_zipped_is_told_by_content(tmp_path: Path, write: Write) -> None:
    plain, zipped = tmp_path / "b.nii.gz", tmp_path / "c.nii"
    plain.write_bytes(write("a.nii", RAMP).read_bytes())
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, zipped):
        assert np.array_equal(files.read_image(path)[0], RAMP)


def test_one_volume_of_four_axes_is_accepted(write: Write) -> None:
    volume, on, _ = files.read_image(write("a.nii.gz", RAMP[..., None, None]))
    assert volume.shape == on.shape == (3, 4, 5)


def test_place_without_codes_and_by_qform_alone(write: Write) -> None:
    """nibabel is the judge of where voxels lie, for each pair of codes."""
    path = write("a.nii", RAMP, grid("LAS", oblique=15).affine)
    raw = nib.load(path)
    for sform, qform in ((0, 0), (0, 1), (1, 0), (2, 1)):
        raw.header["sform_code"], raw.header["qform_code"] = sform, qform
        path.write_bytes(bytes(raw.header.binaryblock) + path.read_bytes()[348:])
        expected = nib.load(path)
        _, on, origin = files.read_image(path)
        assert np.allclose(on.affine, expected.affine)
        assert (origin.sform_code, origin.qform_code) == (sform, qform)


def test_harmless_headers_do_not_speak(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("a.nii", RAMP)
    content = bytearray(path.read_bytes())
    content[108:112] = struct.pack("<f", 356)  # voxels begin at an odd place, which nibabel logs about
    path.write_bytes(content[:352] + bytes(4) + content[352:])
    nib.load(path)
    assert caplog.records
    caplog.clear()
    assert np.array_equal(files.read_image(path)[0], RAMP)
    assert not caplog.records


# --- what cannot be used -------------------------------------------------------------------------------------------


def test_missing_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").touch()
    refused("no such file", tmp_path / "none.nii.gz")
    refused(r"empty \(0 bytes\)", tmp_path / "empty.nii.gz")
    refused("is a folder", tmp_path)


@pytest.mark.parametrize("left", [1, 5, 30, 60, -40, -9, -1])
def test_truncated_gzip(write: Write, left: int) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (9, 8, 7)).astype(np.int16)
    path = write("a.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:left])
    refused("cut short or damaged|not a NIfTI", path)


def test_damaged_gzip_is_noticed_by_its_checksum(write: Write) -> None:
    content = bytearray(write("a.nii", np.random.default_rng(0).normal(size=(9, 8, 7))).read_bytes())
    path = write("b.nii.gz", RAMP)
    stored = bytearray(gzip.compress(bytes(content), compresslevel=0))
    stored[-200] ^= 0x10
    path.write_bytes(stored)
    refused("cut short or damaged.*CRC", path)


def test_truncated_plain_file(write: Write) -> None:
    path = write("a.nii", RAMP)
    content = path.read_bytes()
    for left in (20, 300, 360, len(content) - 1):
        path.write_bytes(content[:left])
        refused("cut short", path)


@pytest.mark.parametrize(
    "content", [b"x", b"id,T1w\na,b\n" * 60, b"\xff\xd8\xff\xe0\0\x10JFIF" * 90, b"\0" * 128 + b"DICM" * 99]
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_not_nifti(tmp_path: Path, name: str, content: bytes) -> None:
    for each in (content, gzip.compress(content)):
        (tmp_path / name).write_bytes(each)
        refused("is not a NIfTI image.*dcm2niix", tmp_path / name)


def test_half_of_a_pair(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(RAMP, np.eye(4)), tmp_path / "a.hdr")
    refused("pair", tmp_path / "a.hdr")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((6, 7), "not a volume"),
        ((6, 7, 1), "not a volume"),
        ((6, 7, 8, 3), "3 volumes"),
        ((4, 5, 6, 1, 2), "2 volumes"),
    ],
)
def test_wrong_axes(write: Write, shape: tuple[int, ...], said: str) -> None:
    refused(said, write("a.nii.gz", np.ones(shape, np.float32)))


def test_nan_infinite_constant(write: Write) -> None:
    data = RAMP.astype(np.float64)
    data[0, 0, :2] = np.nan, np.inf
    refused("2 of 60 voxels are NaN", write("a.nii.gz", data))
    refused("60 of 60 voxels are NaN", write("b.nii.gz", np.full((3, 4, 5), 1e300)))
    constant = write("c.nii.gz", np.full((3, 4, 5), 7.0, np.float32))
    refused(r"constant \(every voxel is 7\)", constant, lambda path: files.read_scan({"T1w": path}))


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colour_and_complex(write: Write, dtype: Any) -> None:
    refused("colour or complex", write("a.nii.gz", np.zeros((3, 4, 5), dtype)))


@pytest.mark.parametrize("zoom", [0.0, np.nan])
@pytest.mark.parametrize("coded", [0, 1])
def test_zero_voxel_size(write: Write, zoom: float, coded: int) -> None:
    """nibabel turns a zero into 1 mm without a word."""
    path = write("a.nii", RAMP, sform_code=0, qform_code=coded)
    content = bytearray(path.read_bytes())
    content[84:88] = struct.pack("<f", zoom)
    path.write_bytes(content)
    refused("voxel size 2 x (0|nan) x 3 mm has a zero", path)


@pytest.mark.parametrize("size", [1e-3, 45.0, 2000.0])
def test_absurd_voxel_size(write: Write, size: float) -> None:
    refused(
        f"voxel size 2 x {size:.4g} x 3 mm is outside 0.05 to 20", write("a.nii.gz", RAMP, np.diag([2, size, 3, 1]))
    )


@pytest.mark.parametrize(
    "rows", [[[2, 2, 0], [0, 0, 0], [0, 0, 3]], [[2, 2, 0], [1, 1, 0], [0, 0, 3]], [[0, 0, 0]] * 3]
)
def test_singular_affine(write: Write, rows: list[list[float]]) -> None:
    path = write("a.nii", RAMP)
    content = bytearray(path.read_bytes())
    for at, row in zip((280, 296, 312), rows, strict=True):
        content[at : at + 12] = struct.pack("<3f", *row)
    content[252:256] = struct.pack("<2h", 0, 1)
    path.write_bytes(content)
    refused("the affine is singular", path)


def test_nan_in_the_affine(write: Write) -> None:
    path = write("a.nii", RAMP, qform_code=0)
    content = bytearray(path.read_bytes())
    content[292:296] = struct.pack("<f", np.nan)
    path.write_bytes(content)
    refused("affine holds NaN", path)


def two_forms(path: Path, sform: Any, qform: Any) -> Path:
    image = nib.Nifti1Image(RAMP, None)
    image.set_sform(sform, code=1)
    image.set_qform(qform, code=1)
    nib.save(image, path)
    return path


def test_sform_wins_over_a_qform_that_differs_a_little(tmp_path: Path) -> None:
    sform, qform = grid("LAS", oblique=20).affine, grid("LAS").affine
    _, on, origin = files.read_image(two_forms(tmp_path / "a.nii", sform, qform))
    assert np.allclose(on.affine, sform, atol=1e-4)
    assert origin.qform is not None
    assert np.allclose(origin.qform, qform, atol=1e-4)


def test_forms_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    refused(
        "sform and qform contradict.*180 degrees", two_forms(tmp_path / "a.nii", grid("LAS").affine, grid("RAS").affine)
    )
    refused(
        "sform and qform contradict.*90 degrees", two_forms(tmp_path / "b.nii", grid("RAS").affine, grid("PIR").affine)
    )
    double = grid("RAS").affine @ np.diag([2, 1, 1, 1])
    refused("2-fold", two_forms(tmp_path / "c.nii", grid("RAS").affine, double))


def test_a_size_that_no_memory_holds(write: Write) -> None:
    path = write("a.nii.gz", RAMP)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = struct.pack("<3h", 32767, 32767, 32767)
    path.write_bytes(gzip.compress(bytes(content)))
    refused("does not fit into memory|cut short", path)


@example([(111, 95)])
@example([(252, 0), (283, 0x7F), (282, 0x80), (280, 1)])
@example([(292, 0), (283, 0x7F), (282, 0x7F)])
@example([(110, 0x80), (111, 0x7F)])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_header_gives_more_than_one_line(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Any bytes of the header may be wrong: it reads, or it is refused; nothing warns."""
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(RAMP, grid("LAS", oblique=9).affine), path)
    content = bytearray(path.read_bytes())
    for at, value in changes:
        if not 42 <= at < 56:  # dimensions of gigabytes only take time
            content[at] = value
    path.write_bytes(content)
    said = ""
    try:
        volume, on, _ = files.read_image(path)
    except AnomriError as error:
        said = str(error)
    assert "\n" not in said
    assert said or (np.isfinite(volume).all() and abs(np.linalg.det(on.affine)) > 0)


# --- masks and scans -----------------------------------------------------------------------------------------------


def test_scan_of_several_sequences_with_masks(write: Write) -> None:
    affine = grid("LAS").affine
    mask = (RAMP > 20).astype(np.uint8)
    scan = files.read_scan(
        {"T1w": write("a.nii.gz", RAMP, affine), "FLAIR": write("b.nii", RAMP * 2, affine)},
        brain=write("c.nii.gz", mask, affine),
        lesion=write("d.nii.gz", np.zeros_like(mask), affine),
    )
    assert scan.id == "a"
    assert scan.sequences == ("T1w", "FLAIR")
    assert np.array_equal(scan.image[1], RAMP * 2)
    assert np.array_equal(scan.brain, mask > 0)
    assert scan.lesion is not None
    assert not scan.lesion.any()
    assert [Path(p).name for p in scan.origin.paths] == ["a.nii.gz", "b.nii"]


def test_masks_that_do_not_fit(write: Write) -> None:
    image = write("a.nii.gz", RAMP)
    shifted = np.diag([2.0, 2.5, 3.0, 1.0])
    shifted[1, 3] = 4.0
    some = (RAMP > 9).astype(np.uint8)
    for name, data, affine, said in (
        ("grid", np.ones((3, 5, 4), np.uint8), None, r"has grid \(3, 5, 4\), the image has \(3, 4, 5\)"),
        ("affine", some, shifted, r"another affine \(up to 4 mm apart\)"),
        ("empty", np.zeros_like(some), None, "is empty"),
        ("full", np.ones_like(some), None, "covers the whole image"),
    ):
        refused(said, write(f"{name}.nii.gz", data, affine), lambda path: files.read_scan({"T1w": image}, brain=path))
    other = write("other.nii.gz", RAMP, shifted)
    refused("FLAIR image.*another affine", other, lambda path: files.read_scan({"T1w": image, "FLAIR": path}))
    with pytest.raises(BadCall, match="at least one"):
        files.read_scan({})


# --- writing images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("sform", "qform", "units"), [(1, 1, 10), (4, 0, 2), (0, 2, 10), (0, 0, 2), (2, 1, 10)])
@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_results_keep_the_input_s_header(
    tmp_path: Path, kind: Any, sform: int, qform: int, units: int, codes: str
) -> None:
    on, other = grid(codes, oblique=20), grid(codes, oblique=12)
    image = kind(np.arange(np.prod(on.shape), dtype=np.int32).reshape(on.shape), None)
    image.header.set_zooms(on.spacing)
    image.header.set_qform(other.affine, code=qform)
    image.header.set_sform(on.affine, code=sform)
    image.header["xyzt_units"] = units
    nib.save(image, tmp_path / "in.nii.gz")
    scan = files.read_scan({"T1w": tmp_path / "in.nii.gz"})
    files.write_image(tmp_path / "out.nii.gz", scan.image[0] > 9, scan.native, scan.origin)
    was, now = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    assert type(now) is type(was)
    assert now.shape == was.shape
    assert np.allclose(now.affine, was.affine, rtol=0, atol=1e-5)
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert now.header[field] == was.header[field], field
    first = 0 if qform else 1  # pixdim[0] belongs to the qform
    assert np.allclose(now.header["pixdim"][first:4], was.header["pixdim"][first:4])
    for form in ("get_sform", "get_qform"):
        a, b = (getattr(h.header, form)(coded=True)[0] for h in (was, now))
        assert (a is None and b is None) or np.allclose(a, b, atol=1e-4), form


def test_on_another_grid_both_forms_are_that_grid(tmp_path: Path) -> None:
    for codes in ((0, 0), (1, 1), (0, 1), (2, 0)):
        origin = Origin(
            sform_code=codes[0], qform_code=codes[1], grid=grid("LAS"), qform=grid("LAS", oblique=30).affine
        )
        on = grid("RAS", oblique=7)
        files.write_image(tmp_path / "a.nii", np.zeros(on.shape, bool), on, origin)
        image = nib.load(tmp_path / "a.nii")
        assert np.allclose(image.affine, on.affine, atol=1e-4)
        assert np.allclose(image.header.get_zooms(), on.spacing)
        assert files.read_image(tmp_path / "a.nii")[1].same(on)


def test_unknown_units_become_mm(tmp_path: Path) -> None:
    files.write_image(tmp_path / "a.nii", np.zeros(grid().shape, bool), grid(), Origin(xyzt_units=0))
    assert nib.load(tmp_path / "a.nii").header.get_xyzt_units() == ("mm", "sec")


def test_a_shear_survives_in_the_sform(tmp_path: Path) -> None:
    sheared = np.array([[2, 0.3, 0, 1], [0, 2.5, 0.2, 2], [0, 0, 3, 3], [0, 0, 0, 1.0]])
    files.write_image(tmp_path / "a.nii", RAMP, Grid((3, 4, 5), sheared))
    assert np.allclose(files.read_image(tmp_path / "a.nii")[1].affine, sheared)


@given(st.floats(1e-30, 1e30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_maps_are_int16_within_half_a_step(tmp_path: Path, peak: float, seed: int) -> None:
    volume = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    volume[0] = 0
    volume *= np.float32(peak / np.abs(volume).max())
    files.write_image(tmp_path / "a.nii.gz", volume, Grid((3, 4, 5), np.eye(4)))
    image = nib.load(tmp_path / "a.nii.gz")
    back = files.read_image(tmp_path / "a.nii.gz")[0]
    assert image.get_data_dtype() == np.int16
    assert (back[0] == 0).all()
    assert np.abs(back - volume).max() <= np.abs(volume).max() / 65534 * 1.01


@pytest.mark.parametrize(
    "volume", [np.zeros((3, 4, 5), np.float32), np.full((3, 4, 5), 1e-42, np.float32), RAMP * -500, RAMP > 3]
)
def test_odd_volumes_are_written(tmp_path: Path, volume: Any) -> None:
    files.write_image(tmp_path / "a.nii.gz", volume, Grid((3, 4, 5), np.eye(4)))
    assert np.allclose(files.read_image(tmp_path / "a.nii.gz")[0], volume, atol=1e-37)
    if volume.dtype == bool:
        assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8


def test_what_cannot_be_written(tmp_path: Path) -> None:
    on = Grid((3, 4, 5), np.eye(4))
    bad = RAMP.astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        bad[1, 1, 1] = value
        with pytest.raises(BadInput, match="NaN or infinite"):
            files.write_image(tmp_path / "a.nii.gz", bad, on)
    with pytest.raises(BadCall, match=r"shape \(3, 5, 4\), its grid \(3, 4, 5\)"):
        files.write_image(tmp_path / "a.nii.gz", np.zeros((3, 5, 4)), on)
    assert not list(tmp_path.iterdir())


def test_the_same_volume_gives_the_same_bytes_at_level_1(tmp_path: Path) -> None:
    scan = phantom(grid("LAS"))
    for name in ("a.nii.gz", "b.nii.gz"):
        files.write_image(tmp_path / name, scan.image[0], scan.grid)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "b.nii.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0", "no time of day"
    assert content[8] == 4, "gzip's mark of level 1"


# --- atomic writing ------------------------------------------------------------------------------------------------


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ein ordner ü" / "a b.nii.gz"
    files.write_text(path, "old")
    beside: list[Path] = []

    def killed() -> None:
        with files.replacing(path) as part:
            part.write_text("half")
            beside.extend(path.parent.glob("*.nii.gz"))
            beside.extend(path.parent.glob(".*.nii.gz"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert len(set(beside)) == 2
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission denied"), (errno.EROFS, "read-only"), (errno.EIO, "")],
)
def test_a_full_or_closed_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_text("old")

    def fail(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        refused(f"cannot write.*{said}", path, lambda p: files.write_image(p, RAMP, Grid((3, 4, 5), np.eye(4))))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        refused(f"cannot read.*{said}", path)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "a" / "b.json", tmp_path / "folder"):
        refused("cannot write", path, lambda p: files.write_json(p, {}))


# --- JSON, tables, weights -----------------------------------------------------------------------------------------


def test_json_holds_what_any_reader_takes(tmp_path: Path) -> None:
    content = {
        "nan": float("nan"), "array": np.array([[1.5, np.inf]]), "int": np.int64(3), "bool": np.bool_(True), 4: ("a", Path("b")),
        "set": {"y", "x"}, "ü": None, "zero": np.array(2.5),
    }  # fmt: skip
    files.write_json(tmp_path / "a.json", content)
    assert files.read_json(tmp_path / "a.json") == {
        "nan": None, "array": [[1.5, None]], "int": 3, "bool": True, "4": ["a", "b"], "set": ["x", "y"], "ü": None, "zero": 2.5,
    }  # fmt: skip
    assert isinstance(json.loads((tmp_path / "a.json").read_text())["bool"], bool)


@pytest.mark.parametrize(
    ("content", "said"), [(b"[1]", "holds a JSON list"), (b"{", "not valid JSON"), (b"\xff\xfe\xfa", "not valid")]
)
def test_json_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    refused(said, tmp_path / "a.json", files.read_json)
    refused("no such file", tmp_path / "b.json", files.read_json)


def test_table_goes_out_and_comes_back(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "ml": 1.23456789, "note": "two\nlines\tand a tab"},
        {"id": "b", "n": 3, "ml": float("nan"), "ok": True},
    ]
    files.write_table(tmp_path / "a.tsv", rows)
    assert files.read_table(tmp_path / "a.tsv") == [
        {"id": "a", "ml": "1.23457", "note": "two lines and a tab", "n": "", "ok": ""},
        {"id": "b", "ml": "", "note": "", "n": "3", "ok": "True"},
    ]
    files.write_table(tmp_path / "b.tsv", [], ["id", "ml"])
    assert (tmp_path / "b.tsv").read_text() == "id\tml\n"
    assert files.read_table(tmp_path / "b.tsv") == []


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_tables_of_other_programs(tmp_path: Path, mark: str, end: str, start: bytes) -> None:
    text = end.join([f"id{mark} T1w ", f'ü{mark}"a{mark}b c.nii"', "", f"n/a{mark}x", ""])
    (tmp_path / "a.csv").write_bytes(start + text.encode())
    assert files.read_table(tmp_path / "a.csv") == [{"id": "ü", "T1w": f"a{mark}b c.nii"}, {"id": "", "T1w": "x"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"id,T1w\na,b\nc\n", "line 3: 1 cells, the header has 2"),
        (b"id\tT1w\na\tb\tc\n", "line 2: 3 cells, the header has 2"),
        (b"id,id\na,b\n", "two columns 'id'"),
        ("id,T1w\nü,b\n".encode("latin-1"), "not UTF-8"),
        ("id,T1w\nü,b\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    refused(said, tmp_path / "a.csv", files.read_table)


def test_weights_go_out_and_come_back(tmp_path: Path) -> None:
    tensors = {"net.a": torch.randn(3, 4).t(), "net.b": torch.tensor([1, 2])}
    files.write_tensors(tmp_path / "w.safetensors", tensors)
    back = files.read_tensors(tmp_path / "w.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)
    (tmp_path / "bad.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:50])
    refused("damaged or not safetensors", tmp_path / "bad.safetensors", files.read_tensors)
    refused("no such file", tmp_path / "none.safetensors", files.read_tensors)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    refused("no such file", tmp_path / "b", files.sha256)


def test_stem() -> None:
    names = ["a.nii.gz", "a.nii", "A.NII.GZ", "x/a.b.nii.gz", "a.csv"]
    assert [files.stem(n) for n in names] == ["a", "a", "A", "a.b", "a"]


def test_axes_of_the_phantom() -> None:
    """The tests' own grids are what they say."""
    for codes in ("RAS", "LAS", "PIR", "SLP"):
        assert "".join(aff2axcodes(grid(codes, oblique=20).affine)) == codes


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_is_no_file_to_write(path):
    with pytest.raises(BadInput, match="it is a folder; name a file"):
        files.write_text(path, "text")
