"""Tests of the assembly and the cache of the image `base`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import UnsupportedError
from runtime.image import assemble, store

LIMIT = 20_000_000
"""Upper bound on the size of `base` in bytes."""


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """Return an empty cache directory."""
    return str(tmp_path)


def test_base_has_a_shell_and_its_libraries(cache: str) -> None:
    """The image `base` has a shell and its libraries, and is small and readable.

    No file is set-uid, and no link leads out.
    """
    found = store.base_image(cache)
    (layer,) = map(Path, found.layers)
    assert found.size < LIMIT
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


def test_base_is_assembled_again_after_a_program_changed(cache: str) -> None:
    """`base` is assembled again after a program changed.

    The old layer stays for the containers on it.
    """
    first = store.base_image(cache)
    record = Path(cache, "base.json")
    made = json.loads(record.read_text())
    path = next(path for path in made["from"] if path.endswith(("/sleep", "/busybox")))
    made["from"][path][1] += 1
    record.write_text(json.dumps(made))
    assert store.base_image(cache).layers != first.layers
    assert os.path.isdir(first.layers[0])


def test_base_is_shared_by_copies_of_mydocker(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of mydocker share `base` if the recipe's content is the same.

    Path and age of the recipe do not matter.
    """
    first = store.base_image(cache)
    other = tmp_path / "elsewhere.py"
    other.write_bytes(Path(store.RECIPE).read_bytes())
    monkeypatch.setattr(store, "RECIPE", str(other))
    assert store.base_image(cache) == first
    other.write_text("# otherwise\n")
    assert store.base_image(cache).layers != first.layers


def _delete(cache: str) -> None:
    layer = json.loads(Path(cache, "base.json").read_text())["layer"]
    os.rename(f"{cache}/{layer}", f"{cache}/elsewhere")


DAMAGE: dict[str, Callable[[str], object]] = {
    "record is no JSON": lambda cache: Path(cache, "base.json").write_text("{"),
    "record is another's": lambda cache: Path(cache, "base.json").write_text("{}"),
    "layer is gone": _delete,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_damaged_cache_is_replaced(cache: str, damage: Callable[[str], object]) -> None:
    """A lookup replaces a damaged cache and returns a complete image."""
    store.base_image(cache)
    damage(cache)
    assert os.path.exists(f"{store.base_image(cache).layers[0]}/bin/sh")


def test_replaced_layer_is_removed_after_a_month(cache: str) -> None:
    """A replaced layer is removed after a month; until then a container may run on it."""
    month = 31 * 24 * 3600

    def remake() -> str:
        record = json.loads(Path(cache, "base.json").read_text())
        Path(cache, "base.json").write_text(json.dumps({**record, "recipe": "an older one"}))
        (layer,) = store.base_image(cache).layers
        return layer

    def age(layer: str) -> None:
        os.utime(layer, (time.time() - month, time.time() - month))

    (first,) = store.base_image(cache).layers
    age(first)
    second = remake()
    assert os.path.isdir(first)
    age(first)
    third = remake()
    assert not os.path.exists(first)
    assert os.path.isdir(second)
    assert os.path.isdir(third)


def test_concurrent_lookups_assemble_base_once(cache: str) -> None:
    """The first of several lookups assembles `base`, and the others wait for it.

    A later lookup copies nothing.
    """
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: store.base_image(cache).layers, range(4)))
    assert found == {store.base_image(cache).layers}
    assert len(list(Path(cache).glob("base-*"))) == 1
    assert not list(Path(cache).glob("new-*"))


def test_failed_assembly_leaves_nothing(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed assembly leaves nothing.

    On a machine without a shell the error names the package to install.
    """
    monkeypatch.setattr(assemble, "_DIRECTORIES", ("/nowhere",))
    with pytest.raises(UnsupportedError, match="no program 'sh'"):
        store.base_image(cache)
    assert os.listdir(cache) == ["lock"]


# --- busybox -------------------------------------------------------------------------


def test_elf_interpreter_is_found_for_programs_only(tmp_path: Path) -> None:
    """A dynamic program has an ELF interpreter; a loader and a script have none."""
    loader = assemble.interpreter(sys.executable)
    assert loader is not None
    assert assemble.interpreter(loader) is None
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert assemble.interpreter(str(tmp_path / "script")) is None


def test_programs_of_base_are_links_to_a_static_busybox(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a static busybox, /bin of `base` has one file and a link for each of its applets."""
    binaries = tmp_path / "machine"
    binaries.mkdir()
    busybox = binaries / "busybox"
    busybox.write_text("#!/bin/sh\nprintf 'busybox\\nsh\\nsleep\\n'\n")
    busybox.chmod(0o755)
    monkeypatch.setattr(assemble, "_DIRECTORIES", (str(binaries),))
    found = store.base_image(cache)
    assert sorted(os.listdir(f"{found.layers[0]}/bin")) == ["busybox", "sh", "sleep"]
    assert os.readlink(f"{found.layers[0]}/bin/sh") == "busybox"


# --- cache directory -----------------------------------------------------------------


def test_image_cache_is_in_the_first_safe_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image cache is in $MYDOCKER_IMAGE_CACHE, the user's cache or mydocker's root.

    The user's cache is skipped if another user can write into it.
    """
    monkeypatch.setenv("MYDOCKER_IMAGE_CACHE", f"{tmp_path}/cache")
    assert store.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/cache"
    monkeypatch.delenv("MYDOCKER_IMAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/home")
    assert store.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/home/mydocker"
    os.chmod(f"{tmp_path}/home/mydocker", 0o777)  # another user could put a program there
    assert store.cache_directory(f"{tmp_path}/root") == f"{tmp_path}/root/images"


def test_base_has_a_python_with_sockets(cache: str) -> None:
    """`base` has a Python with the modules of a probe, without their source."""
    root = store.base_image(cache).layers[0]
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", "import json, socket; print(json.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.chroot(root),  # no thread has a lock here
    )
    assert done.stdout.strip().endswith("json/__init__.pyc")
    assert not list(Path(root).rglob("*.py"))
