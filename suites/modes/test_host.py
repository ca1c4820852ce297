"""Mode host: no network of its own, the host's and nothing else."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import (
    ATTACKER,
    CONTAINER01,
    FAMILIES,
    HOST,
    ON_HOST,
    Bridge,
    Cell,
    Family,
    Host,
    Joined,
    Publish,
)
from harness.plugin.marks import requirement
from harness.testbench import container, netns_view
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import TRANSPORTS, Listener, Transport, introduce
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from suites.modes.hostports import assert_not_published
from suites.support.features import restarts
from suites.support.host import a_change_would_show

SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv6.conf.all.hop_limit",
    "net.core.somaxconn",
    "net/ipv4/ip_default_ttl",
)
"""Of several kinds, one in the other spelling that sysctl(8) knows."""

PUBLISHED, INSIDE = 8196, 31081


@requirement("HOST-1")
def test_it_is_in_the_hosts_network_namespace(cast: Scene, host: NetnsView) -> None:
    """So is what it executes; a bridged container is not."""
    assert cast[ON_HOST].net.identity == host.identity
    assert container.view(cast[ON_HOST]).netns == host.identity[1]
    assert cast[CONTAINER01].net.identity != host.identity


@requirement("HOST-1", "LIFE-7")
def test_started_again_it_is_there_again(scene: Scene, host: NetnsView) -> None:
    """In the host's namespace, and so is what it executes."""
    guest = scene.container("guest", Host())
    guest.stop()
    guest.start()
    assert guest.net.identity == host.identity
    assert container.view(guest).netns == host.identity[1]


@requirement("HOST-1")
def test_it_sees_the_hosts_interfaces(cast: Scene, host: NetnsView) -> None:
    """A process inside is shown all of them and no other."""
    assert container.view(cast[ON_HOST]).interfaces == set(host.links())


@requirement("HOST-2")
def test_it_changes_nothing_on_the_host(fresh: Scene) -> None:
    """Not when it starts, runs, executes something, stops, is started again or is removed."""
    host = fresh.place(HOST)
    before = host.snapshot()
    guest = fresh.container("guest", Host())
    assert before.changes(host.snapshot()) == []
    container.view(guest)
    assert before.changes(host.snapshot()) == []
    guest.stop()
    assert before.changes(host.snapshot()) == []
    if restarts(fresh.runtime):
        guest.start()
        assert before.changes(host.snapshot()) == []
    guest.remove()
    assert before.changes(host.snapshot()) == []
    a_change_would_show(host, before)


@requirement("HOST-2", "PUB-1")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_others_publish_stays_as_it_is(
    scene: Scene, host: NetnsView, transport: Transport
) -> None:
    """On the LAN and on 127.0.0.1: while it runs, and once it has gone."""
    web = scene.container("web", Bridge(), ports=(Publish(PUBLISHED, INSIDE, transport),))
    with Listener(web.net, transport, port=INSIDE) as ear:

        def answers() -> bool:
            lan = ear.hears(
                scene.place(ATTACKER),
                at=scene.world.address(HOST, 4),
                port=PUBLISHED,
                answered=True,
            )
            return bool(lan and ear.hears(host, at=LOOPBACKS[4], port=PUBLISHED, answered=True))

        assert answers()
        guest = scene.container("guest", Host())
        assert answers()
        guest.remove()
        assert answers()


@requirement("HOST-3")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_listener_inside_is_a_listener_on_the_host(
    cast: Scene, host: NetnsView, family: Family, transport: Transport
) -> None:
    """It is reached at the host's addresses, and its port is taken on the host."""
    address = cast.world.address(HOST, family)
    with Listener(cast[ON_HOST].net, transport, family=family) as ear:
        callers = [cast.place(ATTACKER), host]
        if cast[CONTAINER01].net.address(family) not in (None, address):
            callers.append(cast[CONTAINER01].net)
        for caller in callers:
            assert ear.hears(caller, at=address), caller.name
        assert ear.hears(host, at=LOOPBACKS[family])
        with (
            pytest.raises(OSError, match="in use"),
            Listener(host, transport, family=family, port=ear.port),
        ):
            pass


@requirement("HOST-3")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_it_sends_carries_the_hosts_address_untranslated(
    cast: Scene, internet: NetnsView, family: Family, transport: Transport
) -> None:
    """The internet sees the very address and port that the sender's own socket has."""
    address = internet.address(family)
    assert address is not None
    meeting = introduce(cast[ON_HOST].net, address, transport)
    assert meeting.seen == meeting.own
    assert meeting.seen[0] == cast.world.address(HOST, family)


@requirement("HOST-4")
def test_it_reaches_exactly_what_the_host_reaches(cast: Scene) -> None:
    """The same answers with the same TTLs, to and from the same addresses, or the same silence."""
    asked = cast.promised()
    own, hosts = asked.select(source=ON_HOST), asked.select(source=HOST)
    seen = cast.observed([*own, *hosts])
    assert seen.restrict(own) == own
    assert {_question(cell): seen[cell] for cell in own} == {
        _question(cell): seen[cell] for cell in hosts
    }


def _question(cell: Cell) -> tuple[object, ...]:
    return cell.target, cell.protocol, cell.family


@requirement("HOST-5")
@pytest.mark.parametrize("key", SYSCTLS)
def test_a_net_sysctl_is_refused(scene: Scene, host: NetnsView, runtime: Adapter, key: str) -> None:
    """It would be the host's: the refusal names it, the host's value stays, nothing is left."""
    before, dotted = host.snapshot(), key.replace("/", ".")
    value = host.sysctl(dotted)
    other = "0" if value == "1" else "1"
    try:
        refused = scene.refusal("guest", Host(), sysctls=((key, other),))
        assert host.sysctl(dotted) == value
    finally:
        host.tune({dotted: value})
    assert "sysctl" in refused.said.lower() or key in refused.said
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("guest")


@requirement("HOST-5")
def test_a_net_sysctl_is_refused_to_who_joins_it(scene: Scene, host: NetnsView) -> None:
    """By way of container:<id> the namespace is the host's all the same, by however many steps."""
    key = "net.ipv4.ip_default_ttl"
    scene.container("guest", Host())
    scene.container("between", Joined("guest"))
    value = host.sysctl(key)
    try:
        for joined in ("guest", "between"):
            scene.refusal("joiner", Joined(joined), sysctls=((key, "61"),))
        assert host.sysctl(key) == value
    finally:
        host.tune({key: value})


@requirement("HOST-5")
def test_a_net_sysctl_is_granted_where_it_is_the_containers_own(
    scene: Scene, host: NetnsView
) -> None:
    """A bridged container gets it, in its own namespace only: the word alone is not refused."""
    key = "net.ipv4.ip_default_ttl"
    value = host.sysctl(key)
    own = scene.container("own", Bridge(), sysctls=((key, "61"),))
    assert own.net.sysctl(key) == "61"
    assert host.sysctl(key) == value


@requirement("HOST-6")
def test_no_abstract_socket_of_a_daemon_can_be_connected_to(cast: Scene, host: NetnsView) -> None:
    """A listener that is there for control is found and reached; nobody else's is."""
    inside = cast[ON_HOST].net
    with netns_view.listening(host) as control:
        found = netns_view.connectable(host)
        assert control in found
        reached = {listener for listener in found if netns_view.connects(inside, listener)}
        assert reached == {control}


@requirement("HOST-7")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_publishing_is_refused_or_warned_of(
    scene: Scene, runtime: Adapter, transport: Transport
) -> None:
    """As declared, and by name; either way the port stays the host's."""
    assert_not_published(scene, Host(), runtime.dialect.host_publish, transport)
