"""Tests of stacked layers as a container sees them."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import InvalidError, UnsupportedError
from tests.runtime.image import tars
from tests.runtime.image.image_files import base_layer, has_id, load, make, output
from tests.runtime.image.tars import Item, directory, link, symlink
from tests.runtime.support.inspection import until

BELOW = tars.tar(
    *(directory("d"), Item("d/old", b"old"), Item("d/kept", b"kept")),
    *(directory("whole"), Item("whole/old", b"old")),
    Item("file", b"file"),
    *(directory("tree"), directory("tree/sub"), Item("tree/sub/f")),
)
SEEN = {"d/kept", "d/old", "file", "tree/sub", "whole/old"}
NEW = Item("whole/new")

REPLACED: dict[str, list[Item]] = {
    "all of a directory": [directory("whole"), Item("whole/.wh..wh..opq"), NEW],
    "all, marked last": [NEW, Item("whole/.wh.x"), Item("whole/.wh..wh..opq")],
    "all, and one file": [Item("whole/.wh..wh..opq"), Item("whole/.wh.old"), NEW],
    "a directory made anew": [Item(".wh.whole"), directory("whole"), NEW],
    "a directory made anew, marked last": [directory("whole"), NEW, Item(".wh.whole")],
    "a directory made anew by its content": [Item(".wh.whole"), NEW],
}
"""Entries that replace the content of one directory."""
AUFS = [Item(".wh..wh.aufs"), directory(".wh..wh.plnk"), Item("d/.wh..wh.orph")]

# entries, the files of `SEEN` that they hide, and the files that they add
WHITEOUTS: dict[str, tuple[list[Item], set[str], set[str]]] = {
    "a file": ([Item("d/.wh.old")], {"d/old"}, set()),
    "a directory": ([Item(".wh.d")], {"d/kept", "d/old"}, set()),
    "several": ([Item("d/.wh.old"), Item(".wh.file")], {"d/old", "file"}, set()),
    "a missing file": ([Item("d/.wh.x")], set(), set()),
    "a file made anew": ([Item(".wh.file"), Item("file", b"new")], set(), set()),
    "a directory becomes a file": ([Item("tree")], {"tree/sub"}, set()),
    "internal names of AUFS": (AUFS, set(), set()),
    **{what: (items, {"whole/old"}, {"whole/new"}) for what, items in REPLACED.items()},
}


@pytest.mark.parametrize("what", WHITEOUTS)
def test_whiteouts_remove_files_of_lower_layers(engine: Engine, what: str) -> None:
    """Whiteouts remove only their files of lower layers, in any order of entries."""
    items, hidden, added = WHITEOUTS[what]
    make(engine, base_layer(engine), BELOW, tars.tar(*items))
    # the listing of directories, not the lookup of names
    listed = output(engine, "made", "cd / && echo d/* whole/* tree/* fil[e]; ls -aR / 2>/dev/null")
    names = {name for name in listed.splitlines()[0].split() if not set(name) & set("*[")}
    assert names == SEEN - hidden | added
    assert ".wh." not in listed


def test_file_metadata_survives_unpacking(engine: Engine) -> None:
    """Modes, times, links, FIFOs and capabilities of files survive unpacking.

    The modes include set-uid and sticky bits; links are of both kinds.
    """
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    layer = tars.tar(
        Item("suid", b"x", mode=0o4755),
        directory("sticky", 0o3777),
        Item("d/one", b"same"),
        link("d/two", "d/one"),
        symlink("abs", "/d/one"),
        symlink("rel", "../d/one"),
        Item("pipe", type=b"6", mode=0o620),
        Item("capable", pax={"SCHILY.xattr.security.capability": capability.decode()}),
        Item("other", pax={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
        Item("old", mtime=1),
        directory("before"),
        Item("before/f"),
        Item("early", pax={"mtime": "-5.5"}),
        Item("late", pax={"mtime": "9" * 19}),
    )
    make(engine, base_layer(engine), layer)
    tree = Path(engine.images.get("made").layers[0])
    modes = {name: stat.S_IMODE((tree / name).lstat().st_mode) for name in os.listdir(tree)}
    assert (modes["suid"], modes["sticky"], modes["pipe"]) == (0o4755, 0o3777, 0o620)
    assert stat.S_ISFIFO((tree / "pipe").lstat().st_mode)
    assert (tree / "d" / "one").samefile(tree / "d" / "two")
    assert (os.readlink(tree / "abs"), os.readlink(tree / "rel")) == ("/d/one", "../d/one")
    assert os.getxattr(tree / "capable", "security.capability")[:8] == capability[:8]
    assert not os.listxattr(tree / "other")
    assert (tree / "old").stat().st_mtime == 1
    assert (tree / "early").stat().st_mtime_ns < 1_000_000_000
    assert (tree / "late").stat().st_mtime > 4_000_000_000
    assert (tree / "before").stat().st_mtime == 1_000_000_000
    assert output(engine, "made", "cat /abs /rel") == "samesame"


def test_unmapped_owner_becomes_root(engine: Engine) -> None:
    """An owner that the user namespace does not map becomes root; mapped ids are kept."""
    layer = tars.tar(Item("mine", uid=0, gid=0), Item("others", uid=1234, gid=56))
    make(engine, layer)
    tree = Path(engine.images.get("made").layers[0])
    owners = {name: (tree / name).stat()[4:6] for name in ("mine", "others")}
    assert owners == {"mine": (0, 0), "others": (1234, 56) if has_id(1234) else (0, 0)}


def test_last_entry_of_a_name_wins(engine: Engine) -> None:
    """If a layer has several entries of one name, the last one wins.

    A repeated directory keeps its content.
    """
    layer = tars.tar(
        directory("d", 0o700), Item("d/f", b"first"), directory("d", 0o755), Item("d/f", b"last")
    )
    make(engine, layer)
    tree = Path(engine.images.get("made").layers[0])
    assert (tree / "d" / "f").read_bytes() == b"last"
    assert stat.S_IMODE((tree / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_digest_covers_bytes_after_the_end_of_the_tar(
    engine: Engine, compress: Callable[[bytes], bytes]
) -> None:
    """A layer's digest covers bytes after the tar's end, as some programs pad a tar."""
    make(engine, compress(tars.tar(Item("f", b"x")) + bytes(3 << 20)))
    assert os.listdir(engine.images.get("made").layers[0]) == ["f"]


def test_file_names_may_be_long_and_of_any_bytes(engine: Engine) -> None:
    """A file name may be long and need not be valid UTF-8."""
    name = "/".join(["ü" * 60] * 5) + "/\udcff\udc80"
    layer = tars.tar(Item(name, b"found"))
    make(engine, layer)
    assert (Path(engine.images.get("made").layers[0]) / name).read_bytes() == b"found"


def test_containers_share_layers_but_not_changes(engine: Engine, root: Path) -> None:
    """A layer of two images is stored once; containers do not share their changes."""
    base = base_layer(engine)
    make(engine, base, BELOW, tars.tar(Item("one")), name="one")
    make(engine, base, BELOW, tars.tar(Item("two")), name="two")
    assert len(list((root / "library" / "layers").iterdir())) == 4
    one, again, two = (
        engine.run(image, ["sleep", "1000"], network="none") for image in ("one", "one", "two")
    )
    engine.exec(one.id, ["sh", "-c", "echo x > /mine; rm /d/old; echo y > /d/kept"])
    for other in (again, two):
        done = engine.exec(other.id, ["sh", "-c", "cat /mine /d/old /d/kept"])
        assert done.stdout == b"oldkept"
    assert engine.exec(one.id, ["sh", "-c", "test -e /mine"]).exit_code == 0


def test_image_has_at_most_125_layers(engine: Engine) -> None:
    """An image of 125 layers runs, with the uppermost first; one of 126 is refused."""
    base = base_layer(engine)
    layers = [tars.tar(Item("n", str(n).encode()), Item(f"f{n}")) for n in range(124)]
    make(engine, base, *layers)
    assert output(engine, "made", "cat /n; ls -d /f* | wc -l").split() == ["123124"]
    with pytest.raises(InvalidError, match="length <= 125"):
        make(engine, base, *layers, tars.tar(Item("one more")))


GONE, ONE, TWO = (tars.tar(Item("d/.wh.old")), *(tars.tar(Item("d/old", b)) for b in (b"1", b"2")))


@pytest.mark.parametrize("layers", [(BELOW, GONE, ONE), (ONE, TWO, ONE)], ids=["removed", "twice"])
def test_uppermost_layer_with_a_file_wins(engine: Engine, layers: tuple[bytes, ...]) -> None:
    """The uppermost layer with a file wins, even if a layer below removes the file.

    A layer may be repeated, as an empty build step does.
    """
    make(engine, base_layer(engine), *layers)
    assert output(engine, "made", "cat /d/old") == "1"


def test_image_without_files_starts(engine: Engine) -> None:
    """An image without files starts.

    Mount points that it lacks are not created in the container's layer.
    """
    made = tars.config([])
    (found,) = load(engine, tars.packed(tars.new_docker([], made, ["nothing"])))
    created = engine.create(found.names[0], ["true"], network="none")
    assert engine.inside.diff(created.id) == []
    bare = base_layer(engine)
    make(engine, bare, tars.tar(*(Item(f".wh.{name}") for name in ("etc", "proc", "dev", "sys"))))
    assert output(engine, "made", "cat /proc/self/comm") == "cat\n"


# --- users and stop signals ------------------------------------------------------------------

PASSWD = tars.tar(
    Item("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv/web:/bin/sh\nbroken\n"),
    Item("etc/group", b"root:x:0:\nweb:x:102:\nlog:x:7:other,web\n"),
)
WHO = 'exec 2>/dev/null; echo "$(id -u):$(id -g) $(id -G) $HOME"'

USERS = {
    "web": "101:102 102 7 /srv/web",
    "101": "101:102 102 7 /srv/web",
    "web:log": "101:7 7 /srv/web",
    "5:6": "5:6 6 /",
    "77": "77:0 0 /",
    "0": "0:0 0 /root",
    "root": "0:0 0 /root",
}
ROOTS = ("0", "root")


@pytest.mark.parametrize("user", USERS)
def test_image_user_has_groups_and_home(engine: Engine, user: str) -> None:
    """A user given by name or number has the groups and home that the image's files list."""
    make(engine, base_layer(engine), PASSWD, User=user)
    script = f"{WHO}; echo written > /dev/stdout; grep CapEff /proc/self/status"
    if not has_id(101) and user not in ROOTS:
        with pytest.raises(UnsupportedError, match="does not map these IDs"):
            output(engine, "made", script)
        return
    who, written, capabilities = output(engine, "made", script).splitlines()
    assert who == USERS[user]
    assert written == "written"
    assert (int(capabilities.split()[1], 16) == 0) == (user not in ROOTS)


def test_user_option_overrides_image_user(engine: Engine) -> None:
    """The user option overrides the image's user for `run` and `exec`."""
    make(engine, base_layer(engine), PASSWD, User="web")
    found = engine.run("made", ["sleep", "1000"], user="0", network="none")
    assert engine.exec(found.id, ["id", "-u"]).stdout == b"0\n"
    if has_id(101):
        assert engine.exec(found.id, ["id", "-u"], user="web").stdout == b"101\n"


@pytest.mark.parametrize("wanted", ["SIGUSR1", "RTMIN+3", "37"])
def test_stop_sends_the_image_stop_signal(engine: Engine, wanted: str) -> None:
    """`stop` ends a container by the image's stop signal, not by SIGTERM or SIGKILL."""
    make(engine, base_layer(engine), StopSignal=wanted)
    name = wanted.removeprefix("SIG").replace("RTMIN+3", "37")
    script = f"trap '' TERM; trap 'exit 3' {name}; echo ready; while :; do sleep 0.01; done"
    found = engine.run("made", ["sh", "-c", script], network="none")
    until(lambda: any(engine.logs(found.id)), "the handler is set")
    assert engine.stop(found.id, timeout=30).state.exit_code == 3


def test_unknown_stop_signal_is_refused(engine: Engine) -> None:
    """An unknown stop signal is refused before a container is made."""
    make(engine, base_layer(engine), StopSignal="SIGNOPE")
    with pytest.raises(InvalidError, match="unknown signal 'SIGNOPE'"):
        engine.run("made", ["true"], network="none")
    assert not engine.containers()


def test_unknown_user_is_refused(engine: Engine, root: Path) -> None:
    """An unknown user is refused, and an /etc/passwd that is a FIFO does not block.

    An /etc/passwd that is a directory does not block either.
    """
    make(engine, base_layer(engine), PASSWD)
    with pytest.raises(InvalidError, match=r"'nobody-knows'.*no such user"):
        engine.run("made", ["true"], user="nobody-knows", network="none")
    with pytest.raises(InvalidError, match="no such group"):
        engine.run("made", ["true"], user="0:nobody-knows", network="none")
    for name, kind in (("pipes", b"6"), ("directories", b"5")):
        odd = tars.tar(*(Item(f"etc/{file}", type=kind) for file in ("passwd", "group")))
        make(engine, base_layer(engine), odd, name=name)
        with pytest.raises(InvalidError, match="no such user"):
            engine.run(name, ["true"], user="web", network="none")
    assert not engine.containers()
