"""What a container may do: capabilities given and taken, its own files made unchangeable."""

from __future__ import annotations

import pytest

from runtime.engine import Engine
from runtime.errors import InvalidError
from runtime.isolation import DEFAULT_CAPABILITIES, capabilities
from tests.runtime.conftest import FOR_EVER

_NET_ADMIN, _NET_RAW = 1 << 12, 1 << 13
_SETS = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status"


def _sets(engine: Engine, reference: str) -> dict[str, int]:
    """The capability sets of a command in it: permitted, effective, bounding."""
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
def test_a_command_has_what_was_asked_for(
    engine: Engine, add: list[str], drop: list[str], expected: int
) -> None:
    """The command itself and every other, in all its sets, and no exec exceeds it."""
    web = engine.run(
        "base",
        ["sh", "-c", f"{_SETS}; exec sleep 1000000"],
        network="none",
        cap_add=add,
        cap_drop=drop,
    )
    assert set(_sets(engine, web.id).values()) == {expected}
    logged = [line.data.decode().split(":") for line in engine.logs(web.id)]
    assert {int(bits, 16) for _, bits in logged} == {expected}


def test_names_count_after_all() -> None:
    """As with Docker; an unknown name is refused."""
    assert capabilities("x", ["ALL"], ["net_raw"]) & _NET_RAW == 0
    assert capabilities("x", ["all"], []).bit_length() == 41
    with pytest.raises(InvalidError, match="fly"):
        capabilities("x", ["fly"], [])


def test_read_only(engine: Engine) -> None:
    """Nothing of its own can be changed, by the command or another; volumes and /dev/shm can."""
    engine.run("base", FOR_EVER, name="web", network="none", read_only=True, binds=["v:/data"])
    for place in ("/new", "/etc/passwd", "/tmp/new"):
        done = engine.exec("web", ["sh", "-c", f"echo x > {place}"])
        assert done.exit_code != 0
        assert b"Read-only" in done.stderr
    for place in ("/data/new", "/dev/shm/new"):
        assert engine.exec("web", ["sh", "-c", f"echo x > {place}"]).exit_code == 0


@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net/ipv4/ip_forward"])
def test_the_hosts_network_keeps_its_sysctls(engine: Engine, key: str) -> None:
    """`net.*` cannot go with mode host, however it is written."""
    with pytest.raises(InvalidError, match="sysctl"):
        engine.create("base", FOR_EVER, network="host", sysctls={key: "1"})
