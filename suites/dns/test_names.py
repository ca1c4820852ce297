"""Peers by name: on user-defined networks, on those alone, and for as long as they are there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import dns.message
import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, NS1, Bridge, Family, Protocol
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.client import Client
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.scene import Scene
from suites.dns import ALIAS, DMZ, LAN, LONG, SHARED
from suites.support.dns import heard, held, looked_up, present, resolved, unheard_of
from suites.support.features import families, has_ipv6
from suites.support.three_containers import both_families

SHORT: Final = 12
"""Hexadecimal digits of a short id."""
IN_TOWN: Final = ("far", "plain")
"""Containers on another network, and on the default one."""
OTHERS: Final = ("TXT", "MX", "SRV", "HTTPS")
"""Kinds of records that programs ask for besides addresses: the last is every browser's."""


# --- whom a name leads to --------------------------------------------------------


@requirement("NET-4")
@both_families
@pytest.mark.parametrize(
    "name", ["web", ALIAS, "WEB", ALIAS.title(), pytest.param(LONG, id="long")]
)
def test_a_name_leads_to_the_containers_address(town: Scene, name: str, family: Family) -> None:
    """The name that it was given, its alias in any case (RFC 4343), and one as long as may be.

    For peers and itself.
    """
    own = held(town, "web", family)
    assert own
    for asker in present(town, "db", "web", "lodger"):
        assert resolved(town, asker, name, family) == own


@requirement("NET-4")
@both_families
def test_an_alias_of_several_leads_to_all_of_them(town: Scene, family: Family) -> None:
    """To those on the asker's own network."""
    assert resolved(town, "db", SHARED, family) == held(town, "web", family) | held(
        town, "db", family
    )
    assert resolved(town, "far", SHARED, family) == held(town, "far", family)


@requirement("NET-4", "NET-2")
@both_families
@pytest.mark.parametrize("name", ["web", ALIAS])
def test_a_name_is_known_on_its_network_only(town: Scene, name: str, family: Family) -> None:
    """Neither on another network nor on the default one does it lead anywhere."""
    assert resolved(town, "db", name, family)
    for asker in ("far", "solo", "plain"):
        assert resolved(town, asker, name, family) == set()


@requirement("NET-4")
def test_on_the_default_network_names_lead_nowhere(town: Scene) -> None:
    """Nor does the name of one that is there lead anywhere elsewhere."""
    assert resolved(town, "solo", "mate", 4) == held(town, "mate", 4)
    for asker in present(town, "plain", "guest", "web"):
        assert resolved(town, asker, "other", 4) == set()


@requirement("NET-4", "NET-3")
@both_families
def test_on_several_networks_each_leads_to_its_own_address(town: Scene, family: Family) -> None:
    """A peer is told the address on the network that they share; who is on both knows both."""
    for asker, network in (("web", LAN), ("far", DMZ)):
        shared = held(town, "both", family, network)
        assert len(shared) == 1
        assert resolved(town, asker, "both", family) == shared
    assert resolved(town, "both", "web", family) == held(town, "web", family)
    assert resolved(town, "both", "distant", family) == held(town, "far", family)


@requirement("NET-4")
def test_a_name_without_ipv6_has_no_such_address(town: Scene) -> None:
    """That is an answer, not a failure, and nobody outside is asked for it."""
    since = town.world.services.mark()
    assert resolved(town, "solo", "mate", 6) == set()
    answer = lookup.ask(town["solo"], "mate", "AAAA")
    assert (lookup.rcode(answer), lookup.told(answer)) == ("NOERROR", set())
    assert looked_up(town, "solo", "mate").addresses == held(town, "mate", 4)
    assert heard(town, since, "mate") == []


@requirement("DNS-5")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_else_is_asked_about_a_name_denies_it_not(town: Scene, transport: Transport) -> None:
    """There is no such record, which is not to say that there is no such name; nobody is asked."""
    since = town.world.services.mark()
    for kind in OTHERS:
        answer = lookup.ask(town["db"], "web", kind, transport=transport)
        assert (kind, lookup.rcode(answer), lookup.told(answer)) == (kind, "NOERROR", set())
    assert heard(town, since, "web") == []


@requirement("DNS-6")
@pytest.mark.parametrize(
    "asker", [ATTACKER, NS1, *(pytest.param(name, marks=requirement("NET-2")) for name in IN_TOWN)]
)
def test_whoever_is_elsewhere_is_told_nothing(town: Scene, asker: str) -> None:
    """Neither at the network's gateway nor at its containers: they have answers for their own.

    Nor is anything asked outside for who is outside the host.
    """
    gateways = [item.ip for item in town.runtime.network_facts(LAN).gateways]
    beyond, since = unheard_of(), town.world.services.mark()
    names = ["web", beyond] if asker in town.places else ["web"]
    with contextlib.ExitStack() as stack:
        calls: list[Client] = []
        for address in (*gateways, *held(town, "web", 4), *held(town, "web", 6)):
            with contextlib.suppress(OSError):  # for want of a route, or of anybody there
                call = Client(town.place(asker), Protocol.UDP, address, port=53)
                calls.append(stack.enter_context(call))
                for name in names:
                    call.say(dns.message.make_query(name, "A").to_wire())
        assert calls
        assert resolved(town, "db", "web", 4), "who asks later is answered later"
        assert resolved(town, "db", f"control.{beyond}", 4)
        town.settle()
        assert [value for call in calls for value in told(call)] == []
    assert {item.name for item in heard(town, since, beyond)} == {f"control.{beyond}"}


def told(call: Client) -> list[str]:
    """What a resolver has answered by now."""
    values: list[str] = []
    with contextlib.suppress(OSError):  # it was refused
        while (heard := call.heard()) is not None:
            values += lookup.told(dns.message.from_wire(heard))
    return values


# --- what else leads to whom, as declared ----------------------------------------------


@requirement("NET-4")
@both_families
def test_the_short_id_leads_to_it_as_declared(
    town: Scene, runtime: Adapter, family: Family
) -> None:
    """Its first twelve digits, as runtimes show it."""
    found = resolved(town, "db", town["web"].started.id[:SHORT], family)
    declared = "short-id" in runtime.dialect.peer_names
    assert found == (held(town, "web", family) if declared else set())


@requirement("NET-4")
def test_a_hostname_leads_to_it_as_declared(scene: Scene, runtime: Adapter) -> None:
    """One that was asked for, as a name beside its own."""
    own = Bridge(scene.network("town", ipv6=has_ipv6(runtime)).name)
    scene.container("called", own, hostname="box")
    scene.container("asker", own)
    declared = "hostname" in runtime.dialect.peer_names
    for family in families(runtime):
        found = resolved(scene, "asker", "box", family)
        assert found == (held(scene, "called", family) if declared else set())


@requirement("NET-4")
@both_families
def test_an_address_leads_back_to_its_name_as_declared(
    town: Scene, runtime: Adapter, family: Family
) -> None:
    """To one that leads to the address again; not on another network."""
    (address,) = held(town, "web", family)
    name = lookup.name_of(town.world.host, town["db"], address)
    assert bool(name) == ("reverse" in runtime.dialect.peer_names)
    if name:
        assert name.partition(".")[0] == "web"
        assert resolved(town, "db", name, family) == {address}
    assert lookup.name_of(town.world.host, town["far"], address) == ""


# --- for how long --------------------------------------------------------------------


def stopped(scene: Scene, name: str) -> None:
    """Have a container stop."""
    scene[name].stop()


@requirement("NET-4")
@pytest.mark.parametrize("end", [Scene.remove, stopped], ids=["removed", "stopped"])
def test_a_name_ends_with_its_container(scene: Scene, end: Callable[[Scene, str], None]) -> None:
    """Removed or stopped, it leads nowhere at once; its next holder answers to it at once.

    An alias that another has too goes on to lead to that one.
    """
    scene.network("town", ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"), aliases=("common",))
    scene.container("first", Bridge("town"), aliases=("service", "common"))
    before = {family: held(scene, "first", family) for family in families(scene.runtime)}
    for family, addresses in before.items():
        own = held(scene, "asker", family)
        assert resolved(scene, "asker", "service", family) == addresses
        assert resolved(scene, "asker", "common", family) == addresses | own
    end(scene, "first")
    for family in before:
        for name in ("first", "service"):
            assert resolved(scene, "asker", name, family) == set()
        assert resolved(scene, "asker", "common", family) == held(scene, "asker", family)
    scene.container("second", Bridge("town"))
    scene.container("third", Bridge("town"), aliases=("service",))
    for family, addresses in before.items():
        after = held(scene, "third", family)
        assert after != addresses
        assert resolved(scene, "asker", "service", family) == after


@requirement("NET-4", "LIFE-7")
def test_a_name_outlasts_a_restart(scene: Scene) -> None:
    """Started again, a container is found by its name and aliases where it is now."""
    scene.network("town", ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    again = scene.container("again", Bridge("town"), aliases=("service", "spare"))
    for name in ("again", "service", "spare"):
        assert resolved(scene, "asker", name, 4) == held(scene, "again", 4)
    again.stop()
    again.start()
    for family in families(scene.runtime):
        for name in ("again", "service", "spare"):
            assert resolved(scene, "asker", name, family) == held(scene, "again", family)


@requirement("NET-4", "NET-3", "LIFE-7")
def test_so_does_an_alias_of_a_connection(scene: Scene) -> None:
    """Which was made while the container ran: started again, it is on that network as before."""
    for network in ("town", "village"):
        scene.network(network, ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    mover = scene.container("mover", Bridge("village"))
    scene.connect("mover", "town", aliases=("townsman",))
    mover.stop()
    mover.start()
    for family in families(scene.runtime):
        for name in ("mover", "townsman"):
            assert resolved(scene, "asker", name, family) == held(scene, "mover", family, "town")


@requirement("NET-4", "NET-3")
def test_a_name_comes_and_goes_with_the_connection(scene: Scene) -> None:
    """Connected, it leads there at once, by the aliases of that connection; taken off, nowhere.

    So it is again when it comes back.
    """
    for network in ("town", "village"):
        scene.network(network, ipv6=has_ipv6(scene.runtime))
    scene.container("asker", Bridge("town"))
    scene.container("mover", Bridge("village"), aliases=("villager",))
    for family in families(scene.runtime):
        assert resolved(scene, "asker", "mover", family) == set()
    for _ in range(2):
        scene.connect("mover", "town", aliases=("townsman", "voter"))
        for family in families(scene.runtime):
            own = held(scene, "mover", family, "town")
            for name in ("mover", "townsman", "voter"):
                assert resolved(scene, "asker", name, family) == own
            assert resolved(scene, "asker", "villager", family) == set()
            assert resolved(scene, "mover", "asker", family) == held(scene, "asker", family)
        scene.disconnect("mover", "town")
        for family in families(scene.runtime):
            for name in ("mover", "townsman", "voter"):
                assert resolved(scene, "asker", name, family) == set()
            assert resolved(scene, "mover", "asker", family) == set()
