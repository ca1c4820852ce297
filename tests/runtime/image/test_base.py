"""The image that is assembled from the machine, and when it is made anew."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import NotFoundError, UnsupportedError
from runtime.image import assemble, base
from runtime.image.base import BASE, BUSYBOX

ROOM = 20_000_000
"""An image of the machine's own programs stays below it, in bytes."""


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """An empty cache."""
    return str(tmp_path)


def test_base_has_a_shell_and_its_libraries(cache: str) -> None:
    """Small, readable for every user, nothing set-uid, nothing pointing outside."""
    found = base.get(BASE, cache)
    (layer,) = map(Path, found.layers)
    assert found.size < ROOM
    for name in ("sh", "sleep", "cat", "ls", "env", "true"):
        assert (layer / "bin" / name).exists()
    for path in layer.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID)
        assert path.name == "root" or path.is_symlink() or mode & stat.S_IROTH
        if path.is_symlink():
            assert not os.readlink(path).startswith("/")
    for name in ("hosts", "hostname", "resolv.conf", "passwd"):
        assert (layer / "etc" / name).exists()


def test_it_is_made_once(cache: str) -> None:
    """The second time nothing is copied, and nothing but it lies in the cache."""
    first = base.get(BASE, cache)
    assert base.get(f"{BASE}:latest", cache) == first
    assert len(list(Path(cache).glob("base-*"))) == 1
    assert not list(Path(cache).glob("new-*"))


def test_a_changed_machine_makes_a_new_one(cache: str) -> None:
    """When a program is another than it was; the old layer stays under whoever stands on it."""
    first = base.get(BASE, cache)
    record = Path(cache, "base.json")
    made = json.loads(record.read_text())
    path = next(path for path in made["from"] if path.endswith(("/sleep", "/busybox")))
    made["from"][path][1] += 1
    record.write_text(json.dumps(made))
    assert base.get(BASE, cache).layers != first.layers
    assert os.path.isdir(first.layers[0])


def test_another_copy_of_mydocker_takes_the_same(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it lies and when it was installed does not matter; what it would make does."""
    first = base.get(BASE, cache)
    other = tmp_path / "elsewhere.py"
    other.write_bytes(Path(base.RECIPE).read_bytes())
    monkeypatch.setattr(base, "RECIPE", str(other))
    assert base.get(BASE, cache) == first
    other.write_text("# otherwise\n")
    assert base.get(BASE, cache).layers != first.layers


def _delete(cache: str) -> None:
    layer = json.loads(Path(cache, "base.json").read_text())["layer"]
    os.rename(f"{cache}/{layer}", f"{cache}/elsewhere")


DAMAGE: dict[str, Callable[[str], object]] = {
    "record is no JSON": lambda cache: Path(cache, "base.json").write_text("{"),
    "record is another's": lambda cache: Path(cache, "base.json").write_text("{}"),
    "layer is gone": _delete,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_cache_is_made_anew(cache: str, damage: Callable[[str], object]) -> None:
    """Whatever somebody did to it."""
    base.get(BASE, cache)
    damage(cache)
    assert os.path.exists(f"{base.get(BASE, cache).layers[0]}/bin/sh")


def test_a_layer_goes_a_month_after_it_was_replaced(cache: str) -> None:
    """Not before: a container may be running on it. However old it was when it was replaced."""
    month = 31 * 24 * 3600

    def remake() -> str:
        record = json.loads(Path(cache, "base.json").read_text())
        Path(cache, "base.json").write_text(json.dumps({**record, "recipe": "an older one"}))
        (layer,) = base.get(BASE, cache).layers
        return layer

    def age(layer: str) -> None:
        os.utime(layer, (time.time() - month, time.time() - month))

    (first,) = base.get(BASE, cache).layers
    age(first)
    second = remake()
    assert os.path.isdir(first)
    age(first)
    third = remake()
    assert not os.path.exists(first)
    assert os.path.isdir(second)
    assert os.path.isdir(third)


def test_many_at_once_make_one(cache: str) -> None:
    """The first makes it and the others wait."""
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: base.get(BASE, cache).layers, range(4)))
    assert len(found) == 1


def test_a_failure_leaves_nothing(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a shell is told what to install; no half of an image stays."""
    monkeypatch.setattr(assemble, "_DIRECTORIES", ("/nowhere",))
    with pytest.raises(UnsupportedError, match="no program 'sh'"):
        base.get(BASE, cache)
    assert os.listdir(cache) == ["lock"]


def test_an_unknown_image_is_named(cache: str) -> None:
    """With a way to see what there is."""
    with pytest.raises(NotFoundError, match="alpine"):
        base.get("alpine", cache)


# --- busybox -------------------------------------------------------------------------


def _elf(*segments: tuple[int, bytes]) -> bytes:
    """A 64-bit little-endian ELF file with these program headers and their contents."""
    offset = 64 + 56 * len(segments)
    headers = contents = b""
    for kind, data in segments:
        where = offset + len(contents)
        headers += struct.pack("<IIQQQQQQ", kind, 0, where, 0, 0, len(data), len(data), 1)
        contents += data
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    return identity + head + headers + contents


def test_a_loader_is_read_from_the_file(tmp_path: Path) -> None:
    """A static program has none, and neither has a script."""
    path = tmp_path / "program"
    path.write_bytes(_elf((1, b"code"), (3, b"/lib64/ld.so\0")))
    assert assemble.interpreter(str(path)) == "/lib64/ld.so"
    path.write_bytes(_elf((1, b"code")))
    assert assemble.interpreter(str(path)) is None
    path.write_text("#!/bin/sh\n")
    assert assemble.interpreter(str(path)) is None


def test_a_static_busybox_is_all_it_takes(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file, and a link for each of its applets; the image goes by both names."""
    binaries = tmp_path / "machine"
    binaries.mkdir()
    busybox = binaries / "busybox"
    busybox.write_text("#!/bin/sh\nprintf 'busybox\\nsh\\nsleep\\n'\n")
    busybox.chmod(0o755)
    with monkeypatch.context() as without:
        without.setattr(assemble, "_static_busybox", lambda: None)
        with pytest.raises(NotFoundError, match="static busybox"):
            base.get(BUSYBOX, f"{cache}")
    monkeypatch.setattr(assemble, "_DIRECTORIES", (str(binaries),))
    os.unlink(f"{cache}/base.json")
    found = base.get(BUSYBOX, cache)
    assert sorted(os.listdir(f"{found.layers[0]}/bin")) == ["busybox", "sh", "sleep"]
    assert os.readlink(f"{found.layers[0]}/bin/sh") == "busybox"
    assert [item.name for item in base.every(cache)] == [BASE, BUSYBOX]


# --- where it is kept ----------------------------------------------------------------


def test_the_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for, else the user's cache, else below mydocker's root."""
    monkeypatch.setenv("MYDOCKER_IMAGE_CACHE", f"{tmp_path}/asked")
    assert base.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/asked"
    monkeypatch.delenv("MYDOCKER_IMAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/home")
    assert base.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/home/mydocker"
    os.chmod(f"{tmp_path}/home/mydocker", 0o777)  # somebody else could put a program there
    assert base.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/root/images"


def test_it_has_a_python_that_speaks_with_sockets(cache: str) -> None:
    """This machine's own, with no more modules than a probe needs, and no source."""
    root = base.get(BASE, cache).layers[0]
    told = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", "import json, socket; print(json.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.chroot(root),  # no thread has a lock here
    )
    assert told.stdout.strip().endswith("json/__init__.pyc")
    assert not list(Path(root).rglob("*.py"))
