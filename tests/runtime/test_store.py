"""Tests of the store on disk: ids, names, locks, atomic files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConflictError, InvalidError, NotFoundError
from runtime.records import ContainerConfig, ContainerState, state_from_json, state_to_json
from runtime.store import Lock, Store, match_prefix, new_id, read_json, write_json

ids = st.lists(st.text("0123456789abcdef", min_size=1, max_size=6), unique=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    made = Store(str(tmp_path))
    made.prepare()
    return made


def _config(name: str, identity: str = "") -> ContainerConfig:
    return ContainerConfig(id=identity or new_id(), name=name, image="base", command=["true"])


def _create(store: Store, name: str, identity: str = "") -> str:
    config = _config(name, identity)
    store.create(config, ContainerState()).release()
    return config.id


@given(ids, st.text("0123456789abcdef", max_size=6))
def test_id_prefix_matches_every_id_with_that_start(known: list[str], prefix: str) -> None:
    """An id prefix matches every id with that start, in order; a whole id matches itself."""
    found = match_prefix(prefix, known)
    matches = sorted(item for item in known if item.startswith(prefix))
    assert found == ([prefix] if prefix in known else matches)


def test_container_ids_are_64_hexadecimal_digits() -> None:
    """Container ids have 64 hexadecimal digits and never repeat."""
    found = {new_id() for _ in range(100)}
    assert len(found) == 100
    assert all(len(item) == 64 and set(item) <= set("0123456789abcdef") for item in found)


def test_short_container_id_is_a_valid_hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's short id is a valid host name, so not a number.

    One id in 280 would begin with twelve decimal digits.
    """
    drawn = iter(
        [bytes.fromhex("735170308526" + "ab" * 26), bytes.fromhex("73517030852e" * 5 + "0000")]
    )
    monkeypatch.setattr("os.urandom", lambda _: next(drawn))
    assert new_id().startswith("73517030852e")


def test_container_is_found_by_name_id_and_prefix(store: Store) -> None:
    """A container is found by name, id and prefix; a name wins over an equal prefix."""
    one = _create(store, "web", "a" * 64)
    other = _create(store, "aa", "b" * 64)
    assert store.resolve("web") == store.resolve("a" * 64) == store.resolve("aaa") == one
    assert store.resolve("aa") == other


def test_whole_id_precedes_an_equal_name(store: Store) -> None:
    """A whole id finds its own container, even if another one has it as its name."""
    one = _create(store, "web", "a" * 64)
    _create(store, "a" * 64, "b" * 64)
    assert store.resolve("a" * 64) == one


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("ab", r"2 IDs have this prefix: ab1111111111, ab2222222222"),
        ("f", "no such container"),
        ("", "no such container"),
        ("../etc", "no such container"),
    ],
)
def test_ambiguous_or_unknown_container_reference_is_refused(
    store: Store, reference: str, message: str
) -> None:
    """An ambiguous prefix is refused with its matches, and an unknown reference is refused too.

    No reference leads out of the directory.
    """
    _create(store, "one", "ab1" + "1" * 61)
    _create(store, "two", "ab2" + "2" * 61)
    with pytest.raises(NotFoundError, match=message) as caught:
        store.resolve(reference)
    assert repr(reference) in str(caught.value)


def test_container_name_is_free_again_after_deletion(store: Store) -> None:
    """A name in use is refused and the attempt leaves nothing; after deletion it is free."""
    _create(store, "web")
    config = store.config(store.resolve("web"))
    with pytest.raises(ConflictError, match="web"):
        _create(store, "web")
    assert store.ids() == [config.id]
    store.delete(config)
    assert _create(store, "web") != config.id


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "..", "ü", "a:b"])
def test_malformed_container_name_is_refused(store: Store, name: str) -> None:
    """A name with characters that file or host names cannot have is refused."""
    with pytest.raises(InvalidError, match="malformed"):
        _create(store, name)
    assert store.ids() == []


def test_container_name_of_a_killed_creation_is_free(store: Store) -> None:
    """The name is free if its creator was killed before it wrote the container."""
    os.symlink("f" * 64, f"{store.names}/web")
    assert store.resolve(_create(store, "web")) != "f" * 64


def test_state_directory_is_accessible_to_its_owner_only(store: Store) -> None:
    """No other user of the machine can read the state directory."""
    _create(store, "web")
    directories = [store.containers, store.names, store.networks]
    for path in (*directories, *map(str, Path(store.containers).iterdir())):
        assert os.stat(path).st_mode & 0o077 == 0


def test_json_file_is_replaced_atomically(tmp_path: Path) -> None:
    """A reader with the old file open reads it to its end; no temporary file stays."""
    path = str(tmp_path / "x.json")
    write_json(path, {"a": 1})
    with open(path, encoding="utf-8") as old:
        write_json(path, {"a": 2})
        assert old.read() == '{"a": 1}'
    assert read_json(path) == {"a": 2}
    assert os.listdir(tmp_path) == ["x.json"]


def test_store_lock_is_exclusive_until_release(tmp_path: Path) -> None:
    """A lock excludes other processes until its release."""
    path = str(tmp_path / "lock")
    held = Lock.take(path)
    assert held is not None
    assert Lock.take(path, wait=False) is None
    held.release()
    again = Lock.take(path, wait=False)
    assert again is not None
    again.release()


def test_container_state_survives_storage_as_json() -> None:
    """A state that is written as JSON and read again is equal."""
    state = ContainerState(status="exited", exit_code=3, started="now")
    assert state_from_json(state_to_json(state)) == state
