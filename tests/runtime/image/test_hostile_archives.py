"""Tests of hostile and damaged archives, which are refused and leave nothing."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linux.syscalls import mount, umount
from runtime.engine import Engine
from runtime.errors import InvalidError, UnsupportedError
from runtime.image import layer as streams
from runtime.image import tar
from tests.runtime.image import tars
from tests.runtime.image.image_files import import_root, load, make, unchanged
from tests.runtime.image.tars import Item, directory, link, symlink

UP = "../" * 12


@pytest.fixture
def canary(root: Path) -> Iterator[Path]:
    """Make a directory outside of mydocker's directories; no test may change it."""
    made = Path(tempfile.mkdtemp(dir="/run", prefix="canary-"))
    (made / "file").write_text("alive")
    yield made
    assert [path.name for path in made.iterdir()] == ["file"]
    assert (made / "file").read_text() == "alive"
    assert (made / "file").stat().st_nlink == 1
    shutil.rmtree(made)


def _leading_to(canary: str) -> dict[str, tuple[list[Item], str]]:
    """Return entries that lead to the canary, and the expected errors."""
    dots, absolute, below = (
        "leads out of the archive",
        "is absolute",
        "below a symbolic link that leads out",
    )
    out = symlink("out", f"/{canary}")
    in_link = [directory("a"), symlink("a/up", "../.."), symlink("b", "a/up"), Item("b/evil")]
    return {
        "dots": ([Item(f"{UP}{canary}/evil")], dots),
        "dots inside": ([Item(f"a/{UP}{canary}/evil")], dots),
        "dots at the end": ([directory("a/..")], dots),
        "absolute": ([Item(f"/{canary}/evil")], absolute),
        "absolute by pax": ([Item("x", pax={"path": f"/{canary}/evil"})], absolute),
        "below an absolute link": ([out, Item("out/evil")], below),
        "below a relative link": ([symlink("out", f"{UP}{canary}"), Item("out/evil")], below),
        "below a link in a link": (in_link, below),
        "a directory below a link": ([out, directory("out/evil")], below),
        "a link below a link": ([out, symlink("out/evil", "x")], below),
        "a whiteout below a link": ([out, Item("out/.wh.file")], below),
        "below links in a circle": ([symlink("a", "b"), symlink("b", "a"), Item("a/x")], "loop"),
        "below /proc": ([symlink("self", "/proc/self/cwd"), Item("self/evil")], below),
        "hard link with dots": ([link("evil", f"{UP}{canary}/file")], dots),
        "absolute hard link": ([link("evil", f"/{canary}/file")], absolute),
        "hard link below a link": ([out, link("evil", "out/file")], below),
    }


LEADING_OUT = _leading_to("x")


@pytest.mark.parametrize("how", LEADING_OUT)
def test_entry_that_leads_out_is_refused(
    engine: Engine, root: Path, canary: Path, how: str
) -> None:
    """An entry that leads out of the layer is refused.

    Dots, absolute paths, and links of either kind reach no file outside.
    """
    items, reason = _leading_to(str(canary).lstrip("/"))[how]
    with unchanged(root), pytest.raises(InvalidError, match=reason):
        make(engine, tars.tar(*items))


def test_symlink_to_outside_is_kept_as_a_symlink(engine: Engine, canary: Path) -> None:
    """A symlink that leads out of the image is kept; a later entry of that name replaces it."""
    items = [symlink("out", str(canary)), symlink("file", f"{canary}/file")]
    make(engine, tars.tar(*items, Item("file", b"mine"), directory("out"), Item("out/file")))
    tree = Path(engine.images.get("made").layers[0])
    assert (tree / "file").read_text() == "mine"
    assert (tree / "out" / "file").read_bytes() == b""


ENTRIES: dict[str, tuple[list[Item], str]] = {
    "a character device": ([Item("null", type=tarfile.CHRTYPE)], "'null' is a device"),
    "a block device": ([Item("sda", type=tarfile.BLKTYPE)], "'sda' is a device"),
    "a sparse file": ([Item("s", type=tarfile.GNUTYPE_SPARSE)], "is a sparse file"),
    "a sparse file by pax": ([Item("s", pax={"GNU.sparse.major": "1"})], "is a sparse file"),
    "an unknown kind": ([Item("x", type=b"Q")], "of an unknown type"),
    "a whiteout of nothing": ([Item(".wh.")], "names no file"),
    "a whiteout of the directory": ([Item("a/.wh..")], "names no file"),
    "a whiteout of the one above": ([Item("a/.wh...")], "names no file"),
    "everything is hidden": ([Item(".wh..wh..opq")], "which overlayfs does not support"),
    "a zero byte": ([Item("x", pax={"path": "a\0b"})], "zero byte"),
    "a name too long": ([Item("x" * 256)], "too long for a file system"),
    "a path too long": ([Item("/".join(["x" * 200] * 30))], "too long for a file system"),
    "too deep": ([directory("d/" * 300)], "is 300 directories deep"),
    "a link to nothing": ([link("a", "b")], "linked to 'b', which is not in the archive"),
    "a link to itself": ([Item("a"), link("a", "a")], "which is not in the archive"),
    "a link to a directory": ([directory("a"), link("b", "a")], "hard link to a directory"),
    "a link without a target": ([symlink("a", "")], "empty or malformed target"),
    "a file over a directory": ([directory("a"), Item("a")], "would replace a directory"),
    "a directory below a file": ([Item("a"), Item("a/b")], "would replace a directory"),
    "a file for a top": ([Item("./")], "its top is a file"),
    "a negative size": ([Item("a", pax={"size": "-1"})], "invalid size"),
    "a size without an end": (
        [Item("a", pax={"size": str(2**63 - 1)})],
        "before its last file does",
    ),
    "an impossible owner": ([Item("a", pax={"uid": str(2**32 - 1)})], "invalid uid"),
    "an impossible time": ([Item("a", pax={"mtime": "1e400"})], "invalid mtime"),
    "bad capabilities": (
        [Item("a", pax={"SCHILY.xattr.security.capability": "nonsense"})],
        "malformed file capabilities",
    ),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_invalid_tar_entry_is_refused(engine: Engine, root: Path, what: str) -> None:
    """The error for an invalid tar entry names the entry and the reason."""
    items, reason = ENTRIES[what]
    with unchanged(root), pytest.raises(InvalidError, match=reason):
        make(engine, tars.tar(Item("good", b"x" * 10_000), *items))


def _header(**changes: bytes) -> bytes:
    """Encode a header with some fields overwritten and a correct checksum."""
    places = {"size": (124, 12), "type": (156, 1), "mode": (100, 8)}
    block = bytearray(Item("x").encoded())
    for name, value in changes.items():
        start, length = places[name]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _extension(data: bytes, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    head = _header(type=tarfile.XHDTYPE, size=b"%011o" % length)
    return head + data + bytes(-len(data) % 512)


GOOD = Item("good", b"x" * 10_000).encoded()
ONE = Item("one").encoded()
END = bytes(1024)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "no end-of-archive marker"),
    "no end": (GOOD, "no end-of-archive marker"),
    "half an end": (GOOD + bytes(100), "no end-of-archive marker"),
    "cut in a file": (GOOD[:5000], "before its last file does"),
    "cut in a header": (GOOD + ONE[:300], "no end-of-archive marker"),
    "cut in the padding": (GOOD[:-100], "no end-of-archive marker"),
    "a wrong checksum": (GOOD + ONE.replace(b"one", b"two") + END, "byte 10752 is damaged"),
    "garbage": (GOOD + os.urandom(512) + END, "is damaged"),
    "a negative size": (GOOD + _header(size=b"\xff" * 12) + END, "impossible size of -1 bytes"),
    "an immense size": (
        GOOD + _header(size=b"\x80" + b"\xff" * 11) + END,
        r"impossible size of \d{20,} bytes",
    ),
    "an immense extension": (GOOD + _extension(b"", 1 << 33) + END, "have 8589934592 bytes"),
    "extensions without an end": (
        GOOD + _extension(b"1048000 a=" + b"x" * 1047989 + b"\n") * 3 + END,
        "have 2096000 bytes",
    ),
    "an extension of nothing": (GOOD + _extension(b"6 a=b\n") + END, "in the middle of an entry"),
    "an extension that lies": (GOOD + _extension(b"99 a=b\n") + ONE + END, "is malformed"),
    "an extension of length 0": (GOOD + _extension(b"0 a=b\n") + ONE + END, "is malformed"),
    "an extension without =": (GOOD + _extension(b"6 abc\n") + ONE + END, "is malformed"),
    "gzip cut short": (gzip.compress(GOOD + END)[:-20], "compressed data is damaged"),
    "gzip changed": (
        gzip.compress(GOOD + END)[:-8] + bytes(4) + gzip.compress(GOOD + END)[-4:],
        "compressed data is damaged",
    ),
    "gzip and garbage": (gzip.compress(GOOD + END) + b"garbage", "compressed data is damaged"),
    "gzip of nonsense": (b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 20, "compressed data is"),
    "xz": (b"\xfd7zXZ\x00" + bytes(20), "compressed by xz\n.*only gzip\n.*xz -d"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "compressed by zstd"),
    "bzip2": (b"BZh9" + bytes(20), "compressed by bzip2"),
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("use", [import_root, load])
def test_damaged_tar_is_refused(
    engine: Engine, root: Path, use: Callable[[Engine, bytes], object], what: str
) -> None:
    """A damaged tar of a root file system is refused, although no digest shows the damage."""
    data, reason = DAMAGED[what]
    with unchanged(root), pytest.raises(InvalidError, match=reason):
        use(engine, data)


# --- bombs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "whole"), [([1 << 21], False), ([1 << 21], True), ([200_000] * 8, False)]
)
def test_archive_that_unpacks_to_too_many_bytes_is_refused(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch, files: list[int], *, whole: bool
) -> None:
    """An archive that unpacks beyond the byte budget of all its layers is refused.

    A small compressed layer or archive can unpack to more than the budget.
    """
    monkeypatch.setattr(streams, "MOST_BYTES", 1 << 20)
    layers = [gzip.compress(tars.tar(Item(f"f{n}", bytes(size)))) for n, size in enumerate(files)]
    archive = layers[0] if whole else tars.packed(tars.new_docker(layers, tars.config(layers)))
    assert len(archive) < 30_000
    with unchanged(root), pytest.raises(InvalidError, match="unpacks to more than 1048576 bytes"):
        load(engine, archive)


def test_archive_with_too_many_entries_is_refused(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive with too many entries is refused; headers without a file count as well."""
    monkeypatch.setattr(tar, "MAX_ENTRIES", 100)
    with unchanged(root), pytest.raises(InvalidError, match="more than 100 entries"):
        make(engine, tars.tar(*(Item(f"f{n}") for n in range(200))))
    empty = _extension(b"") * 200
    with unchanged(root), pytest.raises(InvalidError, match="more than 100 entries"):
        import_root(engine, empty + END)


def test_load_on_a_full_disk_is_reported_and_undone(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load on a full disk names the reason, and the written space is free again."""
    small = root / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", 0, "size=2m")
    try:
        inner = Engine(small)
        monkeypatch.setattr(streams.Budget, "take", lambda *_: None)
        with pytest.raises(UnsupportedError, match="the disk is full"):
            make(inner, tars.tar(Item("big", os.urandom(3 << 20))))
        assert os.statvfs(small).f_bfree * 4096 > 1_900_000
        monkeypatch.undo()
        with pytest.raises(InvalidError, match="too little space is free"):
            make(inner, tars.tar(Item("big", os.urandom(3 << 20))))
    finally:
        umount(str(small))
