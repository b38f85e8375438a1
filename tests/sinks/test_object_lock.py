"""The lock of an output on an object store."""

from __future__ import annotations

import pytest

from blip2cli.errors import OutputError, RunError
from blip2cli.sinks import lock_of, object_lock
from blip2cli.sinks.object_lock import ObjectLock
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.object_requests import ObjectFolder
from tests.sinks.helpers import row
from tests.sinks.object_outputs import again, hidden, new, put, repeat_without_pauses, rows
from tests.store_proxy import StoreProxy


@pytest.fixture
def out(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an output."""
    repeat_without_pauses(monkeypatch)
    return f"{bucket}/some/out/"


def test_one_run_holds_the_lock(out: str, proxy: StoreProxy) -> None:
    with lock_of(out) as lock:
        assert lock.taken_from is None
        with pytest.raises(
            OutputError, match=r"Another run .* is writing 's3.*wait for its end, or"
        ):
            lock_of(out).__enter__()
        proxy.on_puts("after", "busy", "conflict")
    with lock_of(out) as lock:  # released
        assert lock.taken_from is None
    assert ObjectFolder(OutputPaths.of(out).lock).names() == ["000002"]


def test_a_number_that_others_had_meanwhile_is_no_lock(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock_of(out):
        pass
    numbers, others = object_lock._numbers, [lock_of(out), lock_of(out)]

    def slow(folder: ObjectFolder) -> list[int]:
        found = numbers(folder)
        monkeypatch.setattr(object_lock, "_numbers", numbers)
        with others[0]:
            pass
        others[1].__enter__()
        return found

    monkeypatch.setattr(object_lock, "_numbers", slow)
    with pytest.raises(OutputError, match=r"Another run has just begun to write 's3.*wait for its"):
        lock_of(out).__enter__()
    others[1].check()
    others[1].__exit__(None, None, None)
    assert ObjectFolder(OutputPaths.of(out).lock).names() == ["000003"]


def test_a_run_that_gives_no_sign_loses_the_lock(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No process of this machine is known.
    monkeypatch.setattr("blip2cli.sinks.lock_holder.Holder.runs", lambda *a, **k: None)
    suspended = ObjectLock(out)
    suspended.__enter__()
    sink = new(out)
    put(sink, 0, 4)
    with pytest.raises(OutputError, match=r"is writing .* if it was killed, try again in \d+ s"):
        lock_of(out).__enter__()
    object_lock._held.clear()  # as in another process
    with ObjectLock(out, gone_seconds=-10) as lock:
        assert lock.taken_from is not None
        assert lock.taken_from.startswith("process ")
        object_lock._held[OutputPaths.of(out).final] = suspended
        suspended._looked_at -= object_lock.CHECK_SECONDS  # that much later
        with pytest.raises(RunError, match="another run has taken it over meanwhile"):
            put(sink, 4, 8)
    suspended.__exit__()
    with lock_of(out):
        sink = again(out)
        put(sink, 4, 8)
        sink.close()
    assert rows(out) == [row(n) for n in range(8)]


def test_the_lock_finds_out_what_the_store_cannot_do(out: str, bucket: str) -> None:
    with pytest.raises(OutputError, match="There is no bucket 's3://no-such-bucket'; create it"):
        lock_of("s3://no-such-bucket/out/").__enter__()
    assert hidden(out) == []
