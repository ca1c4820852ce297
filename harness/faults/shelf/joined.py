"""A container that joins another: in some other namespace, with options that contradict it."""

from __future__ import annotations

from dataclasses import replace

from harness.adapters.protocol import Facts, RuntimeRefused
from harness.faults.acts import started_alone, whom_it_joined
from harness.faults.catalogue import Moment, fault
from harness.faults.site import Site
from harness.faults.tricks import DROP
from harness.faults.verb import Verb
from harness.model import DEFAULT_NETWORK, Bridge, Host, Joined, Nothing
from linux import rtnl
from linux.nft import ct_dnat, dport, iifname, l4proto, verdict


@fault("joiner-is-alone", violates=("CTR-1", "CTR-2", "CTR-3", "CTR-4", "CTR-8"), around="run")
def joiner_is_alone(site: Site, verb: Verb) -> Facts:
    """Who joins a container gets a namespace of its own, with nothing in it."""
    wrong = isinstance(verb.spec.mode, Joined)
    facts: Facts = verb(spec=replace(verb.spec, mode=Nothing()) if wrong else verb.spec)
    return facts


@fault("joiner-is-a-peer", violates=("CTR-1", "CTR-2", "CTR-3", "CTR-4"), around="run")
def joiner_is_a_peer(site: Site, verb: Verb) -> Facts:
    """Who joins a container is merely put on its network."""
    spec = verb.spec
    home = site.specs.get(getattr(spec.mode, "container", ""))
    if home is not None and isinstance(home.mode, Bridge):
        spec = replace(spec, mode=home.mode)
    facts: Facts = verb(spec=spec)
    return facts


@fault("joiner-is-the-hosts", violates=("CTR-1",), around="run")
def joiner_is_the_hosts(site: Site, verb: Verb) -> Facts:
    """Who joins a container is in the host's namespace."""
    wrong = isinstance(verb.spec.mode, Joined)
    facts: Facts = verb(spec=replace(verb.spec, mode=Host()) if wrong else verb.spec)
    return facts


@fault("joiners-joiner-is-alone", violates=("CTR-8",), around="run", narrow=True)
def joiners_joiner_is_alone(site: Site, verb: Verb) -> Facts:
    """Joining works once, not twice."""
    home = site.specs.get(getattr(verb.spec.mode, "container", ""))
    wrong = home is not None and isinstance(home.mode, Joined)
    facts: Facts = verb(spec=replace(verb.spec, mode=Nothing()) if wrong else verb.spec)
    return facts


@fault(
    "common-loopback-filtered",
    violates=("CTR-4",),
    moment=Moment.CONTAINER_STARTED,
)
def common_loopback_filtered(site: Site) -> None:
    """On the loopback of a namespace that two share nothing passes."""
    if isinstance(site.mode, Joined):
        for protocol in ("tcp", "udp"):
            site.inside.rule("input", iifname("lo"), l4proto(protocol), verdict("drop"))


@fault("joiner-reports-the-joined-ones-process", violates=("CTR-5",), around="inspect")
def joiner_reports_the_joined_ones_process(site: Site, verb: Verb) -> Facts:
    """Processes and files of a joiner are those of the container that it has joined."""
    facts: Facts = verb()
    spec = site.specs.get(facts.name)
    if spec and isinstance(spec.mode, Joined) and facts.running:
        home = site.runtime.inspect(spec.mode.container)
        return replace(facts, pid=home.pid or facts.pid)
    return facts


@fault("joining-nobody", violates=("CTR-6",), around="run")
def joining_nobody(site: Site, verb: Verb) -> Facts:
    """Joining a container that is not there, or does not run, means having no network."""
    try:
        facts: Facts = verb()
    except RuntimeRefused:
        if not isinstance(verb.spec.mode, Joined):
            raise
        facts = verb(spec=replace(verb.spec, mode=Nothing()))
    return facts


@fault(
    "joining-refused-without-a-name",
    violates=("CTR-6",),
    around="run",
    narrow=True,
    also=("CTR-7", "LIFE-2"),
)
def joining_refused_without_a_name(site: Site, verb: Verb) -> Facts:
    """The refusal to join does not say whom."""
    try:
        facts: Facts = verb()
    except RuntimeRefused as refused:
        if isinstance(verb.spec.mode, Joined):
            raise RuntimeRefused(refused.asked, "no such container") from refused
        raise
    return facts


@fault("contradictions-accepted", violates=("CTR-7",), around="run", narrow=True)
def contradictions_accepted(site: Site, verb: Verb) -> Facts:
    """Options that contradict joining are passed over in silence."""
    spec = verb.spec
    if isinstance(spec.mode, Joined):
        spec = replace(spec, ports=(), mac=None, ip=None, hostname=None, dns=(), hosts=())
    facts: Facts = verb(spec=spec)
    return facts


@fault("contradictions-refused-in-general", violates=("CTR-7",), around="run", narrow=True)
def contradictions_refused_in_general(site: Site, verb: Verb) -> Facts:
    """The refusal of an option that contradicts joining does not say which."""
    try:
        facts: Facts = verb()
    except RuntimeRefused as refused:
        if isinstance(verb.spec.mode, Joined):
            said = f"conflicting options for {verb.spec.mode.container}"
            raise RuntimeRefused(refused.asked, said) from refused
        raise
    return facts


@fault("joiner-keeps-more", violates=("CTR-9",), moment=Moment.CONTAINER_STOPPED)
def joiner_keeps_more(site: Site) -> None:
    """When the joined container stops its joiner is left with more than is declared."""
    for name, facts in site.other_containers().items():
        if getattr(site.specs[name].mode, "container", "") == site.name:
            site.leave_inside(facts)


@fault("one-contradiction-accepted", violates=("CTR-7",), around="run", narrow=True)
def one_contradiction_accepted(site: Site, verb: Verb) -> Facts:
    """Of the options that contradict joining one, a resolver, is passed over in silence."""
    wrong = isinstance(verb.spec.mode, Joined)
    facts: Facts = verb(spec=replace(verb.spec, dns=()) if wrong else verb.spec)
    return facts


@fault("joiner-takes-the-ports-along", violates=("CTR-9",), moment=Moment.BEFORE_REMOVE)
def joiner_takes_the_ports_along(site: Site) -> None:
    """When a joiner is removed nobody reaches the published ports of whom it joined."""
    if isinstance(site.mode, Joined) and site.specs[site.mode.container].ports:
        site.host.rule("forward", ct_dnat(), DROP)


@fault("joiner-takes-the-names-along", violates=("CTR-9",), moment=Moment.BEFORE_REMOVE)
def joiner_takes_the_names_along(site: Site) -> None:
    """When a joiner is removed whom it joined cannot ask for names any more."""
    home = site.specs.get(getattr(site.mode, "container", ""))
    if home and isinstance(home.mode, Bridge) and home.mode.network != DEFAULT_NETWORK:
        for protocol in ("udp", "tcp"):
            site.inside.rule("output", l4proto(protocol), dport(53), DROP)


@fault("restarted-joiner-is-alone", violates=("CTR-1",), around="start_container", narrow=True)
def restarted_joiner_is_alone(site: Site, verb: Verb) -> Facts:
    """A joiner that is started again gets a namespace of its own, with nothing in it."""
    return started_alone(site, verb, Joined)


@fault("joiner-keeps-its-resolver", violates=("DNS-1", "CTR-1"), moment=Moment.DISCONNECTED)
def joiner_keeps_its_resolver(site: Site) -> None:
    """A joiner is told of a resolver that went with a network of the joined one's."""
    for name, facts in site.other_containers().items():
        if getattr(site.specs[name].mode, "container", "") == site.name:
            path = f"{site.world_host.proc}/{facts.pid}/root/etc/resolv.conf"
            with open(path, "w", encoding="utf-8") as file:
                file.write("nameserver 192.0.2.250\noptions timeout:1 attempts:1\n")


@fault(
    "stopped-joiner-takes-the-route-along",
    violates=("CTR-9",),
    moment=Moment.CONTAINER_STOPPED,
    narrow=True,
)
def stopped_joiner_takes_the_route_along(site: Site) -> None:
    """When a joiner stops whom it joined loses its way out."""
    if facts := whom_it_joined(site):
        for endpoint in facts.endpoints:
            for gateway in site.runtime.network_facts(endpoint.network).gateways:
                site.ground(facts).ensure(rtnl.del_route(None, via=gateway.ip))
