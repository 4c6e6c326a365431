"""Many scans over a few threads: while some are computed, the next are read and the last are written.

A scan is one thread's from beginning to end, but what computes is done by threads of its own, always the same: what they keep for
themselves, such as a network made ready, is made once. Whoever has computed writes, while the next, read meanwhile, is computed.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import torch

from anomri.errors import BadCall

Item = TypeVar("Item")
Made = TypeVar("Made")
GRACE_S, PATIENCE_S = 0.5, 20.0
"""How long an interrupted flow lets threads end what they are at, and how long it waits for one that is in a long step, such as N4."""


class Turns:
    """A part of the work that so many threads may be at, at a time: `with turns: ...`; the others wait in line."""

    def __init__(self, places: int) -> None:
        self._free = threading.Semaphore(places)
        self._closed = False

    def __enter__(self) -> None:
        self._free.acquire()
        if self._closed:
            raise SystemExit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.release()

    def close(self, waiting: int) -> None:
        """Ends every thread that waits for a turn, at most `waiting` of them, or comes for one later."""
        self._closed = True
        self._free.release(waiting)


class Flow:
    """Work on many things over threads, which share the processor's; for one run.

    Parameters
    ----------
    jobs : so many are computed at a time, each with its share of the processor's threads

    `reading` are the turns to take for reading. Raises `BadCall` for less than one job.
    """

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise BadCall(f"jobs is {jobs}, needs to be 1 or more")
        self.jobs, self.reading = jobs, Turns(jobs)
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[Any] | BaseException | None] = queue.SimpleQueue()
        self._at_work: set[threading.Thread] = set()
        self._lock, self._stopped = threading.Lock(), False

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Iterable[Made]],
        told: Callable[[Made], None],
        *,
        ahead: bool = False,
    ) -> None:
        """Calls `told`, in this thread, with whatever `work` makes of any item, as it is made; items are begun in order.

        Parameters
        ----------
        ahead : besides the `jobs`, as many items again, and one more, are in work: read beforehand, or still being written. `work`
            then gives to `compute` what it computes

        What `work` or `told` raises, or Ctrl-C, ends all: the threads are interrupted, and what they were at is left half done.
        """
        todo: queue.SimpleQueue[Item | None] = queue.SimpleQueue()

        def go_through() -> None:
            for item in iter(todo.get, None):
                for each in work(item):
                    self._made.put((each,))
                    if self._stopped:
                        return
                self._made.put(None)

        count = min(2 * self.jobs + 1 if ahead else self.jobs, len(items))
        for item in (*items, *[None] * count):
            todo.put(item)
        before = torch.get_num_threads()
        share = max(1, before // self.jobs)
        threads = [self._thread(go_through, share) for _ in range(count)]
        threads += [self._thread(self._compute, share) for _ in range(min(self.jobs, count) if ahead else 0)]
        left = len(items)
        try:
            for one in threads:
                one.start()
            while left:
                try:
                    # A signal that comes just before a wait does not end it: look up now and then.
                    got = self._made.get(timeout=1.0)
                except queue.Empty:
                    continue
                if got is None:
                    left -= 1
                elif isinstance(got, BaseException):
                    raise got
                else:
                    told(got[0])
            self._dismiss()
            for one in threads:
                one.join()
        except BaseException:
            self._interrupt()
            raise
        finally:
            # New threads take the number that was set last, in any thread.
            torch.set_num_threads(before)

    def compute(self, work: Callable[[], Made]) -> Made:
        """What `work` gives, in one of the threads that compute; first come, first served."""
        task: Future[Made] = Future()
        with self._lock:
            if self._stopped:
                raise SystemExit
            self._tasks.put((work, task))
        return task.result()

    def _compute(self) -> None:
        for work, task in iter(self._tasks.get, None):
            try:
                task.set_result(work())
            except BaseException as error:
                task.set_exception(error)
                if self._stopped:
                    return
            # A scan is large, and the next task may be long in coming.
            del work, task

    def _dismiss(self) -> None:
        for _ in range(self.jobs):
            self._tasks.put(None)

    def _thread(self, body: Callable[[], None], share: int) -> threading.Thread:
        def guarded() -> None:
            with suppress(SystemExit):
                try:
                    torch.set_num_threads(share)
                    body()
                except BaseException as error:
                    self._made.put(error)
                finally:
                    with self._lock:
                        self._at_work.discard(threading.current_thread())

        # Daemons: what does not end in time after Ctrl-C must not keep the process.
        thread = threading.Thread(target=guarded, name="anomri", daemon=True)
        self._at_work.add(thread)
        return thread

    def _interrupt(self) -> None:
        """Ends threads: at their next turn, or else as Ctrl-C ends a main thread, when the operation that they are at is over."""
        with self._lock:
            self._stopped = True
            with suppress(queue.Empty):
                while task := self._tasks.get_nowait():
                    task[1].set_exception(SystemExit())
            self._dismiss()
        self.reading.close(1 + len(self._at_work))
        _join(self._at_work, GRACE_S)
        with self._lock:
            threads = [each for each in self._at_work if each.is_alive()]
            for each in threads:
                name = ctypes.c_ulong(each.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(name, ctypes.py_object(SystemExit))
        _join(threads, PATIENCE_S)


def _join(threads: Collection[threading.Thread], seconds: float) -> None:
    """Waits until threads have ended, at most so long."""
    until = time.monotonic() + seconds
    for each in tuple(threads):
        if each.is_alive():
            each.join(max(0.0, until - time.monotonic()))
