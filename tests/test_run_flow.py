"""Scans over threads: what overlaps, what may not, and that nothing but time depends on it."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomri import files, preprocess, run
from anomri.cohort import Cohort, Entry
from anomri.errors import BadCall, BadInput
from anomri.methods import load
from anomri.report import case
from anomri.run.flow import Flow
from anomri.scan import Detection, Finding, Scan
from small import MM, fitted, scan_file, tree
from stand_in import Brightness

SOON = 20.0
"""Seconds after which a test gives up on what should have happened at once."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """No thread is left behind."""
    yield
    assert not [each for each in threading.enumerate() if each.name == "anomri"]


class Acting(Brightness):
    """The stand-in, which does something first."""

    def __init__(self, act: Callable[[str], None] = lambda id: None) -> None:
        super().__init__()
        self.act = act
        self.data = {"spacing_mm": [MM] * 3, "sequences": ["T1w"], "scans": 1}
        self.preset_arguments = {"spacing": MM}

    @property
    def arguments(self) -> dict[str, Any]:
        return {"cut": self.cut}

    def find(self, scan: Scan, rng: torch.Generator) -> Finding:
        self.act(scan.id)
        return super().find(scan, rng)


def cohort(folder: Path, count: int) -> Cohort:
    """So many scans of one file."""
    path = str(scan_file(folder / "in" / "x.nii.gz", lesion=True))
    return Cohort([Entry(f"sub-{k}", {"T1w": path}) for k in range(count)])


def acting(act: Callable[[str], None]) -> Callable[[Scan], Scan]:
    """A step that does something with a scan's id."""

    def step(scan: Scan) -> Scan:
        act(scan.id)
        return scan

    return step


def page(found: Detection, path: Path) -> None:
    files.write_text(path, found.scan.id)


class Crowd:
    """Counts who is inside: `with crowd: ...`."""

    def __init__(self) -> None:
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


# --- the flow itself -----------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(1, 4), st.booleans())
def test_all_is_done_once_in_order_and_no_more_at_a_time_than_may_be(count, jobs, ahead):
    flow, whole, computing, reading = Flow(jobs), Crowd(), Crowd(), Crowd()
    begun: list[int] = []
    told: list[int] = []

    def compute() -> None:
        with computing:
            time.sleep(0)

    def work(item: int) -> list[int]:
        begun.append(item)
        with whole:
            with flow.reading, reading:
                time.sleep(0)
            if ahead:
                flow.compute(compute)
        return [item, -item]

    flow.run(range(count), work, told.append, ahead=ahead)
    assert sorted(told) == sorted(sign * k for k in range(count) for sign in (1, -1))
    assert sorted(begun) == list(range(count))
    assert max(computing.most, reading.most) <= jobs
    assert whole.most <= (2 * jobs + 1 if ahead else jobs)


def test_one_job_without_look_ahead_keeps_the_order():
    told: list[int] = []
    Flow().run(range(20), lambda k: iter([k]), told.append)
    assert told == list(range(20))


def test_there_must_be_a_job(tmp_path):
    for jobs in (0, -1):
        with pytest.raises(BadCall, match=f"jobs is {jobs}"):
            run.detect(Acting(), cohort(tmp_path, 1), tmp_path / "out", jobs=jobs)
        with pytest.raises(BadCall, match=f"jobs is {jobs}"):
            run.prepare_scans(cohort(tmp_path, 1), tmp_path / "out", (), jobs=jobs)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_threads_of_the_processor_are_shared_and_given_back(jobs):
    before = torch.get_num_threads()
    shares: list[int] = []
    try:
        torch.set_num_threads(4)
        Flow(jobs).run(range(6), lambda k: [torch.get_num_threads()], shares.append, ahead=True)
        later: list[int] = []
        one = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        one.start()
        one.join()
        with pytest.raises(ZeroDivisionError):
            Flow(jobs).run(range(6), lambda k: [1 // 0], shares.append)
        assert (torch.get_num_threads(), later) == (4, [4])
    finally:
        torch.set_num_threads(before)
    assert set(shares) == {max(1, 4 // jobs)}


def test_what_goes_wrong_in_a_thread_or_in_the_listener_ends_all():
    def forever(item: int) -> Iterator[int]:
        if item == 1:
            raise KeyError(item)
        while True:
            time.sleep(0.001)
        yield item

    with pytest.raises(KeyError):
        Flow(3).run(range(9), forever, print)

    def slow(item: int) -> Iterator[int]:
        yield item
        while item:
            time.sleep(0.001)

    def listen(item: int) -> None:
        raise KeyError(item)

    with pytest.raises(KeyError):
        Flow(3).run(range(9), slow, listen)


def test_who_waits_for_a_turn_is_ended_too():
    flow = Flow()
    inside = threading.Event()

    def compute() -> None:
        inside.set()
        while True:
            time.sleep(0.001)

    def work(item: int) -> Iterator[int]:
        flow.compute(compute)
        yield item

    def later() -> None:
        assert inside.wait(SOON)
        # Python drops an interrupt that comes while it runs a destructor: whoever waits presses again.
        while not flow._stopped:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            until = time.monotonic() + 5.0
            while not flow._stopped and time.monotonic() < until:
                time.sleep(0.01)

    other = threading.Thread(target=later)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        flow.run(range(4), work, print, ahead=True)
    other.join()


# --- what overlaps -------------------------------------------------------------------------------------------------


def test_the_next_scan_is_read_while_this_one_is_looked_at(tmp_path):
    ready = {f"sub-{k}": threading.Event() for k in range(4)}
    ready["sub-4"] = threading.Event()
    ready["sub-4"].set()

    def act(id: str) -> None:
        assert ready[f"sub-{int(id[4:]) + 1}"].wait(SOON)

    steps = (*Acting().pipeline(), acting(lambda id: ready[id].set()))
    rows = run.detect(Acting(act), cohort(tmp_path, 4), tmp_path / "out", steps=steps)
    assert [row["status"] for row in rows] == ["done"] * 4, rows


def test_the_last_scan_is_written_while_the_next_is_looked_at(tmp_path):
    begun = {f"sub-{k}": threading.Event() for k in range(5)}
    begun["sub-4"].set()

    def drawn(found: Detection, path: Path) -> None:
        assert begun[f"sub-{int(found.scan.id[4:]) + 1}"].wait(SOON)
        page(found, path)

    rows = run.detect(Acting(lambda id: begun[id].set()), cohort(tmp_path, 4), tmp_path / "out", page=drawn)
    assert [row["status"] for row in rows] == ["done"] * 4, rows


@pytest.mark.parametrize("jobs", [2, 3])
def test_so_many_are_looked_at_at_once_in_as_many_threads(tmp_path, jobs):
    """In no more, since a thread may keep what it has made ready for a network."""
    meet, crowd = threading.Barrier(jobs, timeout=SOON), Crowd()
    at: set[int] = set()

    def act(_: str) -> None:
        with crowd:
            at.add(threading.get_ident())
            meet.wait()

    rows = run.detect(Acting(act), cohort(tmp_path, 4 * jobs), tmp_path / "out", jobs=jobs)
    assert [row["status"] for row in rows] == ["done"] * 4 * jobs, rows
    assert crowd.most == len(at) == jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_are_preprocessed_at_once_while_the_next_are_read(tmp_path, jobs):
    meet, crowd = threading.Barrier(jobs, timeout=SOON), Crowd()
    read = {f"sub-{k}": threading.Event() for k in range(4)}

    def act(id: str) -> None:
        with crowd:
            meet.wait()
            # With the first ones at it, all but the last are read.
            assert read["sub-2"].wait(SOON)

    raw = cohort(tmp_path, 4).map(acting(lambda id: read[id].set()))
    steps = (*preprocess.preset("itermask3d", spacing=MM), acting(act))
    rows = run.prepare_scans(raw, tmp_path / "out", steps, jobs=jobs)
    assert [row["status"] for row in rows] == ["done"] * 4, rows
    assert crowd.most == jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_are_in_memory_than_may_be(tmp_path, jobs):
    most, read, lock = 2 * jobs + 1, threading.Semaphore(0), threading.Lock()
    inside: list[int] = [0]
    counts: list[int] = []

    def enter(_: str) -> None:
        with lock:
            inside[0] += 1
            counts.append(inside[0])
        read.release()

    def drawn(found: Detection, path: Path) -> None:
        page(found, path)
        with lock:
            inside[0] -= 1

    raw = cohort(tmp_path, 9).map(acting(enter))
    first, gate = threading.Semaphore(1), threading.Event()

    def held(_: str) -> None:
        # All jobs stand still until the threads have read what they may; whichever scan was read first sees to it.
        if first.acquire(blocking=False):
            for _read in range(most):
                assert read.acquire(timeout=SOON)
            # Whoever reads too much would do so now.
            time.sleep(0.1)
            gate.set()
        assert gate.wait(SOON)

    rows = run.detect(Acting(held), raw, tmp_path / "out", jobs=jobs, page=drawn)
    assert [row["status"] for row in rows] == ["done"] * 9, rows
    assert max(counts) == most


# --- what does not depend on it ------------------------------------------------------------------------------------


def test_rows_are_in_order_and_progress_comes_as_scans_end(tmp_path):
    others = threading.Event()
    told: list[str] = []

    def step(row: dict[str, Any]) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(row["id"])
        if len(told) == 4:
            others.set()

    def act(id: str) -> None:
        assert id != "sub-0" or others.wait(SOON)

    rows = run.detect(Acting(act), cohort(tmp_path, 5), tmp_path / "out", jobs=2, progress=step)
    assert [row["id"] for row in rows] == [f"sub-{k}" for k in range(5)]
    assert told[-1] == "sub-0"
    assert sorted(told) == [row["id"] for row in rows]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted network and some scans."""
    home = tmp_path_factory.mktemp("flow")
    fitted(home)
    for k in range(4):
        scan_file(home / f"in/{k}.nii.gz", k, lesion=k == 2)
    return home


def found(home: Path, out: Path, jobs: int, threads: int) -> tuple[list[Any], dict[str, bytes]]:
    """What a network finds: rows and logs without times, and the images' content."""
    before, method = torch.get_num_threads(), load(home / "model")
    method.precision, method.engine = "float32", "torch"
    entries = [Entry(f"sub-{k}", {"T1w": str(home / f"in/{k}.nii.gz")}) for k in range(4)]
    try:
        torch.set_num_threads(threads)
        rows = run.detect(method, Cohort(entries), out, jobs=jobs, page=case.write)
    finally:
        torch.set_num_threads(before)
    assert [row["status"] for row in rows] == ["done"] * 4
    for row in rows:
        log = files.read_json(out / f"logs/{row['label']}.json")
        row |= {"seconds": 0, "scores": log["scores"], "trace": log["trace"], "configuration": log["configuration"]}
    return files.plain(rows), tree(out)


@pytest.mark.parametrize("jobs", [2, 4])
def test_results_are_the_same_whatever_the_jobs(home, tmp_path, jobs):
    """To the byte, where jobs do not change how many threads sum up a convolution."""
    (rows, one), (again, other) = (found(home, tmp_path / f"{n}", n, threads=1) for n in (1, jobs))
    assert rows == again
    assert one.keys() == other.keys()
    assert all(one[name] == other[name] for name in one if name.endswith(".nii.gz"))


def test_fewer_threads_a_scan_change_no_more_than_the_order_of_sums_does(home, tmp_path):
    (rows, one), (again, other) = (found(home, tmp_path / f"{n}", n, threads=2) for n in (1, 2))
    assert one.keys() == other.keys()
    for first, second in zip(rows, again, strict=True):
        assert first["scores"] == pytest.approx(second["scores"], rel=1e-4)
        assert first["configuration"] == second["configuration"]
        np.testing.assert_allclose(first["trace"]["tau"], second["trace"]["tau"], rtol=1e-4)
    for name in (name for name in one if name.endswith("T1w.nii.gz") and "Order" not in name):
        maps = [files.read_image(tmp_path / f"{n}" / name)[0] for n in (1, 2)]
        apart = np.abs(maps[0] - maps[1]) > 1e-3 * np.abs(maps[0]).max()
        assert apart.mean() < 1e-3, name


def test_what_is_done_is_skipped_whatever_the_jobs(tmp_path):
    scans, looked = cohort(tmp_path, 5), []
    method = Acting(looked.append)
    run.detect(method, scans, tmp_path / "out", shard=(1, 2))
    rows = run.detect(method, scans, tmp_path / "out", jobs=3)
    assert [row["status"] for row in rows] == ["skipped", "done"] * 2 + ["skipped"]
    assert sorted(looked) == list(scans.ids)
    assert {row["status"] for row in run.detect(method, scans, tmp_path / "out", jobs=2, overwrite=True)} == {"done"}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("where", ["hash", "read", "preprocess", "detect", "write", "page"])
@pytest.mark.parametrize("error", [BadInput, ZeroDivisionError])
def test_a_failure_is_its_own_scans_only(tmp_path, monkeypatch, jobs, where, error):
    def fail(at: str) -> Callable[..., None]:
        def act(id: str) -> None:
            if where == at and id in ("sub-1", "sub-2"):
                raise error("on purpose")

        return act

    def drawn(found: Detection, path: Path) -> None:
        page(found, path)
        fail("page")(found.scan.id)

    real, hashes = run.write, run.inputs

    def write(found: Detection, *rest: Any) -> None:
        real(found, *rest)
        fail("write")(found.scan.id)

    def inputs(entry: Entry) -> Any:
        fail("hash")(entry.id)
        return hashes(entry)

    monkeypatch.setattr(run, "write", write)
    monkeypatch.setattr(run, "inputs", inputs)
    scans = cohort(tmp_path, 6).map(acting(fail("read")))
    steps = (*Acting().pipeline(), acting(fail("preprocess")))
    method = Acting(fail("detect"))
    rows = run.detect(method, scans, tmp_path / "out", steps=steps, jobs=jobs, page=drawn)
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "done", "done", "done"]
    assert all("on purpose" in row["message"] for row in rows[1:3])
    left = tree(tmp_path / "out")
    for id, row in zip(scans.ids, rows, strict=True):
        outputs = [name for name in left if name.startswith(id)]
        assert bool(outputs) is (row["status"] == "done")
        assert json.loads(left[f"logs/{id}.json"])["row"] == files.plain(row)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("where", ["detect", "page"])
def test_ctrl_c_stops_soon_and_nothing_half_done_looks_done(tmp_path, jobs, where):
    """Even in the middle of a scan, in whatever thread; the same call then goes on."""

    def stop(id: str, at: str) -> None:
        if at == where and id == "sub-3":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            while True:
                time.sleep(0.001)

    def drawn(found: Detection, path: Path) -> None:
        stop(found.scan.id, "page")
        page(found, path)

    scans, out = cohort(tmp_path, 40), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run.detect(Acting(lambda id: stop(id, "detect")), scans, out, jobs=jobs, page=drawn)
    done = [row["id"] for row in run.gather(out)]
    assert "sub-3" not in done
    assert len(done) < 40
    assert not [name for name in tree(out) if ".part" in name]
    looked: list[str] = []
    rows = run.detect(Acting(looked.append), scans, out, jobs=jobs, page=page)
    assert {row["id"] for row in rows if row["status"] == "skipped"} == set(done)
    assert set(looked) == set(scans.ids) - set(done)
