"""Tests of archives with invalid manifests, configurations or indexes: all are refused."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import InvalidError
from tests.runtime.image import tars
from tests.runtime.image.image_files import load, make, unchanged
from tests.runtime.image.tars import Item, symlink
from tests.runtime.support.inspection import loaded_images

# --- documents --------------------------------------------------------------------

LAYER = tars.tar(Item("x", b"y"))
MADE = tars.config([LAYER])


def _docker(**changes: object) -> bytes:
    files = tars.new_docker([LAYER], MADE, ["good"])
    (listed,) = json.loads(files["manifest.json"])
    return tars.packed({**files, "manifest.json": json.dumps([{**listed, **changes}]).encode()})


def _with(name: str, data: bytes) -> bytes:
    return tars.packed({**tars.new_docker([LAYER], MADE), name: data})


def _config(made: dict[str, object]) -> bytes:
    raw = json.dumps({**json.loads(MADE), **made}).encode()
    return tars.packed(tars.new_docker([LAYER], raw))


def _oci(index: object, **blobs: bytes) -> bytes:
    files = tars.oci([LAYER], MADE)
    added = {f"blobs/sha256/{tars.sha256(data)}": data for data in blobs.values()}
    return tars.packed({**files, **added, "index.json": json.dumps(index).encode()})


def _swapped(blob: bytes, other: bytes) -> bytes:
    files = tars.oci([LAYER], MADE)
    return tars.packed({**files, f"blobs/sha256/{tars.sha256(blob)}": other})


DOCUMENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a root file system": (lambda: tars.packed({"bin/sh": b""}), "(?s)not of images.*import"),
    "no image": (lambda: _with("manifest.json", b"[]"), "contains no image"),
    "no JSON": (lambda: _with("manifest.json", b"{"), "manifest.json is malformed"),
    "JSON without an end": (lambda: _with("manifest.json", b"[" * 100_000), "is malformed"),
    "immense numbers": (lambda: _with("manifest.json", b"9" * 100_000), "is malformed"),
    "an immense document": (lambda: _with("manifest.json", b" " * (5 << 20)), "too long for"),
    "not a list": (
        lambda: _with("manifest.json", b"{}"),
        "manifest.json is malformed: Expected `array`",
    ),
    "too many images": (
        lambda: _with("manifest.json", b"[" + b"{}," * 999 + b"{}]"),
        "length <= 256",
    ),
    "no configuration": (lambda: _docker(Config="missing.json"), "refers to 'missing.json'"),
    "a configuration outside": (lambda: _docker(Config="../x.json"), "leads out of the archive"),
    "another configuration": (lambda: _with(f"blobs/sha256/{tars.sha256(MADE)}", b"{}"), "digest"),
    "no layers": (lambda: _docker(Layers=[]), "it has 0 layers, but its configuration lists 1"),
    "layers that are no list": (lambda: _docker(Layers="x"), r"Expected `array`.*Layers"),
    "a layer outside": (lambda: _docker(Layers=["/etc/passwd"]), "is absolute"),
    "a missing layer": (lambda: _docker(Layers=["x"]), "refers to 'x'"),
    "another layer": (
        lambda: _with(f"blobs/sha256/{tars.sha256(LAYER)}", tars.tar(Item("other"))),
        "a layer has the digest",
    ),
    "a malformed name": (lambda: _docker(RepoTags=["UPPER/../x"]), "an image with an invalid name"),
    "for another system": (lambda: _config({"os": "windows"}), "image is for windows"),
    "too many layers": (
        lambda: _config({"rootfs": {"diff_ids": [f"sha256:{'0' * 64}"] * 126}}),
        "length <= 125.*diff_ids",
    ),
    "a digest that is a path": (
        lambda: _config({"rootfs": {"diff_ids": ["sha256:../../../etc"]}}),
        "regex.*sha256.*diff_ids",
    ),
    "a time that cannot be": (lambda: _config({"created": "2020-99-99T00:00:00Z"}), "time"),
    "an environment of bytes": (lambda: _config({"config": {"Env": ["A=\ud800"]}}), "regex.*Env"),
    "an environment with zeros": (lambda: _config({"config": {"Env": ["A=\0"]}}), "regex.*Env"),
    "a command that is no list": (
        lambda: _config({"config": {"Cmd": "x"}}),
        "Expected `array`.*Cmd",
    ),
    "no manifest": (lambda: _oci({"manifests": [tars.descriptor(b"x")]}), "does not contain"),
    "a manifest without a digest": (lambda: _oci({"manifests": [{}]}), "required field `digest`"),
    "an index without manifests": (lambda: _oci({}), "contains no image"),
    "a layer that is another": (
        lambda: _swapped(LAYER, LAYER.replace(b"y", b"z")),
        "a layer has the digest",
    ),
    "a configuration that is another": (
        lambda: _swapped(MADE, MADE.replace(b"2020", b"2021")),
        "has another digest",
    ),
    "a file twice": (
        lambda: tars.tar(Item("manifest.json", b"[]"), Item("manifest.json", b"[]")),
        "'manifest.json' twice",
    ),
    "a link out of the archive": (
        lambda: tars.tar(symlink("manifest.json", "../../etc/passwd")),
        "refers to 'etc/passwd'",
    ),
    "links in a circle": (
        lambda: tars.tar(symlink("manifest.json", "a"), symlink("a", "manifest.json")),
        "is not a file",
    ),
    "a pipe for a document": (
        lambda: tars.tar(Item("manifest.json", type=tarfile.FIFOTYPE)),
        "is not a file",
    ),
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_invalid_document_is_refused(engine: Engine, root: Path, what: str) -> None:
    """The error for an invalid document gives the reason, and no layer stays."""
    archive, reason = DOCUMENTS[what]
    with unchanged(root), pytest.raises(InvalidError, match=reason):
        load(engine, archive())


def test_image_from_year_one_has_a_four_digit_year(engine: Engine) -> None:
    """An image from the year 1, Go's zero time, has a year of four digits.

    Some build tools write Go's zero time.
    """
    (found,) = load(engine, _config({"created": "0001-01-01T00:00:00Z"}))
    assert engine.images.get(found.identity).created == "0001-01-01T00:00:00Z"


def test_null_is_a_missing_field_and_an_empty_entry(engine: Engine) -> None:
    """A null is a missing field, or an empty entry of a map, as in Go's encoding/json.

    An entry of a map keeps its key.
    """
    config: dict[str, object] = {
        "Env": None,
        "ExposedPorts": {"80/tcp": None, "81/tcp": {}},
        "Labels": {"a": None, "b": "c"},
    }
    (found,) = load(engine, _config({"config": config}))
    defaults = engine.images.get(found.identity).defaults
    assert (defaults.env, defaults.exposed) == ([], ["80/tcp", "81/tcp"])
    assert defaults.labels == {"a": "", "b": "c"}


def test_archive_with_one_bad_image_changes_nothing(engine: Engine, root: Path) -> None:
    """An archive with one bad image loads none of its images, and earlier images stay."""
    make(engine, LAYER, name="before")
    bad = tars.tar(Item("../x"))
    both = [
        tars.new_docker([LAYER], MADE, ["good"]),
        tars.new_docker([bad], tars.config([bad]), ["bad"]),
    ]
    with unchanged(root), pytest.raises(InvalidError, match="leads out"):
        load(engine, tars.merged(*both))
    assert loaded_images(engine) == ["before:latest"]
