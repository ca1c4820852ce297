"""A container in another net mode than it was asked to be in; options that its mode rules out."""

from __future__ import annotations

from dataclasses import replace

from harness.adapters.protocol import Completed, Facts
from harness.faults import tricks
from harness.faults.acts import drop, started_alone
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.faults.verb import Verb
from harness.model import Bridge, Host, Joined, Nothing
from linux.nft import ct_state, iifname, l4proto, oifname, to_local, verdict


def _executed(verb: Verb, name: str) -> Completed:
    done: Completed = verb(name=name)
    return done


# --- none ------------------------------------------------------------------------


@fault("none-is-the-hosts", violates=("NONE-1", "NONE-2", "NONE-3", "NONE-5"), around="run")
def none_is_the_hosts(site: Site, verb: Verb) -> Facts:
    """A container that asks for no network gets the host's."""
    wrong = isinstance(verb.spec.mode, Nothing)
    facts: Facts = verb(spec=replace(verb.spec, mode=Host()) if wrong else verb.spec)
    return facts


@fault("none-is-shared", violates=("NONE-1",), around="run")
def none_is_shared(site: Site, verb: Verb) -> Facts:
    """All containers without a network are in one namespace."""
    if isinstance(verb.spec.mode, Nothing):
        for name, spec in site.specs.items():
            if isinstance(spec.mode, Nothing) and name in site.other_containers():
                joined: Facts = verb(spec=replace(verb.spec, mode=Joined(name)))
                return joined
    facts: Facts = verb()
    return facts


@fault("none-is-bridged", violates=("NONE-2", "NONE-3", "NONE-4", "NONE-5"), around="run")
def none_is_bridged(site: Site, verb: Verb) -> Facts:
    """Without a network means on the default one."""
    wrong = isinstance(verb.spec.mode, Nothing)
    facts: Facts = verb(spec=replace(verb.spec, mode=Bridge()) if wrong else verb.spec)
    return facts


@fault("publishing-without-a-network", violates=("NONE-7", "HOST-7"), around="run", narrow=True)
def publishing_without_a_network(site: Site, verb: Verb) -> Facts:
    """A port that cannot be published is forgotten without a word."""
    apart = isinstance(verb.spec.mode, Nothing | Host)
    facts: Facts = verb(spec=replace(verb.spec, ports=()) if apart else verb.spec)
    return facts


@fault("refused-and-taken", violates=("NONE-7", "HOST-7"), moment=Moment.REFUSED)
def refused_and_taken(site: Site) -> None:
    """Publishing is refused, and the port of the host's taken all the same."""
    for port in site.spec.ports if site.spec else ():
        taken = [*l4proto(port.protocol), *to_local()]
        site.host.rule("prerouting", taken, verdict("drop"))
        site.host.rule("output", taken, verdict("drop"))


# --- host ------------------------------------------------------------------------


@fault("host-mode-has-a-namespace", violates=("HOST-1", "HOST-3", "HOST-4"), around="run")
def host_mode_has_a_namespace(site: Site, verb: Verb) -> Facts:
    """A container in mode host is on the default network."""
    wrong = isinstance(verb.spec.mode, Host)
    facts: Facts = verb(spec=replace(verb.spec, mode=Bridge()) if wrong else verb.spec)
    return facts


@fault("exec-elsewhere", violates=("HOST-1",), around="exec", narrow=False)
def exec_elsewhere(site: Site, verb: Verb) -> Completed:
    """What is executed in a container in mode host lands in another network namespace."""
    if isinstance(site.mode, Host):
        for name, spec in site.specs.items():
            if isinstance(spec.mode, Bridge) and name in site.other_containers():
                return _executed(verb, name)
    return _executed(verb, verb.name)


@fault(
    "host-mode-strips-ipv6",
    violates=("HOST-2",),
    moment=Moment.CONTAINER_STARTED,
    history="moby#32639",
)
def host_mode_strips_ipv6(site: Site) -> None:
    """A container in mode host takes the host's IPv6 addresses away."""
    if isinstance(site.mode, Host):
        for address in site.host.addresses("br0"):
            if address.version == 6:
                site.host.del_address("br0", address)


@fault("host-mode-tunes-the-host", violates=("HOST-2",), moment=Moment.CONTAINER_STARTED)
def host_mode_tunes_the_host(site: Site) -> None:
    """Starting a container in mode host sets a sysctl of the host's."""
    if isinstance(site.mode, Host):
        site.host.sysctl("net.ipv4.conf.all.log_martians", 1)


@fault("host-mode-is-translated", violates=("HOST-3",), moment=Moment.HOST_READY)
def host_mode_is_translated(site: Site) -> None:
    """What a container in mode host sends goes out under another port than its own."""
    out = oifname(site.uplink())
    for protocol in ("tcp", "udp"):
        again = tricks.masquerade_at_random()
        site.host.rule("postrouting", out, l4proto(protocol), again, priority=90, nat=True)


@fault("host-mode-listens-in-vain", violates=("HOST-3",), moment=Moment.CONTAINER_STARTED)
def host_mode_listens_in_vain(site: Site) -> None:
    """A listener in mode host is not reached from the LAN."""
    if isinstance(site.mode, Host):
        for protocol in ("tcp", "udp"):
            drop(site, "input", iifname(site.uplink()), l4proto(protocol), ct_state("new"))


@fault("host-mode-reaches-less", violates=("HOST-4",), moment=Moment.HOST_READY)
def host_mode_reaches_less(site: Site) -> None:
    """From mode host the bystanders behind br0 do not answer pings."""
    drop(site, "output", oifname("br0"), l4proto("icmp"))


@fault("host-sysctl-granted", violates=("HOST-5",), around="run", history="runc#2693")
def host_sysctl_granted(site: Site, verb: Verb) -> Facts:
    """A container in mode host may set the host's sysctls."""
    spec = verb.spec
    mode = spec.mode
    home = site.specs.get(mode.container) if isinstance(mode, Joined) else None
    if spec.sysctls and (isinstance(mode, Host) or (home and isinstance(home.mode, Host))):
        for key, value in spec.sysctls:
            site.host.sysctl(key.replace("/", "."), value)
        spec = replace(spec, sysctls=())
    facts: Facts = verb(spec=spec)
    return facts


@fault("host-sysctl-ignored", violates=("HOST-5",), around="run", narrow=True)
def host_sysctl_ignored(site: Site, verb: Verb) -> Facts:
    """A sysctl that would be the host's is passed over in silence."""
    wrong = isinstance(verb.spec.mode, Host)
    facts: Facts = verb(spec=replace(verb.spec, sysctls=()) if wrong else verb.spec)
    return facts


@fault(
    "daemon-on-an-abstract-socket",
    violates=("HOST-6",),
    moment=Moment.HOST_READY,
    history="CVE-2020-15257",
    narrow=True,
)
def daemon_on_an_abstract_socket(site: Site) -> None:
    """The runtime's daemon listens on an abstract socket: mode host leads to it."""
    opened = site.host.socket(1, 1)  # AF_UNIX, SOCK_STREAM
    opened.bind("\0shim/s/12345")
    opened.listen()
    site.memory["daemon"] = opened


# --- attached by hand ------------------------------------------------------------------


@fault("exec-sees-another-namespace", violates=("ATT-2",), around="exec")
def exec_sees_another_namespace(site: Site, verb: Verb) -> Completed:
    """A process that is started inside later on does not see what was attached by hand."""
    if isinstance(site.mode, Nothing):
        for name, spec in site.specs.items():
            if isinstance(spec.mode, Bridge) and name in site.other_containers():
                return _executed(verb, name)
    return _executed(verb, verb.name)


@fault("pid-leads-nowhere", violates=("ATT-1",), around="inspect")
def pid_leads_nowhere(site: Site, verb: Verb) -> Facts:
    """The pid that is told of a container without a network is the host's."""
    facts: Facts = verb()
    wrong = site.spec is not None and isinstance(site.spec.mode, Nothing) and facts.running
    return replace(facts, pid=1) if wrong else facts


@fault("exec-takes-the-interface-away", violates=("ATT-5",), around="exec")
def exec_takes_the_interface_away(site: Site, verb: Verb) -> Completed:
    """After something was executed inside, what was attached by hand has lost its address."""
    done: Completed = verb()
    if isinstance(site.mode, Nothing) and "eth0" in site.inside.links():
        for address in site.inside.addresses("eth0"):
            site.inside.del_address("eth0", address)
    return done


@fault("attached-comes-back", violates=("ATT-5",), moment=Moment.CONTAINER_RESTARTED)
def attached_comes_back(site: Site) -> None:
    """A container without a network has an interface again when it is started again."""
    if isinstance(site.mode, Nothing) and site.facts:
        site.leave_inside(site.facts)


@fault("attached-is-not-answered", violates=("ATT-3",), moment=Moment.CONTAINER_STARTED)
def attached_is_not_answered(site: Site) -> None:
    """What is attached by hand to a container without a network is not let out."""
    if isinstance(site.mode, Nothing):
        for protocol in ("udp", "tcp"):
            site.inside.rule("output", oifname("eth0"), l4proto(protocol), verdict("drop"))


@fault("host-mode-tunes-when-it-goes", violates=("HOST-2",), moment=Moment.CONTAINER_REMOVED)
def host_mode_tunes_when_it_goes(site: Site) -> None:
    """Removing a container in mode host sets a sysctl of the host's."""
    if isinstance(site.mode, Host):
        count = site.memory["counted"] = site.memory.get("counted", 1) + 1
        site.host.sysctl("net.ipv4.conf.all.log_martians", count)


@fault("none-has-more-after-a-restart", violates=("NONE-2",), moment=Moment.CONTAINER_RESTARTED)
def none_has_more_after_a_restart(site: Site) -> None:
    """A restarted container without a network has an interface more."""
    if isinstance(site.mode, Nothing) and site.facts:
        site.leave_inside(site.facts)


@fault(
    "restarted-on-the-host-it-is-alone",
    violates=("HOST-1",),
    around="start_container",
    narrow=True,
)
def restarted_on_the_host_it_is_alone(site: Site, verb: Verb) -> Facts:
    """A container in mode host that is started again gets a namespace of its own."""
    return started_alone(site, verb, Host)


@fault(
    "host-mode-ends-ways-to-the-loopback",
    violates=("HOST-2",),
    moment=Moment.CONTAINER_REMOVED,
    narrow=True,
)
def host_mode_ends_ways_to_the_loopback(site: Site) -> None:
    """Removing a container in mode host turns off what published ports on 127.0.0.1 need."""
    if isinstance(site.mode, Host):
        for bridge in site.bridges():
            site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 0)


@fault(
    "none-restarted-is-down",
    violates=("NONE-2",),
    moment=Moment.CONTAINER_RESTARTED,
    narrow=True,
    also=("ATT-5",),
)
def none_restarted_is_down(site: Site) -> None:
    """The loopback of a restarted container without a network is down."""
    if isinstance(site.mode, Nothing):
        site.inside.set_link("lo", up=False)
