"""Tests of the image store: killed and concurrent changes, names, removal."""

from __future__ import annotations

import gzip
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from runtime import store
from runtime.engine import Engine
from runtime.errors import ConflictError, InvalidError, NotFoundError
from runtime.image import archive, layer, unpack
from runtime.image import store as images
from runtime.image.config import parse_reference
from runtime.image.store import ImageStore
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, import_root, load, make, on_disk, output
from tests.runtime.image.tars import Item, directory
from tests.runtime.support.inspection import loaded_images
from tests.runtime.support.killing import in_process, killed_at, steps

ONE = tars.tar(directory("d"), Item("d/f", b"one"))
TWO = tars.tar(Item("two", b"two"))


def _archive(*layers: bytes, name: str = "made") -> bytes:
    return tars.packed(tars.new_docker(layers, tars.config(layers), [name]))


LOADING = steps(
    (store.Lock, "take"),
    (archive.Archive, "images"),
    (layer, "build"),
    (unpack.Tree, "add"),
    (unpack.Tree, "finish"),
    (layer, "write_json"),
    (ImageStore, "publish"),
    (ImageStore, "_make_mount_points"),
    (os, "rename"),
    (images, "write_json"),
    (ImageStore, "_remove_unlisted"),
    (store, "remove_tree"),
    (store, "_remove_one"),
)


@pytest.mark.parametrize("step", LOADING.values(), ids=list(LOADING))
def test_killed_load_leaves_the_whole_image_or_none(
    engine: Engine, root: Path, step: tuple[Any, str, bool]
) -> None:
    """A killed load leaves the whole image or none.

    The next mydocker call removes the rest, and the next load works.
    """
    compressed = gzip.compress(_archive(ONE, TWO))  # so that a copy is written to `scratch`
    killed_at(step, lambda: load(Engine(root), compressed))
    names = loaded_images(engine)
    assert names in ([], ["made:latest"])
    if names:
        made = engine.images.get("made")
        assert [os.listdir(tree) for tree in made.layers[:-1]] == [["two"], ["d"]]
    for name in ("", "2"):
        make(engine, ONE, TWO, name=f"made{name}")
        engine.images.remove(f"made{name}")
    if names:
        with pytest.raises(NotFoundError):
            engine.images.get("made")
    empty = {name for name in on_disk(root) if not name.startswith("library/empty")}
    assert empty == {"library/index.json", "changing", "containers", "names", "networks"}


REMOVING = steps(
    (images, "write_json"),
    (ImageStore, "_remove_unlisted"),
    (ImageStore, "_abandoned"),
    (os, "rename"),
    (os, "unlink"),
    (store, "remove_tree"),
    (store, "_remove_one"),
)


@pytest.mark.parametrize("step", REMOVING.values(), ids=list(REMOVING))
def test_image_removal_that_was_killed_is_finished_by_the_next_change(
    engine: Engine, root: Path, step: tuple[Any, str, bool]
) -> None:
    """If the removal of an image is killed, the image is whole or the next change removes it."""
    make(engine, ONE, TWO)
    make(engine, ONE, name="other")
    killed_at(step, lambda: Engine(root).images.remove("made"))
    if any(item.name == "made:latest" for item in engine.images.all()):
        assert os.listdir(engine.images.get("made").layers[0]) == ["two"]
        engine.images.remove("made")
    engine.images.tag("other", "another")
    assert len(list((root / "library" / "layers").iterdir())) == 1
    assert len(list((root / "library" / "configs").iterdir())) == 1
    assert not list((root / "library" / "scratch").iterdir())
    assert os.listdir(engine.images.get("another").layers[0]) == ["d"]


def test_removal_killed_after_config_removal_is_completed(engine: Engine, root: Path) -> None:
    """A removal that was killed after it removed config.json is finished.

    config.json may be the first file that a directory lists.
    """
    found = engine.create("base", ["true"], name="web", network="none")

    def remove_one_file(path: str) -> None:
        os.unlink(f"{path}/config.json")
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        store.remove_tree = remove_one_file
        Engine(root).remove("web")

    assert in_process(work) == -signal.SIGKILL
    assert not engine.containers()
    assert found.id not in os.listdir(root / "containers")


def _at_once(*calls: Callable[[], object]) -> None:
    workers = [get_context("fork").Process(target=call) for call in calls]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(calls)


def test_concurrent_removals_of_one_directory_succeed(root: Path) -> None:
    """A removal succeeds if another process removed one of its files first."""
    doomed = root / "doomed"
    for number in range(400):
        (doomed / f"a{number % 20}" / f"b{number}" / "c").mkdir(parents=True)
        (doomed / f"a{number % 20}" / f"b{number}" / "f").touch()
    _at_once(*[partial(store.remove_tree, str(doomed))] * 4)
    assert not doomed.exists()


def _load_many(root: Path, name: str) -> None:
    engine = Engine(root)
    for number in range(5):
        load(engine, _archive(ONE, TWO, name=f"{name}{number}"))
        load(engine, _archive(ONE, tars.tar(Item(name)), name=f"own-{name}"))


def _load_and_remove(root: Path, name: str) -> None:
    engine = Engine(root)
    for _ in range(8):
        load(engine, _archive(ONE, TWO, name=name))
        assert os.listdir(engine.images.get(name).layers[0]) == ["two"]
        engine.images.remove(name)


@pytest.mark.parametrize("work", [_load_many, _load_and_remove])
def test_concurrent_loads_and_removals_leave_one_image_or_none(
    engine: Engine, root: Path, work: Callable[[Path, str], None]
) -> None:
    """After parallel loads and removals of an image, the image is there once, or not at all."""
    _at_once(*(partial(work, root, f"p{number}") for number in range(4)))
    index = ImageStore(str(root)).index()
    kept = 6 if work is _load_many else 0
    assert set(index.layers()) == set(os.listdir(root / "library" / "layers"))
    assert len(index.layers()) == kept
    assert not list((root / "library" / "scratch").iterdir())


def test_layer_removed_during_a_load_is_made_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load creates a layer again that was removed during the load.

    The load had relied on that layer, which belonged to another image.
    """
    make(engine, ONE, name="first")
    original = ImageStore.publish
    pending = [lambda: engine.images.remove("first")]

    def late(self: ImageStore, *args: Any) -> list[str]:
        if pending:
            pending.pop()()
        return original(self, *args)

    monkeypatch.setattr(ImageStore, "publish", late)
    make(engine, ONE, TWO)
    assert [os.listdir(tree) for tree in engine.images.get("made").layers[:-1]] == [["two"], ["d"]]


# --- names ------------------------------------------------------------------------


def test_image_tag_adds_a_name(engine: Engine) -> None:
    """`tag` adds a name, and the image is removed with its last name."""
    identity = make(engine, ONE)
    engine.images.tag("made", "example.com:5000/team/made:v1")
    engine.images.tag(identity[:10], "again")
    removed = engine.images.remove("made")
    assert (removed.names, removed.images, removed.layers) == (["made:latest"], [], [])
    assert engine.images.get("example.com:5000/team/made:v1").id == identity
    engine.images.remove("again:latest")
    removed = engine.images.remove("example.com:5000/team/made:v1")
    assert (removed.images, removed.layers) == ([identity], [tars.sha256(ONE)])


def test_name_moves_to_the_new_image(engine: Engine) -> None:
    """A name moves to the new image; the old one stays unnamed and removable by its id."""
    first, second = make(engine, ONE), make(engine, TWO)
    assert engine.images.get("made").id == second
    assert {(item.name, item.id) for item in engine.images.all()} >= {
        ("<none>:<none>", first),
        ("made:latest", second),
    }
    assert engine.images.remove(first[:12]).images == [first]


def test_tagged_base_is_an_ordinary_image(engine: Engine) -> None:
    """A tagged `base` has the id of `base` and starts as `base` does."""
    engine.images.tag("base", "mine:1")
    assert engine.images.get("mine:1").id == engine.images.get("base").id
    assert output(engine, "mine:1", "echo here") == "here\n"
    assert engine.images.get(engine.images.get("base").id[:12]).id == engine.images.get("base").id


def test_image_in_use_is_not_removed(engine: Engine) -> None:
    """The error for the removal of an image in use names the container.

    With `force` the image loses only its name.
    """
    make(engine, base_layer(engine), ONE)
    found = engine.create("made", ["cat", "/d/f"], name="web", network="none")
    with pytest.raises(ConflictError, match="container 'web' uses the image"):
        engine.images.remove("made")
    engine.images.tag("made", "second")
    engine.images.remove("second")
    removed = engine.images.remove("made", force=True)
    assert (removed.names, removed.images) == (["made:latest"], [])
    engine.start(found.id)
    assert engine.wait(found.id) == 0
    engine.remove(found.id)
    (left,) = (item for item in engine.images.all() if item.name == "<none>:<none>")
    assert engine.images.remove(left.id).images == [left.id]


def test_image_with_several_repositories_is_not_removed_by_id(engine: Engine) -> None:
    """An image with several repositories is removed by force or by names, not by id."""
    identity = make(engine, ONE)
    engine.images.tag("made", "made:2")
    engine.images.tag("made", "other")
    with pytest.raises(ConflictError, match="made:2, made:latest, other:latest"):
        engine.images.remove(identity)
    engine.images.remove("other")
    assert engine.images.remove(identity).names == ["made:2", "made:latest"]


def test_image_is_locked_while_a_container_is_created(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal of an image waits for a container's creation, and then is refused."""
    make(engine, ONE)
    original = store.Store.create
    held: list[bool] = []

    def create(self: store.Store, *args: Any) -> Any:
        held.append(store.Lock.take(f"{self.root}/library/lock", wait=False) is None)
        return original(self, *args)

    monkeypatch.setattr(store.Store, "create", create)
    engine.create("made", ["true"], name="web", network="none")
    assert held == [True]
    with pytest.raises(ConflictError, match="'web' uses the image"):
        engine.images.remove("made")


def test_ambiguous_id_prefix_is_refused(engine: Engine) -> None:
    """The error for an ambiguous id prefix lists the ids."""
    made = [import_root(engine, tars.tar(Item(str(n))), f"n{n}") for n in range(17)]
    digit = next(d for d in "0123456789abcdef" if sum(item.startswith(d) for item in made) > 1)
    with pytest.raises(NotFoundError, match=r"\d IDs have this prefix"):
        engine.images.get(digit)
    assert engine.images.get(f"sha256:{made[0]}").id == made[0]


NAMES = {
    "alpine": "alpine:latest",
    "alpine:3.19": "alpine:3.19",
    "docker.io/library/alpine": "alpine:latest",
    "docker.io/team/app:1": "team/app:1",
    "index.docker.io/library/alpine": "alpine:latest",
    "library/alpine": "alpine:latest",
    "ghcr.io/team/app": "ghcr.io/team/app:latest",
    "localhost:5000/app": "localhost:5000/app:latest",
    "localhost:5000/app:v1": "localhost:5000/app:v1",
    "[::1]:5000/app": "[::1]:5000/app:latest",
    "a__b/c-d.e:X_1": "a__b/c-d.e:X_1",
}


@pytest.mark.parametrize("text", NAMES)
def test_reference_is_normalized_as_by_docker(text: str) -> None:
    """An image reference gets or loses the implied registry and tag, as with Docker."""
    assert parse_reference(text) == NAMES[text]


MALFORMED = (
    *("", ":", "Alpine", "a b", "a/../b", "/a", "a/", "a:", "a:b:c", "a@b", "-a", "a:-b", "a\n"),
    *("a/" * 200 + "a", "x" * 256, "a:" + "x" * 129),
)


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_reference_is_refused(text: str) -> None:
    """A malformed image reference is refused, and nothing is made."""
    with pytest.raises(InvalidError, match=re.escape(f"name an image {text!r}")):
        parse_reference(text)
