"""Mode container:<id>, in which a container shares only the network namespace of another one."""

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
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener, Transport
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.scene import LOOPBACKS, Scene
from suites.support.features import can_start, ipv4_and_ipv6, restarts

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "publish": {"ports": (Publish(8080, 80),)},
    "mac": {"mac": "02:42:ac:11:00:63"},
    "ip": {"ip": IPv4Address("172.17.0.99")},
    "hostname": {"hostname": "another"},
    "dns": {"dns": (IPv4Address("203.0.113.53"),)},
    "add-host": {"hosts": (("somewhere", IPv4Address("203.0.113.10")),)},
}
"""Options that contradict joining, by their names in `Dialect.joined_refuses`."""

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
"""Patterns that match the name of an option in an error message."""


# --- one namespace -----------------------------------------------------------------


@requirement("CTR-1")
def test_joining_container_is_in_netns_of_joined_container(cast: Scene, host: NetnsView) -> None:
    """A joining container is in the joined container's netns, not in the host's or a peer's.

    Processes that are exec'd in the joining container are in that netns too.
    """
    joined = cast[CONTAINER01].net.identity
    assert cast[JOINER].net.identity == joined
    assert container.view(cast[JOINER]).netns == joined[1]
    assert joined not in (host.identity, cast[CONTAINER02].net.identity)


@requirement("CTR-1", "LIFE-7")
def test_restarted_joining_container_is_in_netns_of_joined_container(scene: Scene) -> None:
    """A restarted joining container is in the joined container's netns, which stays the same."""
    home = scene.container("home", Bridge())
    joiner = scene.container("joiner", Joined("home"))
    before = home.net.identity
    joiner.stop()
    joiner.start()
    assert joiner.net.identity == home.net.identity == before
    assert container.view(joiner).netns == before[1]


@requirement("CTR-2")
def test_joining_and_joined_container_see_the_same_network_state(
    cast: Scene, runtime: Adapter
) -> None:
    """A joining and a joined container see equal interfaces, addresses, routes and neighbours."""
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    ask = cast.promised(list(cells((JOINER,), (GATEWAY, CONTAINER02))))
    assert cast.observed(ask) == ask
    assert one.neighbours(), "the joined container has no neighbour entry after the probes"
    assert one.neighbours() == other.neighbours()
    assert one.snapshot().changes(other.snapshot()) == []
    assert container.view(cast[JOINER]) == container.view(cast[CONTAINER01])


@requirement("CTR-3")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_joining_and_joined_container_share_one_port_space(
    cast: Scene, family: Family, transport: Transport
) -> None:
    """A port bound in a joined or joining container cannot be bound in the other one.

    A peer can bind the same port.
    """
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    for first, second in ((one, other), (other, one)):
        with Listener(first, transport, family=family) as listener:
            with Listener(cast[CONTAINER02].net, transport, family=family, port=listener.port):
                pass
            with (
                pytest.raises(OSError, match="already in use"),
                Listener(second, transport, family=family, port=listener.port),
            ):
                pass


@requirement("CTR-4")
@ipv4_and_ipv6
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_joining_and_joined_container_share_the_loopback(
    cast: Scene, runtime: Adapter, family: Family, transport: Transport
) -> None:
    """A loopback listener in a joined or joining container answers in both, and in no peer."""
    one, other = cast[CONTAINER01].net, cast[JOINER].net
    loopback = LOOPBACKS[family]
    if family == 6 and not runtime.dialect.bridge_loopback6:
        for view in (one, other):
            with (
                pytest.raises(OSError, match="assign"),
                Listener(view, transport, address=loopback),
            ):
                pass
        return
    for owner, caller in ((one, other), (other, one)):
        with Listener(owner, transport, address=loopback) as listener:
            exchange = listener.reached_from(caller)
            assert exchange
            assert exchange.seen[0] == loopback
            assert not listener.reached_from(cast[CONTAINER02].net)


# --- nothing else ------------------------------------------------------------------


@requirement("CTR-5")
@pytest.mark.parametrize("kind", ["pid", "mnt"])
def test_joining_container_has_its_own_pid_and_mount_namespace(cast: Scene, kind: str) -> None:
    """A joining container has its own PID and mount namespaces.

    These differ from the namespaces of the joined container and of the host.
    """
    own = cast[JOINER].namespace(kind)
    assert own != cast[CONTAINER01].namespace(kind)
    assert own != cast.world.host.namespace(kind)


@requirement("CTR-5")
def test_files_of_joined_container_are_absent_in_joining_container(scene: Scene) -> None:
    """A file that the joined container writes does not exist in the joining container."""
    home = scene.container("home", Bridge())
    joiner = scene.container("joiner", Joined("home"))
    home.exec("sh", "-c", "echo here > /only-here")
    assert home.read("/only-here") == "here\n"
    with pytest.raises(FileNotFoundError):
        joiner.read("/only-here")


@requirement("CTR-5")
def test_joining_container_shares_uts_namespace_as_declared(cast: Scene, runtime: Adapter) -> None:
    """A joining and a joined container share one UTS namespace only if the runtime declares so.

    Neither of the two is in the host's UTS namespace.
    """
    own, joined = cast[JOINER].namespace("uts"), cast[CONTAINER01].namespace("uts")
    assert (own == joined) == (runtime.dialect.joined_hostname == "shared")
    assert cast.world.host.namespace("uts") not in (own, joined)


# --- refusals --------------------------------------------------------------------------


@requirement("CTR-6")
def test_joining_unknown_container_is_refused(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Joining an unknown container is refused with an error that contains its name.

    The attempt leaves nothing.
    """
    before = host.snapshot()
    refused = scene.refusal("joiner", Joined("nobody-of-that-name"))
    assert "nobody-of-that-name" in refused.said
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("joiner")


@requirement("CTR-6")
def test_joining_stopped_container_is_handled_as_declared(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Joining a stopped container starts that container or is refused, as the runtime declares.

    The error names the stopped container, and the attempt leaves nothing. Joining succeeds once the
    container runs.
    """
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
def test_options_that_contradict_joining_are_refused_by_name(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Options that a joining container cannot have are refused by name exactly if declared.

    A refusal leaves nothing. The test tries only options that the adapter declares as features.
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
    assert unnamed == {}, "a refusal does not name its option"
    assert before.changes(host.snapshot()) == []


# --- chains and ends -----------------------------------------------------------------


@requirement("CTR-8")
@pytest.mark.parametrize("mode", [Bridge(), Nothing(), Host()], ids=str)
def test_chain_of_joining_containers_shares_one_netns(
    scene: Scene, mode: Bridge | Nothing | Host
) -> None:
    """All containers in a chain of joining containers are in the netns of the first one."""
    scene.container("first", mode)
    scene.container("second", Joined("first"))
    scene.container("third", Joined("second"))
    identities = {name: scene[name].net.identity for name in ("first", "second", "third")}
    assert len(set(identities.values())) == 1, identities


@requirement("CTR-9")
def test_end_of_joining_container_does_not_change_network_of_joined_container(
    scene: Scene, host: NetnsView
) -> None:
    """Stop and removal of a joining container do not change the joined container's network.

    The joined container still reaches the internet.
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
def test_published_ports_of_joined_container_survive_end_of_joining_container(
    scene: Scene, host: NetnsView, transport: Transport
) -> None:
    """The joined container's published ports still answer after a joining container is removed."""
    home = scene.container("home", Bridge(), ports=(Publish(PUBLISHED, INSIDE, transport),))
    joiner = scene.container("joiner", Joined("home"))
    with Listener(home.net, transport, port=INSIDE) as listener:
        call: dict[str, Any] = {"at": host.address(4), "port": PUBLISHED, "answered": True}
        assert listener.reached_from(scene.netns(ATTACKER), **call)
        joiner.remove()
        assert listener.reached_from(scene.netns(ATTACKER), **call)


@requirement("CTR-9")
def test_joining_container_survives_stop_of_joined_container_as_declared(
    scene: Scene, runtime: Adapter
) -> None:
    """When the joined container stops, the joining one keeps its network, keeps only lo, or ends.

    The runtime declares one of these, or that it refuses to stop the joined container.
    """
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
            assert_address_is_not_reassigned(scene, joiner)
        case "loopback-only":
            home.stop()
            until(joiner.net, lambda: joiner.net.links().keys() == {"lo"}, "lo is the only link")
            assert [item for item in joiner.net.interfaces() if item.version == 4] == [
                IPv4Interface("127.0.0.1/8")
            ]
            assert joiner.net.routes() == []
            assert container.view(joiner).interfaces == {"lo"}


def assert_address_is_not_reassigned(scene: Scene, joiner: Container) -> None:
    """Assert that a new container does not get the address that a joining container uses."""
    held = joiner.net.address(4)
    assert held is not None
    assert scene.container("newcomer", Bridge()).net.address(4) != held
