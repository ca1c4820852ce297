"""Helpers that load images into an engine and list the files of the engine."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.engine import Engine
from runtime.image.store import NamedImage
from tests.runtime.image import tars
from tests.runtime.support.inspection import descriptors, mounts


def load(engine: Engine, archive: bytes) -> list[NamedImage]:
    """Load an archive from a file, and delete the file."""
    with tempfile.TemporaryFile(dir="/run", buffering=0) as file:
        file.write(archive)
        file.seek(0)
        return engine.images.load(file, shown="x.tar")


def import_root(
    engine: Engine, archive: bytes, name: str = "x", changes: Sequence[str] = ()
) -> str:
    """Import the tar of a root file system."""
    with tempfile.TemporaryFile(dir="/run", buffering=0) as file:
        file.write(archive)
        file.seek(0)
        return engine.images.import_root(file, name, shown="x.tar", changes=changes)


def base_layer(engine: Engine) -> bytes:
    """Return the layer of `base`."""
    files = tars.unpacked(b"".join(engine.images.save(["base"])))
    return next(data for name, data in files.items() if len(data) > 1_000_000)


def make(engine: Engine, *layers: bytes, name: str = "made", **defaults: object) -> str:
    """Load an image of these layers, the lowest first, and return its id."""
    made = tars.config(layers, **defaults)
    (found,) = load(engine, tars.packed(tars.new_docker(layers, made, [name])))
    return found.identity


def output(engine: Engine, image: str, script: str) -> str:
    """Return the output of a shell in a new container of an image, without a network."""
    made = engine.run(image, ["sh", "-c", script], network="none")
    engine.wait(made.id)
    text = "".join(entry.data.decode() for entry in engine.logs(made.id))
    engine.remove(made.id)
    return text


def on_disk(root: Path) -> set[str]:
    """List all files below a state directory, except the library's fixed parts."""
    library = root / "library"
    fixed = {library / name for name in ("", "lock", "scratch", "layers", "configs")}
    return {str(path.relative_to(root)) for path in root.rglob("*") if path not in fixed}


@contextmanager
def unchanged(root: Path) -> Iterator[None]:
    """Check that the body leaves nothing on disk, and no descriptor, child or mount."""
    gc.collect()  # engines of earlier tests close their files now
    before = _state(root)
    yield
    assert _state(root) == before


def _state(root: Path) -> tuple[set[str], set[str], str, int]:
    return (
        on_disk(root),
        set(descriptors()),
        Path("/proc/thread-self/children").read_text(),
        mounts(root),
    )


def has_id(number: int) -> bool:
    """Return True if this user namespace maps the user and the group of that number."""
    maps = [Path(f"/proc/self/{name}_map").read_text().splitlines() for name in ("uid", "gid")]
    ranges = [[tuple(map(int, line.split())) for line in lines] for lines in maps]
    return all(any(0 <= number - first < count for first, _, count in each) for each in ranges)
