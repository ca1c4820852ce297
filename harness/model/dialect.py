"""The documented choices in which runtimes may differ.

A runtime's adapter declares the runtime's dialect, and the suites check the runtime against it.
Each field states its meaning and the requirements that depend on it. The default values are those
of the runtime mydocker.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Literal

DESCRIPTION_SUFFIX: Final = ".toml"


def split_runtime_name(name: str) -> tuple[str, str, str]:
    """Split `name` at its `@` into the adapter's name, the `@`, and the prefix after it.

    The path of a TOML file may stand in place of the adapter's name, and may itself contain an `@`.
    Without a prefix the last two strings are empty.
    """
    path, at, prefix = name.rpartition(f"{DESCRIPTION_SUFFIX}@")
    if name.endswith(DESCRIPTION_SUFFIX):
        return name, "", ""
    return (path + DESCRIPTION_SUFFIX, "@", prefix) if at else name.partition("@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One runtime's documented choices."""

    default_network: Literal["bridge", "pasta", "slirp4netns"] = "bridge"
    """Interface of a container that names no network: a port of the default bridge, or its own tap
    behind a user-space process. The tap has the host's addresses (`pasta`) or addresses that are
    the same in all containers (`slirp4netns`) (UM-1 to UM-5)."""
    bridges: Literal["host", "pasta", "slirp4netns"] = "host"
    """Netns of the networks' bridges: the host's, or one of an ordinary user that is itself behind
    a user-space process (UM-6)."""
    beyond6: Literal["reached", "unreachable"] = "reached"
    """Whether containers on bridges in such a netns reach the host and the rest of the world over
    IPv6 (UM-6, PUB-4, PUB-5). IPv6 clients of a published port reach the container with either
    value."""
    bridge_name: str | None = "docker0"
    """Interface name of the default bridge; `None`: not documented."""
    bridge_address: IPv4Interface | None = IPv4Interface("172.17.42.1/16")
    """Address of the default bridge (BR-1, BR-2); `None`: not documented."""
    bridge_address6: IPv6Interface | None = None
    """IPv6 address of the default bridge; `None`: the default network has no IPv6 (V6-3)."""
    mac: Literal["from-address", "random", "stable"] = "from-address"
    """Origin of a container's MAC (BR-11): 02:42 followed by the IPv4 address, a random MAC, or one
    derived from the container's name."""
    mtu: int | Literal["inherit"] = 1500
    """MTU of a network without an MTU option (BR-12): a number of bytes, or `inherit` for the
    uplink's MTU."""
    address_reuse: Literal["lowest", "next"] = "lowest"
    """Whether a new container gets the lowest free address, or the one after the last address that
    was assigned (BR-10)."""
    none_loopback: bool = True
    """Whether `lo` is up in mode none (NONE-2, NONE-4)."""
    none_loopback6: bool = True
    """Whether `lo` has `::1` in mode none (NONE-6)."""
    bridge_loopback6: bool = True
    """Whether `lo` has `::1` in a container on a network without IPv6 (BR-1)."""
    none_resolver: bool = True
    """Whether `/etc/resolv.conf` names the host's resolvers in mode none, for a container that
    is attached by hand later on (ATT-3)."""
    none_publish: Literal["refused", "warned"] = "refused"
    """Treatment of a port published in mode none (NONE-7)."""
    host_publish: Literal["refused", "warned"] = "refused"
    """Treatment of a port published in mode host (HOST-7)."""
    joined_hostname: Literal["shared", "own"] = "own"
    """Whether a joining container shares the joined container's UTS namespace (CTR-5)."""
    joined_refuses: frozenset[str] = frozenset(
        {"publish", "mac", "ip", "hostname", "dns", "add-host"}
    )
    """Names of the options that the runtime refuses in mode container:<id> (CTR-7)."""
    joining_stopped: Literal["refused", "starts-it"] = "refused"
    """Result of joining a container that does not run (CTR-6)."""
    joined_survives: Literal["loopback-only", "keeps-network", "refused", "ends"] = "keeps-network"
    """Network of a joining container once the joined container has stopped (CTR-9); with `ends`
    the joining container stops too."""
    direct_routing: Literal["drop", "reject", "accept"] = "drop"
    """Treatment of a packet from outside to a container's address and unpublished port (BR-9)."""
    direct_routing6: Literal["drop", "reject", "accept"] | None = None
    """`direct_routing` for IPv6 (BR-9, V6-1); `None`: as for IPv4."""
    isolation: Literal["networks", "none"] = "networks"
    """Isolation between networks (NET-2). With `networks`, another network's gateway address is
    reachable, as an address of the host, but its containers are not; with `none`, they are."""
    masquerade_to_bystanders: bool = True
    """Whether traffic to other networks behind the host is masqueraded too: to ns1 and ns2
    (BR-6) and, without isolation, to the runtime's other networks (NET-2)."""
    attached_masquerade: bool = True
    """Whether a container attached to a network by hand is masqueraded too, because the whole
    subnet is (ATT-3, ATT-4), or only containers that the runtime itself has connected."""
    loopback_ports: Literal["host-only", "neighbours-too"] = "host-only"
    """Clients that reach a port published on 127.0.0.1 (PUB-3). With `neighbours-too`, a LAN
    neighbour that forges frames reaches it, as with Docker before 28."""
    published_across: Literal["reachable", "unreachable"] = "reachable"
    """Whether a container reaches, through the host's address, a published port of a container on
    another network (PUB-5)."""
    published_source: Literal["client", "gateway", "own"] = "client"
    """Sender that a container sees when a LAN client connects to its published port (PUB-6): the
    client, the container's gateway, or the container's own address. The last means that a proxy
    listens on the host and opens a second connection from that address. With a proxy this
    address is also the sender when the client is a container (PUB-4)."""
    published6: Literal["own-family", "ipv4"] = "own-family"
    """Address at which a dual-stack container receives IPv6 connections to its published port
    (PUB-12): the one of the same family, or its IPv4 address."""
    hairpin_source: Literal["client", "gateway"] = "gateway"
    """Sender that a container sees when a peer on its network connects to its published port
    through the host's address (hairpin, PUB-4). Connections from the container itself come from
    the gateway with either value: the kernel accepts no packet from outside whose source is its
    own address. With a proxy on the host this field has no effect: peers look like any client."""
    network_resolver: Literal["reached", "unreachable"] = "reached"
    """Whether a container on a user-defined network reaches the resolver in its resolv.conf.
    `unreachable` breaks BR-8, whose tests send DNS queries whatever is declared. It is declared
    for the other requirements, whose tests compare the whole matrix."""
    gateway_ports: tuple[int, ...] = ()
    """Ports of a user-defined network's gateway that the runtime itself uses, for its resolver
    (BR-5)."""
    hostname: Literal["short-id", "name"] = "short-id"
    """Default content of `/etc/hostname` (FILE-1)."""
    hosts_base: Literal["none", "host"] = "none"
    """Whether `/etc/hosts` begins with the entries of the host's file (FILE-1), except for the
    loopback names, which every container has of itself."""
    hosts_names: frozenset[Literal["hostname", "name", "aliases"]] = frozenset({"hostname"})
    """Names that a container's `/etc/hosts` lists for its own address (FILE-1)."""
    peer_names: frozenset[Literal["short-id", "hostname", "reverse"]] = frozenset(
        {"short-id", "hostname", "reverse"}
    )
    """DNS names of a container on a user-defined network besides its name and aliases, and
    whether a reverse query for its address returns its name (NET-4)."""
    spoofing: Literal["open", "contained"] = "open"
    """Whether a container that claims a peer's or the gateway's address, by ARP or neighbour
    discovery, receives the packets that its peers send there (L2-1): with `open` it does."""
    spoofing6: Literal["open", "contained"] | None = None
    """`spoofing` for IPv6; `None`: as for IPv4."""
    removing_absent: Literal["refused", "ignored"] = "refused"
    """Result of removing a container that does not exist, or no longer exists (LIFE-5)."""
    stopping_stopped: Literal["refused", "ignored"] = "ignored"
    """Result of stopping a container that does not run (LIFE-5)."""
    crash: Literal["keeps-network", "stops"] = "keeps-network"
    """Fate of running containers when the runtime itself is killed (LIFE-6)."""
    execs: Literal["go-on", "end"] = "go-on"
    """Fate of exec sessions when the runtime itself is killed. With `end` they end, and exec fails
    until the runtime is back. Containers that only exec can probe are probed then (LIFE-6)."""
    taken_mac: Literal["refused", "given"] = "refused"
    """Result of a start with a MAC that another container on the network has (NET-5)."""
    restart_address: Literal["kept", "renewed"] = "renewed"
    """Whether a stopped container keeps its address until its next start, or the address is free
    meanwhile and each start assigns a new one (LIFE-7)."""
    router6: Literal["kept", "cut-off"] = "kept"
    """Fate of IPv6 packets that the host forwards for its own networks. `cut-off` breaks BYS-2,
    whose tests demand `kept` whatever is declared. It is declared for the other requirements, whose
    tests compare the whole matrix."""
    repair: Literal["whole", "in-part"] = "whole"
    """Rules that the documented repair restores after a flush of the firewall. `in-part` breaks
    BYS-3 or BYS-1, whose tests demand all rules whatever is declared. It is declared for
    histories, which continue after a flush."""
    host_bits: Literal["refused", "ignored"] = "refused"
    """Treatment of a subnet given as an address with host bits, such as 172.30.16.5/20 (NET-7)."""
    forwarding: Literal["enabled", "left-alone"] = "enabled"
    """Treatment of the host's ip_forward when it is off (BYS-4)."""
    tables: tuple[str, ...] = ("inet mydocker",)
    """The nft tables whose rules the runtime may change while containers run (BYS-1)."""
    made_by_start: tuple[str, ...] = ()
    """Resources that the runtime creates in a host when it starts, and keeps (BYS-4): patterns as
    in `residue`."""
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
        # The kernel sets these by itself when a host begins to forward.
        "sysctl net.ipv4.conf.all.accept_redirects",
        "route *::/128 of * in table 255, *",
    )
    """Resources that stay in the host after the runtime's first use (LIFE-1, BYS-1, BYS-4): shell
    patterns of the names in a violation, such as `link docker0`."""
    datapath: Literal["kernel", "user-space"] = "kernel"
    """Whether the datapath is in user space; probes then wait longer before they report a drop."""
    own_stack: bool = False
    """Whether containers have their own network stack (gVisor, VMs): only exec probes see it."""

    def direct(self, family: Literal[4, 6]) -> Literal["drop", "reject", "accept"]:
        """Return the value of `direct_routing` for one address family."""
        return (self.direct_routing6 if family == 6 else None) or self.direct_routing

    def claims(self, family: Literal[4, 6]) -> Literal["open", "contained"]:
        """Return the value of `spoofing` for one address family."""
        return (self.spoofing6 if family == 6 else None) or self.spoofing

    fleeting: tuple[str, ...] = ()
    """Processes and resources that end by themselves soon after a verb of the runtime has returned
    (BYS-1): patterns as in `residue`, such as `process * (conmon)`."""
    traces: Literal["forgotten", "left"] = "forgotten"
    """Fate of the host's flows and neighbours of an address whose container is gone (LIFE-1):
    removed with the container, or left until the kernel expires them."""
