"""Mode container:<id>: the network namespace of another container, and nothing else of it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import (
    ATTACKER,
    CONTAINER01,
    CONTAINER02,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    JOINER,
    Bridge,
    ContainerSpec,
    Family,
    Host,
    Joined,
    Nothing,
    Publish,
    cells,
)
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener, Transport
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.scene import Scene
from suites.support.features import can_start, restarts

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "publish": {"ports": (Publish(8080, 80),)},
    "mac": {"mac": "02:42:ac:11:00:63"},
    "ip": {"ip": IPv4Address("172.17.0.99")},
    "hostname": {"hostname": "another"},
    "dns": {"dns": (IPv4Address("203.0.113.53"),)},
    "add-host": {"hosts": (("somewhere", IPv4Address("203.0.113.10")),)},
}
"""What contradicts joining, by the names of `Dialect.joined_refuses`."""

PUBLISHED: Final = 8190
INSIDE: Final = 31080

WORDS: Final = {
    "publish": r"publish",
    "mac": r"\bmac\b",
    "ip": r"\bip\b",
    "hostname": r"\bhostname\b",
    "dns": r"\bdns\b",
    "add-host": r"add-host|host-to-ip|extra host",
}
"""By what a refusal names an option."""


# --- one namespace -----------------------------------------------------------------


@requirement("CTR-1")
def test_it_is_in_the_joined_containers_network_namespace(cast: Scene, host: NetnsView) -> None:
    """So is what it executes; the host's and a peer's are others."""
    joined = cast[CONTAINER01].net.identity
    assert cast[JOINER].net.identity == joined
    assert container.view(cast[JOINER]).netns == joined[1]
    assert joined not in (host.identity, cast[CONTAINER02].net.identity)


@requirement("CTR-1", "LIFE-7")
def test_started_again_it_is_there_again(scene: Scene) -> None:
    """In the namespace of the joined one, with its network, which has stayed meanwhile."""
    home = scene.container("home", Bridge())
    joiner = scene.container("joiner", Joined("home"))
    before = home.net.identity
    joiner.stop()
    joiner.start()
    assert joiner.net.identity == home.net.identity == before
    assert container.view(joiner).netns == before[1]


@requirement("CTR-2")
def test_both_see_the_same_network(cast: Scene, runtime: Adapter) -> None:
    """Interfaces, addresses, MACs, routes and neighbours are the very same."""
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    ask = cast.promised(list(cells((JOINER,), (GATEWAY, CONTAINER02))))
    assert cast.observed(ask) == ask
    assert one.neighbours(), "having spoken to neighbours, it has neighbour entries"
    assert one.neighbours() == other.neighbours()
    assert one.snapshot().changes(other.snapshot()) == []
    assert container.view(cast[JOINER]) == container.view(cast[CONTAINER01])


@requirement("CTR-3")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_they_share_one_port_space(cast: Scene, family: Family, transport: Transport) -> None:
    """What one has bound the other cannot; a peer can."""
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    for first, second in ((one, other), (other, one)):
        with Listener(first, transport, family=family) as ear:
            with Listener(cast[CONTAINER02].net, transport, family=family, port=ear.port):
                pass
            with (
                pytest.raises(OSError, match="already in use"),
                Listener(second, transport, family=family, port=ear.port),
            ):
                pass


@requirement("CTR-4")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_loopback_is_common(
    cast: Scene, runtime: Adapter, family: Family, transport: Transport
) -> None:
    """A listener on the loopback of one answers in the other, and not in a peer."""
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    loopback = LOOPBACKS[family]
    if family == 6 and not runtime.dialect.bridge_loopback6:
        for place in (one, other):
            with (
                pytest.raises(OSError, match="assign"),
                Listener(place, transport, address=loopback),
            ):
                pass
        return
    for listener, caller in ((one, other), (other, one)):
        with Listener(listener, transport, address=loopback) as ear:
            meeting = ear.hears(caller)
            assert meeting
            assert meeting.seen[0] == loopback
            assert not ear.hears(cast[CONTAINER02].net)


# --- and nothing else ----------------------------------------------------------------


@requirement("CTR-5")
@pytest.mark.parametrize("kind", ["pid", "mnt"])
def test_processes_and_files_stay_apart(cast: Scene, kind: str) -> None:
    """The namespaces are neither the joined container's nor the host's."""
    own = cast[JOINER].namespace(kind)
    assert own != cast[CONTAINER01].namespace(kind)
    assert own != cast.world.host.namespace(kind)


@requirement("CTR-5")
def test_a_file_of_one_is_not_in_the_other(scene: Scene) -> None:
    """What one writes, it reads; the other does not have it."""
    home = scene.container("home", Bridge())
    joiner = scene.container("joiner", Joined("home"))
    home.exec("sh", "-c", "echo here > /only-here")
    assert home.read("/only-here") == "here\n"
    with pytest.raises(FileNotFoundError):
        joiner.read("/only-here")


@requirement("CTR-5")
def test_the_hostname_is_shared_or_not_as_declared(cast: Scene, runtime: Adapter) -> None:
    """One UTS namespace where the runtime declares it, two where not; never the host's."""
    own, joined = cast[JOINER].namespace("uts"), cast[CONTAINER01].namespace("uts")
    assert (own == joined) == (runtime.dialect.joined_hostname == "shared")
    assert cast.world.host.namespace("uts") not in (own, joined)


# --- refusals --------------------------------------------------------------------------


@requirement("CTR-6")
def test_joining_an_unknown_container_is_refused(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """The error names it, and nothing is left behind."""
    before = host.snapshot()
    refused = scene.refusal("joiner", Joined("nobody-of-that-name"))
    assert "nobody-of-that-name" in refused.said
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("joiner")


@requirement("CTR-6")
def test_joining_a_stopped_container_is_refused_or_starts_it(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """As declared; a refusal names it, or its id, leaves nothing, and is over once it runs."""
    home = scene.container("home", Bridge())
    home.stop()
    if runtime.dialect.joining_stopped == "starts-it":
        assert scene.container("joiner", Joined("home")).net.identity == home.net.identity
        return
    before = host.snapshot()
    refused = scene.refusal("joiner", Joined("home"))
    assert "home" in refused.said or home.facts().id in refused.said
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("joiner")
    if restarts(runtime):
        home.start()
        assert scene.container("joiner", Joined("home")).net.identity == home.net.identity


@requirement("CTR-7")
def test_what_contradicts_joining_is_refused_by_name(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Every option that the runtime declares, and no other; nothing is left behind.

    Of those that it has: what it does not claim is no contradiction.
    """
    scene.container("home", Bridge())
    scene.container("joiner", Joined("home")).remove()
    before = host.snapshot()
    specs = {
        option: ContainerSpec("joiner", Joined("home"), **given)
        for option, given in OPTIONS.items()
    }
    tried = {option: spec for option, spec in specs.items() if can_start(runtime, spec)}
    refused: dict[str, str] = {}
    for option, spec in tried.items():
        try:
            runtime.run(spec)
        except RuntimeRefused as refusal:
            refused[option] = refusal.said
        else:
            runtime.remove("joiner")
        with pytest.raises(RuntimeRefused):
            runtime.inspect("joiner")
    assert refused.keys() == runtime.dialect.joined_refuses & tried.keys()
    unnamed = {
        option: said
        for option, said in refused.items()
        if not re.search(WORDS[option], said, re.IGNORECASE)
    }
    assert unnamed == {}, "a refusal says which option it is about"
    assert before.changes(host.snapshot()) == []


# --- chains and ends -----------------------------------------------------------------


@requirement("CTR-8")
@pytest.mark.parametrize("mode", [Bridge(), Nothing(), Host()], ids=str)
def test_joining_a_joiner_lands_in_the_same_namespace(
    scene: Scene, mode: Bridge | Nothing | Host
) -> None:
    """Whatever the mode of the first in the chain."""
    scene.container("first", mode)
    scene.container("second", Joined("first"))
    scene.container("third", Joined("second"))
    identities = {name: scene[name].net.identity for name in ("first", "second", "third")}
    assert len(set(identities.values())) == 1, identities


@requirement("CTR-9")
def test_removing_the_joiner_leaves_the_network_of_the_joined(
    scene: Scene, host: NetnsView
) -> None:
    """Inside and on the host everything stays, and the internet still answers.

    So it is when the joiner is merely stopped.
    """
    home = scene.container("home", Bridge())
    before, outside = home.net.snapshot(), host.snapshot()
    joiner = scene.container("joiner", Joined("home"))
    joiner.stop()
    assert before.changes(home.net.snapshot()) == []
    joiner.remove()
    assert before.changes(home.net.snapshot()) == []
    assert outside.changes(host.snapshot()) == []
    row = scene.promised(list(cells(("home",), (GATEWAY, HOST, INTERNET))))
    assert scene.observed(row) == row


@requirement("CTR-9", "PUB-1")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_removing_the_joiner_leaves_the_ports_of_the_joined(
    scene: Scene, host: NetnsView, transport: Transport
) -> None:
    """What the joined one publishes answers to the LAN as before."""
    home = scene.container("home", Bridge(), ports=(Publish(PUBLISHED, INSIDE, transport),))
    joiner = scene.container("joiner", Joined("home"))
    with Listener(home.net, transport, port=INSIDE) as ear:
        call: dict[str, Any] = {"at": host.address(4), "port": PUBLISHED, "answered": True}
        assert ear.hears(scene.place(ATTACKER), **call)
        joiner.remove()
        assert ear.hears(scene.place(ATTACKER), **call)


@requirement("CTR-9")
def test_when_the_joined_stops_first_the_joiner_is_left_with_what_is_declared(
    scene: Scene, runtime: Adapter
) -> None:
    """Its network, or its loopback, or nothing; or the stop is refused while there is a joiner."""
    home = scene.container("home", Bridge())
    joiner = scene.container("joiner", Joined("home"))
    match runtime.dialect.joined_survives:
        case "refused":
            before = joiner.net.snapshot()
            with pytest.raises(RuntimeRefused):
                home.stop()
            assert before.changes(joiner.net.snapshot()) == []
        case "ends":
            home.stop()
            assert not joiner.facts().running
        case "keeps-network":
            before = joiner.net.snapshot()
            home.stop()
            assert before.changes(joiner.net.snapshot()) == []
            keeps_its_address(scene, joiner)
        case "loopback-only":
            home.stop()
            until(joiner.net, lambda: joiner.net.links().keys() == {"lo"}, "lo is what is left")
            assert [item for item in joiner.net.interfaces() if item.version == 4] == [
                IPv4Interface("127.0.0.1/8")
            ]
            assert joiner.net.routes() == []
            assert container.view(joiner).interfaces == {"lo"}


def keeps_its_address(scene: Scene, joiner: Container) -> None:
    """The address of who still has it is not given to anybody else."""
    held = joiner.net.address(4)
    assert held is not None
    assert scene.container("newcomer", Bridge()).net.address(4) != held
