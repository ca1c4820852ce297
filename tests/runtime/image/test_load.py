"""Tests of load, import and save of archives, and of the defaults of images."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, import_root, load, make, output
from tests.runtime.image.tars import Item, directory
from tests.runtime.support.inspection import loaded_images

UPPER = tars.tar(directory("./"), directory("srv"), Item("srv/word", b"carried over\n"))

LAYOUTS = {"docker 24": tars.old_docker, "docker 25": tars.new_docker, "oci": tars.oci}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compressed", ["plain", "layers", "all"])
def test_archive_of_each_layout_loads(engine: Engine, layout: str, compressed: str) -> None:
    """An archive of each layout loads with its name and files.

    The parts are plain or compressed in any format.
    """
    layers = [base_layer(engine), UPPER]
    if compressed != "plain":
        layers = [gzip.compress(layer, 1) for layer in layers]
    made = tars.config(layers)
    archive = tars.packed(LAYOUTS[layout](layers, made, ["example/word:1"]))
    if compressed == "all":
        archive = gzip.compress(archive, 1)
    (found,) = load(engine, archive)
    assert (found.identity, found.names) == (tars.sha256(made), ("example/word:1",))
    assert output(engine, "example/word:1", "cat /srv/word") == "carried over\n"
    assert output(engine, found.identity[:12], "ls /srv") == "word\n"


def test_layer_may_be_a_link_to_another_layer(engine: Engine) -> None:
    """A layer in an archive may be a link to another, as Docker wrote repeated layers."""
    files = tars.old_docker([UPPER], tars.config([UPPER]), ["linked"])
    (path,) = (name for name in files if name.endswith("layer.tar"))
    items = [Item(name, data) for name, data in files.items() if name != path]
    items += [Item("real/layer.tar", UPPER), tars.symlink(path, "../real/layer.tar")]
    (found,) = load(engine, tars.tar(*items))
    assert found.names == ("linked:latest",)


def test_archive_with_several_images_loads_all(engine: Engine) -> None:
    """An archive with several images loads all of them, each with all its names."""
    one, other = tars.config([UPPER]), tars.config([UPPER], Env=["A=b"])
    both = [tars.new_docker([UPPER], one, ["a", "b:2"]), tars.new_docker([UPPER], other)]
    found = load(engine, tars.merged(*both))
    assert [item.names for item in found] == [("a:latest", "b:2"), ()]
    assert loaded_images(engine) == ["<none>:<none>", "a:latest", "b:2"]


def _many_platforms(*platforms: str) -> bytes:
    files: dict[str, bytes] = {}
    manifests = []
    for number, platform in enumerate(platforms):
        made = tars.config([UPPER], Env=[f"N={number}"])
        files |= tars.oci([UPPER], made)
        system, _, machine = platform.partition("/")
        (item,) = json.loads(files["index.json"])["manifests"]
        manifests.append({**item, "platform": {"os": system, "architecture": machine}})
    inner = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "manifests": [tars.descriptor(inner, kind)]}
    files[f"blobs/sha256/{tars.sha256(inner)}"] = inner
    return tars.packed({**files, "index.json": json.dumps(index).encode()})


def test_variant_for_this_machine_is_loaded(engine: Engine) -> None:
    """From an index of several platforms, as buildx writes it, this machine's variant is loaded."""
    own = f"linux/{tars.MACHINES.get(os.uname().machine, os.uname().machine)}"
    (found,) = load(engine, _many_platforms("windows/amd64", "linux/none", own))
    assert engine.images.get(found.identity).defaults.env == ["N=2"]


def test_archive_without_variant_for_this_machine_is_refused(engine: Engine) -> None:
    """An archive without a variant for this machine is refused; the error lists the variants."""
    with pytest.raises(InvalidError, match=r"no image for linux/\w+\n.*plan9/z80"):
        load(engine, _many_platforms("plan9/z80"))


def test_container_gets_image_defaults(engine: Engine) -> None:
    """A container gets the image's defaults, unless options of `run` override them.

    The defaults are environment, directory, entrypoint and command.
    """
    script = 'echo "$A,$B,$PWD,$*"'
    make(
        engine,
        base_layer(engine),
        Env=["A=image", "B=image", "EMPTY"],
        WorkingDir="/made/here",
        Entrypoint=["sh", "-c", script, "sh"],
        Cmd=["one", "two"],
        ExposedPorts={"80/tcp": {}, "53/udp": {}},
        Labels={"who": "me"},
    )

    def printed(*command: str, **options: object) -> str:
        found = engine.run("made", command, network="none", **options)  # type: ignore[arg-type]
        engine.wait(found.id)
        return "".join(entry.data.decode() for entry in engine.logs(found.id))

    assert printed() == "image,image,/made/here,one two\n"
    assert printed("three", env={"B": "mine"}, workdir="/tmp") == "image,mine,/tmp,three\n"
    assert printed("/made", entrypoint=["echo"]) == "/made\n"
    with pytest.raises(InvalidError, match="no command"):
        printed(entrypoint=[])
    config = engine.create("made", [], network="none").config
    assert (config.exposed, config.labels) == (["53/udp", "80/tcp"], {"who": "me"})
    assert "EMPTY=" in config.env


def test_container_keeps_its_image_when_the_name_moves(engine: Engine) -> None:
    """A restart uses the image that the container was made from, although its name moved."""
    layer = base_layer(engine)
    make(engine, layer, UPPER, name="moving")
    found = engine.run("moving", ["sleep", "1000"], network="none")
    make(engine, layer, name="moving")
    engine.stop(found.id, timeout=0)
    engine.start(found.id)
    assert engine.exec(found.id, ["cat", "/srv/word"]).stdout == b"carried over\n"


def test_loaded_image_named_base_hides_the_built_in_image(engine: Engine) -> None:
    """A loaded image named `base` hides the built-in image until the loaded one is removed."""
    make(engine, base_layer(engine), UPPER, name="base")
    assert output(engine, "base", "ls /srv") == "word\n"
    assert [item.name for item in engine.images.all()].count("base:latest") == 1
    engine.images.remove("base")
    with pytest.raises(InvalidError, match="this machine's programs"):
        engine.images.remove("base")


def test_import_makes_an_image_of_one_layer(engine: Engine) -> None:
    """`import` makes an image of one layer, changed by Dockerfile instructions."""
    archive = gzip.compress(base_layer(engine), 1)
    changes = ['CMD ["echo", "hello"]', "ENV A=b 'C=d e'", "EXPOSE 80"]
    identity = import_root(engine, archive, "rootfs:1", changes)
    found = engine.run("rootfs:1", [], network="none")
    assert engine.wait(found.id) == 0
    assert [entry.data for entry in engine.logs(found.id)] == [b"hello\n"]
    assert output(engine, identity, 'echo "$A,$C"') == "b,d e\n"
    with pytest.raises(InvalidError, match="unknown instruction"):
        import_root(engine, archive, changes=["RUN true"])


# --- saved again ------------------------------------------------------------------


def test_save_and_load_keep_the_image(engine: Engine, root: Path) -> None:
    """Save and load keep the image's id, names and layer bytes.

    A second archive is equal to the first.
    """
    layers = [gzip.compress(UPPER), tars.tar(Item("x", b"y"))]
    made = tars.config(layers, Env=["A=b"])
    load(engine, tars.packed(tars.old_docker(layers, made, ["a:1", "b:2"])))
    archive = b"".join(engine.images.save(["a:1", "b:2"]))
    for name in ("a:1", "b:2"):
        engine.images.remove(name)
    for name in ("layers", "configs", "scratch"):
        assert not list((root / "library" / name).iterdir())
    (found,) = load(engine, archive)
    assert (found.identity, found.names) == (tars.sha256(made), ("a:1", "b:2"))
    assert b"".join(engine.images.save(["a:1", "b:2"])) == archive


def test_saved_archive_is_an_oci_layout(engine: Engine) -> None:
    """A saved archive is an OCI layout with correct digests and sizes.

    The test checks the documents without mydocker's code.
    """
    layers = [gzip.compress(UPPER), tars.tar(Item("x", b"y"))]
    made = tars.config(layers)
    load(engine, tars.packed(tars.new_docker(layers, made, ["example.com:5000/a/b:1"])))
    files = tars.unpacked(b"".join(engine.images.save(["example.com:5000/a/b:1"])))

    def follow(item: dict[str, object]) -> bytes:
        algorithm, _, digest = str(item["digest"]).partition(":")
        data = files[f"blobs/{algorithm}/{digest}"]
        assert (tars.sha256(data), len(data)) == (digest, item["size"])
        return data

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (item,) = json.loads(files["index.json"])["manifests"]
    assert item["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert item["annotations"]["io.containerd.image.name"] == "example.com:5000/a/b:1"
    manifest = json.loads(follow(item))
    assert manifest["schemaVersion"] == 2
    assert follow(manifest["config"]) == made
    assert [follow(layer) for layer in manifest["layers"]] == layers
    kind = "application/vnd.oci.image.layer.v1.tar"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [f"{kind}+gzip", kind]
    diff_ids = json.loads(made)["rootfs"]["diff_ids"]
    assert [f"sha256:{tars.sha256(tars.plain(layer))}" for layer in layers] == diff_ids
    (listed,) = json.loads(files["manifest.json"])
    assert files[listed["Config"]] == made
    assert [files[name] for name in listed["Layers"]] == layers
    assert listed["RepoTags"] == ["example.com:5000/a/b:1"]


def test_damaged_layer_is_not_saved(engine: Engine, root: Path) -> None:
    """`save` checks each layer's digest and refuses a damaged layer."""
    make(engine, UPPER)
    (blob,) = (root / "library" / "layers").glob("*/blob")
    blob.write_bytes(blob.read_bytes().replace(b"carried", b"dropped"))
    with pytest.raises(InvalidError, match="differs from the one that was loaded"):
        list(engine.images.save(["made"]))


def test_unknown_image_is_named_by_every_command(engine: Engine) -> None:
    """The error for an unknown image names the image and the command that lists images.

    This holds for every command.
    """
    for use in (
        lambda: engine.run("no/such", ["true"]),
        lambda: engine.images.remove("no/such"),
        lambda: list(engine.images.save(["no/such"])),
        lambda: engine.images.tag("no/such", "x"),
    ):
        with pytest.raises(NotFoundError, match=r"'no/such'(.|\n)*mydocker images"):
            use()
