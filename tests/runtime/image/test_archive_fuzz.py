"""Property tests of layers and archives with random content."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidError
from runtime.image import layer as layers
from runtime.image.config import InvalidArchive
from runtime.image.documents import parse_config
from runtime.image.images import Images
from runtime.image.layer import Budget
from runtime.image.store import ImageStore
from runtime.image.tar import Chunks, pack
from runtime.store import Store
from tests.runtime.image import tars
from tests.runtime.image.tars import Item

pytestmark = pytest.mark.usefixtures("root")  # the sandbox, and its private /run

fuzz = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)

PARTS = st.sampled_from(
    ["a", "b", "c", "..", ".", "", "link", ".wh.a", ".wh.link", ".wh..wh..opq", "\udcff", "é" * 80]
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
TARGETS = st.one_of(
    PATHS, st.sampled_from(["/run/outside", "../outside", "../../outside/file", "/", "/proc/self"])
)
KINDS = st.sampled_from(
    [
        *[tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE] * 4,
        *[tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.CHRTYPE, b"Z"],
    ]
)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """Draw an entry; most are valid."""
    kind = draw(KINDS)
    return Item(
        draw(PATHS),
        draw(st.binary(max_size=600)) if kind == tarfile.REGTYPE else b"",
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.sampled_from([0, 1, 1000, 4_000_000_000])),
        draw(st.sampled_from([0, 5])),
        draw(TARGETS) if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a directory with a neighbour that must not change, on the sandbox's tmpfs."""
    with tempfile.TemporaryDirectory(dir="/run") as made:
        outside = Path(made, "outside")
        outside.mkdir()
        (outside / "file").write_text("alive")
        before = (outside.stat(), (outside / "file").stat())
        yield Path(made)
        after = (outside.stat(), (outside / "file").stat())
        for was, is_now in zip(before, after, strict=True):
            assert was[:4] == is_now[:4]
            assert (was.st_mtime_ns, was.st_ctime_ns) == (is_now.st_mtime_ns, is_now.st_ctime_ns)
        shutil.rmtree(made, ignore_errors=True)
        os.mkdir(made)


@fuzz
@given(st.lists(items(), max_size=12))
def test_arbitrary_entries_stay_in_the_layer_directory(entries: list[Item]) -> None:
    """A layer of arbitrary entries writes inside its directory only.

    An accepted layer can be packed to a tar, which is accepted again with the same content.
    """
    with scratch() as made:
        descriptors = set(os.listdir("/proc/self/fd"))
        with suppress(InvalidArchive):
            layers.build(str(made / "one"), io.BytesIO(tars.tar(*entries)), Budget(1 << 30))
            data = b"".join(pack(str(made / "one" / "tree"), layer=True))
            layers.build(str(made / "two"), Chunks([data]), Budget(1 << 30))
            assert b"".join(pack(str(made / "two" / "tree"), layer=True)) == data
        # Descriptors of earlier tests may have been closed by the garbage collector.
        assert set(os.listdir("/proc/self/fd")) <= descriptors
        assert set(os.listdir(made)) <= {"one", "two", "outside"}


LAYER = tars.tar(tars.directory("d"), Item("d/f", b"data" * 200), tars.symlink("s", "d/f"))
ARCHIVES = [
    tars.packed(make([LAYER], tars.config([LAYER], Env=["A=b"]), ["name:1"]))
    for make in (tars.old_docker, tars.new_docker, tars.oci)
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an archive with changed, inserted, removed or swapped bytes."""
    data = bytearray(draw(st.sampled_from(ARCHIVES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "insert", "cut", "swap"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=512))
            case "cut":
                del data[at : at + draw(st.integers(1, 4096))]
            case _:
                block, other = at // 512 * 512, draw(st.integers(0, len(data))) // 512 * 512
                data[block : block + 512], data[other : other + 512] = (
                    data[other : other + 512],
                    data[block : block + 512],
                )
    return bytes(data)


@fuzz
@given(damaged())
def test_damaged_archive_loads_whole_or_not_at_all(data: bytes) -> None:
    """A damaged archive loads the image that its digests describe, or nothing."""
    with scratch() as made, tempfile.TemporaryFile(dir="/run", buffering=0) as file:
        store = ImageStore(str(made))
        file.write(data)
        file.seek(0)
        try:
            found = Images(store, Store(str(made))).load(file)
        except InvalidError:
            assert store.index() == ({}, {})
            for name in ("layers", "configs", "scratch"):
                assert not list((made / "library" / name).iterdir())
        else:
            for item in found:
                raw = store.config(item.identity)
                assert tars.sha256(raw) == item.identity
                for layer in parse_config(raw).layers:
                    assert tars.sha256(Path(store.layer(layer), "blob").read_bytes()) == layer


@fuzz
@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_refused_as_an_archive(data: bytes) -> None:
    """Bytes that are no archive raise only `InvalidArchive`."""
    with scratch() as made, pytest.raises(InvalidArchive):
        layers.build(str(made / "one"), io.BytesIO(data), Budget(1 << 30))
