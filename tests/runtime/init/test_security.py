"""Tests of a container's confinement: capabilities added and dropped, read-only root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from linux.syscalls import capget
from runtime.engine import Engine
from runtime.errors import InvalidError
from runtime.init.security import DEFAULT_CAPABILITIES, capabilities, forbid
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left, until
from tests.support.programs import environment

_NET_ADMIN, _NET_RAW = 1 << 12, 1 << 13
_SETS = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status"


def _sets(engine: Engine, reference: str) -> dict[str, int]:
    """Return the capability sets of a command in the container: permitted, effective, bounding."""
    done = engine.exec(reference, ["sh", "-c", _SETS])
    lines = [line.split(":") for line in done.stdout.decode().splitlines()]
    return {name: int(bits, 16) for name, bits in lines}


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT_CAPABILITIES),
        (["NET_ADMIN"], [], DEFAULT_CAPABILITIES | _NET_ADMIN),
        (["cap_net_admin"], ["CAP_NET_RAW"], DEFAULT_CAPABILITIES & ~_NET_RAW | _NET_ADMIN),
        ([], ["ALL"], 0),
        (["net_raw"], ["all"], _NET_RAW),
    ],
)
def test_command_has_the_requested_capabilities(
    engine: Engine, add: list[str], drop: list[str], expected: int
) -> None:
    """The command and later `exec` have exactly the requested capabilities in all sets."""
    web = engine.run(
        "base",
        ["sh", "-c", f"{_SETS}; exec sleep 1000000"],
        network="none",
        cap_add=add,
        cap_drop=drop,
    )
    assert set(_sets(engine, web.id).values()) == {expected}
    until(lambda: len(list(engine.logs(web.id))) == 3, "the command has written")
    logged = [line.data.decode().split(":") for line in engine.logs(web.id)]
    assert {int(bits, 16) for _, bits in logged} == {expected}


def test_capability_names_apply_after_all() -> None:
    """Capability names apply after ALL, as with Docker; an unknown name is refused."""
    assert capabilities("x", ["ALL"], ["net_raw"]) & _NET_RAW == 0
    assert capabilities("x", ["all"], []).bit_length() == 41
    with pytest.raises(InvalidError, match="fly"):
        capabilities("x", ["fly"], [])


def test_read_only_container_cannot_change_its_files(engine: Engine) -> None:
    """No command can change files of a read-only container, except volumes and /dev/shm."""
    engine.run("base", FOR_EVER, name="web", network="none", read_only=True, binds=["v:/data"])
    for path in ("/new", "/etc/passwd", "/tmp/new", "/etc/hosts", "/etc/resolv.conf"):
        done = engine.exec("web", ["sh", "-c", f"echo x > {path}"])
        assert done.exit_code != 0
        assert b"Read-only" in done.stderr
    for path in ("/data/new", "/dev/shm/new"):
        assert engine.exec("web", ["sh", "-c", f"echo x > {path}"]).exit_code == 0


def test_container_cannot_change_metadata_of_host_devices(engine: Engine) -> None:
    """Root of a container can use the host's devices, but not change their mode or owner."""
    before = os.stat("/dev/full")
    engine.run("base", FOR_EVER, name="web", network="none")
    for change in ("chmod 666 /dev/full", "chown 0:0 /dev/full", "touch /dev/full"):
        assert b"Read-only" in engine.exec("web", ["sh", "-c", change]).stderr, change
    assert os.stat("/dev/full").st_ctime_ns == before.st_ctime_ns
    assert engine.exec("web", ["sh", "-c", "echo x > /dev/null; cat /dev/null"]).exit_code == 0
    assert b"No space" in engine.exec("web", ["sh", "-c", "echo x > /dev/full"]).stderr


@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net/ipv4/ip_forward"])
def test_net_sysctl_is_refused_with_mode_host(engine: Engine, key: str) -> None:
    """Mode host refuses `net.*` sysctls in any spelling."""
    with pytest.raises(InvalidError, match="sysctl"):
        engine.create("base", FOR_EVER, network="host", sysctls={key: "1"})


@pytest.mark.parametrize(
    "words", [["run", "--rm", "base", "true"], ["network", "create", "lan"]], ids=" ".join
)
def test_missing_cap_net_admin_is_reported_and_leaves_no_network(
    engine: Engine, root: Path, words: list[str]
) -> None:
    """Without CAP_NET_ADMIN the error names cause and remedy, and no network is left.

    The error also has the kernel's message.
    """

    def drop_net_admin() -> None:
        forbid(capget() & ~_NET_ADMIN)

    (root / "lock").touch()  # this file stays in any case
    with nothing_left(root):
        done = subprocess.run(
            [sys.executable, "-m", "runtime", *words],
            env=environment(MYDOCKER_ROOT=str(root)),
            preexec_fn=drop_net_admin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert (done.returncode, done.stdout) == (125 if words[0] == "run" else 1, "")
    assert "Operation not permitted" in done.stderr
    assert "likely cause: no CAP_NET_ADMIN in this network namespace" in done.stderr
    assert "try: netmodes lab" in done.stderr
    assert not engine.containers()
