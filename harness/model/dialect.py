"""The documented choices in which runtimes legitimately differ.

A runtime declares its dialect; the suites hold it to what it declared. Each
field says what it means and which requirement rows depend on it. Defaults are
mydocker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Literal

DESCRIPTION_SUFFIX: Final = ".toml"


def split_runtime_name(name: str) -> tuple[str, str, str]:
    """An adapter's name or a file's path, which may have an `@` in it, and a prefix."""
    path, at, prefix = name.rpartition(f"{DESCRIPTION_SUFFIX}@")
    if name.endswith(DESCRIPTION_SUFFIX):
        return name, "", ""
    return (path + DESCRIPTION_SUFFIX, "@", prefix) if at else name.partition("@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One runtime's documented choices."""

    default_network: Literal["bridge", "pasta", "slirp4netns"] = "bridge"
    """What a container gets that asks for nothing: a port of the default bridge, or a tap of its
    own behind a process in user space, under the host's addresses (`pasta`) or under ones
    that all containers have alike (`slirp4netns`) (UM-1 to UM-5)."""
    bridges: Literal["host", "pasta", "slirp4netns"] = "host"
    """Where the bridges of networks are: in the host, or in a namespace of an ordinary user's
    that is itself behind a process in user space (UM-6)."""
    beyond6: Literal["reached", "unreachable"] = "reached"
    """Whether bridges that are in such a namespace lead over IPv6 to what is beyond it: the
    host, and the rest of the world (UM-6, PUB-4, PUB-5). Who calls a published port by IPv6
    gets to them with either."""
    bridge_name: str | None = "docker0"
    """Interface name of the default bridge; `None`: not documented."""
    bridge_address: IPv4Interface | None = IPv4Interface("172.17.42.1/16")
    """Address of the default bridge (BR-1, BR-2); `None`: not documented."""
    bridge_address6: IPv6Interface | None = None
    """IPv6 address of the default bridge; `None`: the default network has no IPv6 (V6-3)."""
    mac: Literal["from-address", "random", "stable"] = "from-address"
    """How a MAC comes about (BR-11): 02:42 and the IPv4 address, drawn, or by name."""
    mtu: int | Literal["inherit"] = 1500
    """MTU of a network without an MTU option (BR-12), in bytes, or the uplink's."""
    address_reuse: Literal["lowest", "next"] = "lowest"
    """Whether a freed address is given out again at once or the counter goes on (BR-10)."""
    none_loopback: bool = True
    """Whether `lo` is up in mode none (NONE-2, NONE-4)."""
    none_loopback6: bool = True
    """Whether `::1` is there in mode none (NONE-6)."""
    bridge_loopback6: bool = True
    """Whether `::1` is there in a container on a network without IPv6 (BR-1)."""
    none_resolver: bool = True
    """Whether `/etc/resolv.conf` names the host's resolvers in mode none, for a container that
    is attached by hand later on (ATT-3)."""
    none_publish: Literal["refused", "warned"] = "refused"
    """What becomes of a port published in mode none (NONE-7)."""
    host_publish: Literal["refused", "warned"] = "refused"
    """What becomes of a port published in mode host (HOST-7)."""
    joined_hostname: Literal["shared", "own"] = "own"
    """Whether a joiner shares the joined container's UTS namespace (CTR-5)."""
    joined_refuses: frozenset[str] = frozenset(
        {"publish", "mac", "ip", "hostname", "dns", "add-host"}
    )
    """Options that are refused by name with container:<id> (CTR-7)."""
    joining_stopped: Literal["refused", "starts-it"] = "refused"
    """What becomes of joining a container that does not run (CTR-6)."""
    joined_survives: Literal["loopback-only", "keeps-network", "refused", "ends"] = "keeps-network"
    """What a joiner has left once the joined container stopped (CTR-9): with `ends` nothing, it
    stops too."""
    direct_routing: Literal["drop", "reject", "accept"] = "drop"
    """What meets a packet from outside to an unpublished container's address (BR-9)."""
    direct_routing6: Literal["drop", "reject", "accept"] | None = None
    """The same for IPv6 (BR-9, V6-1), where it is not as for IPv4."""
    isolation: Literal["networks", "none"] = "networks"
    """How networks are kept apart (NET-2): `networks`, another network's gateway address
    stays reachable as an address of the host, its containers do not; `none`, they do."""
    masquerade_to_bystanders: bool = True
    """Whether traffic to other networks behind the host is masqueraded too: to ns1 and ns2
    (BR-6), and, where nothing keeps them apart, to the runtime's other networks (NET-2)."""
    attached_masquerade: bool = True
    """Whether what is attached to a network by hand is masqueraded too, because the network's
    subnet is (ATT-3, ATT-4), or only what the runtime itself has put there."""
    loopback_ports: Literal["host-only", "neighbours-too"] = "host-only"
    """Who reaches a port published on 127.0.0.1 (PUB-3): `neighbours-too`, a neighbour on the
    LAN that forges frames does, as with Docker before 28."""
    published_across: Literal["reachable", "unreachable"] = "reachable"
    """Whether a container reaches a port that one on another network publishes, through the
    host's address (PUB-5)."""
    published_source: Literal["client", "gateway", "own"] = "client"
    """Whose address a container sees when somebody on the LAN calls its published port
    (PUB-6), and where somebody listens on the host in its place also when a container does
    (PUB-4): the caller's own, that of the container's gateway, or the container's own, from
    which whoever listens on the host in its place makes a connection of its own."""
    published6: Literal["own-family", "ipv4"] = "own-family"
    """At which of its addresses a container that has both families hears who calls its
    published port by IPv6 (PUB-12): at that of the same family, or at its IPv4 address."""
    hairpin_source: Literal["client", "gateway"] = "gateway"
    """Whose address a container sees when a peer on its network calls its published port by
    the host's address (PUB-4). Its own calls are the gateway's with either: the kernel takes
    no packet from outside that comes from its own address. Where somebody listens on the host
    in the container's place, that is of no account: they are seen as any other caller is."""
    network_resolver: Literal["reached", "unreachable"] = "reached"
    """Whether a container on a user-defined network reaches the resolver that its resolv.conf
    names. `unreachable` breaks BR-8, whose tests ask for names whatever is declared; it is
    declared for the sake of the other rows, whose tests look at the whole matrix."""
    gateway_ports: tuple[int, ...] = ()
    """Ports of a user-defined network's gateway that are the runtime's own: its resolver's
    (BR-5)."""
    hostname: Literal["short-id", "name"] = "short-id"
    """What `/etc/hostname` says where nobody asked otherwise (FILE-1)."""
    hosts_base: Literal["none", "host"] = "none"
    """Whether `/etc/hosts` begins with what the host's has (FILE-1), but for the loopback's
    names, which are everybody's own."""
    hosts_names: frozenset[Literal["hostname", "name", "aliases"]] = frozenset({"hostname"})
    """Which of its own names stand at a container's address in its `/etc/hosts` (FILE-1)."""
    peer_names: frozenset[Literal["short-id", "hostname", "reverse"]] = frozenset(
        {"short-id", "hostname", "reverse"}
    )
    """What leads to a container on a user-defined network besides its name and aliases, and
    whether its address leads back to its name (NET-4)."""
    spoofing: Literal["open", "contained"] = "open"
    """Whether a container that claims a peer's or the gateway's address, by ARP or neighbour
    discovery, gets what its peers send there (L2-1): `open`, it does."""
    spoofing6: Literal["open", "contained"] | None = None
    """The same for IPv6, where it is not as for IPv4."""
    removing_absent: Literal["refused", "ignored"] = "refused"
    """What becomes of removing a container that is not there, or not any more (LIFE-5)."""
    stopping_stopped: Literal["refused", "ignored"] = "ignored"
    """What becomes of stopping a container that does not run (LIFE-5)."""
    crash: Literal["keeps-network", "stops"] = "keeps-network"
    """What becomes of running containers when the runtime itself is killed (LIFE-6)."""
    execs: Literal["go-on", "end"] = "go-on"
    """What becomes of who is executed in when the runtime itself is killed: `end`, they do, and
    nobody can be executed in until it is back. Who can be looked into by exec alone is looked at
    then (LIFE-6)."""
    taken_mac: Literal["refused", "given"] = "refused"
    """What becomes of a start that asks for a MAC that a container on the network has (NET-5)."""
    restart_address: Literal["kept", "renewed"] = "renewed"
    """Whether a stopped container's address stays its own until it is started again, or is
    free meanwhile and a container that starts gets one anew (LIFE-7)."""
    router6: Literal["kept", "cut-off"] = "kept"
    """What becomes of the IPv6 packets that the host forwards for others. `cut-off` breaks
    BYS-2, whose tests ask for `kept` whatever is declared; it is declared for the sake of the
    other rows, whose tests look at the whole matrix."""
    repair: Literal["whole", "in-part"] = "whole"
    """What the documented repair brings back after a flush of the firewall. `in-part` breaks
    BYS-3 or BYS-1, whose test asks for all of it whatever is declared; it is declared for the
    sake of histories, which go on after a flush."""
    host_bits: Literal["refused", "ignored"] = "refused"
    """What becomes of a subnet that is asked for by an address in it, as in 172.30.16.5/20
    (NET-7)."""
    forwarding: Literal["enabled", "left-alone"] = "enabled"
    """What becomes of the host's ip_forward when it is off (BYS-4)."""
    tables: tuple[str, ...] = ("inet mydocker",)
    """The nft tables whose rules are the runtime's own affair while containers run (BYS-1)."""
    made_by_start: tuple[str, ...] = ()
    """What starting the runtime makes in a host, and keeps there (BYS-4): patterns as in
    `residue`."""
    residue: tuple[str, ...] = (
        "link docker0",
        "address * of docker0",
        "route * of docker0 in *",
        "nft table inet mydocker",
        "nft chain inet mydocker *",
        "nft rule inet mydocker * bridge: *",
        "sysctl net.ipv4.ip_forward",
        "sysctl net.ipv4.conf.*.forwarding",
        "sysctl net.ipv6.conf.*.forwarding",
        # Of a link with a default route by router advertisement (BYS-5); never `all` or `default`.
        "sysctl net.ipv6.conf.eth*.accept_ra",
        # What the kernel does of itself to a host that begins to forward.
        "sysctl net.ipv4.conf.all.accept_redirects",
        "route *::/128 of * in table 255, *",
    )
    """What stays in the host after its first use (LIFE-1, BYS-1, BYS-4): shell patterns of
    the names that things have in a violation, such as `link docker0`."""
    datapath: Literal["kernel", "user-space"] = "kernel"
    """User-space datapaths get a longer window before silence is final."""
    own_stack: bool = False
    """A network stack of its own (gVisor, VMs): only the exec probe can tell."""

    def direct(self, family: Literal[4, 6]) -> Literal["drop", "reject", "accept"]:
        """`direct_routing` of one family."""
        return (self.direct_routing6 if family == 6 else None) or self.direct_routing

    def claims(self, family: Literal[4, 6]) -> Literal["open", "contained"]:
        """`spoofing` of one family."""
        return (self.spoofing6 if family == 6 else None) or self.spoofing

    fleeting: tuple[str, ...] = ()
    """What ends by itself a while after a verb of the runtime has returned (BYS-1): patterns
    as in `residue`, such as `process * (conmon)`."""
    traces: Literal["forgotten", "left"] = "forgotten"
    """What becomes of the host's flows and neighbours of an address whose container is gone
    (LIFE-1): forgotten with it, or left there until the kernel's own time is up."""
