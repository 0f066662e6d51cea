"""Claims in a real S3 server: who has one, keeps it, loses it."""

from __future__ import annotations

import contextlib
import time

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from musicflamingo_cli.stores.leases import Leases, claim_key
from musicflamingo_cli.stores.store import ConflictError, S3Store
from tests.stores.conftest import without_server


def test_a_claim_that_rests_is_taken_over(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    store.write(claim_key(sidecar), b"of a process that was killed", None)
    with Leases(store, 0.6) as leases:
        started = time.monotonic()
        while True:
            with leases.claimed(sidecar) as is_ours:
                if is_ours:
                    break
            time.sleep(0.05)
        assert 0.5 < time.monotonic() - started < 5
    assert store.read(claim_key(sidecar)) is None


def test_a_claim_that_is_renewed_is_not_taken_over(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    with Leases(store, 1.0) as ours, Leases(S3Store(), 1.0) as theirs, ours.claimed(sidecar) as is_ours:
        assert is_ours
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            with theirs.claimed(sidecar) as is_theirs:
                assert not is_theirs
            time.sleep(0.1)
        assert ours.is_held(sidecar)


def test_who_lost_a_claim_notices(bucket: str) -> None:
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    with Leases(store, 0.4) as leases, leases.claimed(sidecar):
        stored = store.read(claim_key(sidecar))
        while stored is not None:
            with contextlib.suppress(ConflictError):
                store.write(claim_key(sidecar), b"theirs", stored.tag)
                break
            stored = store.read(claim_key(sidecar))
        deadline = time.monotonic() + 5
        while leases.is_held(sidecar) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not leases.is_held(sidecar)
    kept = store.read(claim_key(sidecar))
    assert kept is not None
    assert kept.data == b"theirs"


def test_a_store_that_goes_away_loses_no_claim(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store()
    there = store.write
    with Leases(store, 0.4) as leases, leases.claimed(f"{bucket}/d/a.INFO") as is_ours:
        assert is_ours
        without_server(monkeypatch)
        monkeypatch.setattr(store, "write", S3Store().write)
        time.sleep(0.3)
        monkeypatch.setattr(store, "write", there)
        version = store.read(claim_key(f"{bucket}/d/a.INFO"))
        deadline = time.monotonic() + 10
        while store.read(claim_key(f"{bucket}/d/a.INFO")) == version and time.monotonic() < deadline:
            time.sleep(0.05)
        assert store.read(claim_key(f"{bucket}/d/a.INFO")) != version, "it is renewed again"


def test_a_write_whose_answer_was_lost_is_ours(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library repeats such a write, and the repetition conflicts with what the first one wrote."""
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    there = store.write

    def write_twice(key: str, data: bytes, tag: str | None) -> str:
        there(key, data, tag)
        return there(key, data, tag)

    monkeypatch.setattr(store, "write", write_twice)
    with Leases(store, 0.4) as leases, leases.claimed(sidecar) as is_ours:
        assert is_ours
        time.sleep(0.6)  # it is renewed several times
        assert leases.is_held(sidecar)
    assert store.read(claim_key(sidecar)) is None


def test_a_process_that_slept_too_long_asks_before_it_writes(bucket: str) -> None:
    """As after a freeze: the claim looks held, but no thread has renewed it, and another process has taken it."""
    store, sidecar = S3Store(), f"{bucket}/d/a.INFO"
    leases = Leases(store, 0.4)  # not entered: nothing renews
    with leases.claimed(sidecar) as is_ours:
        assert is_ours
        assert leases.is_held(sidecar)
        time.sleep(0.3)
        assert leases.is_held(sidecar), "it could still be renewed"
        stored = store.read(claim_key(sidecar))
        assert stored is not None
        store.write(claim_key(sidecar), b"theirs", stored.tag)
        time.sleep(0.3)
        assert not leases.is_held(sidecar)


def test_nothing_is_claimed_where_nothing_is_written(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store()
    monkeypatch.setattr(store, "write", lambda *_: pytest.fail("it was written"))
    with Leases(store, is_needed=False) as leases, leases.claimed(f"{bucket}/d/a.INFO") as is_ours:
        assert is_ours
        assert leases.is_held(f"{bucket}/d/a.INFO")
