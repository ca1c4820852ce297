"""Docker, with dockerd and containerd as separate daemons in the host: https://docs.docker.com.

The adapter starts containerd beside dockerd. If dockerd started it, that would take a second
longer. Live restore is on, so that containers outlive a killed daemon
(https://docs.docker.com/engine/daemon/live-restore/).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.adapters.docker_cli.spec import CliSpec, CliVerbs
from harness.adapters.support import options, rootless
from harness.adapters.support.daemon import DaemonSpec
from harness.model.features import Feature

HOME: Final = "/run/netmodes/docker"
"""The directory of Docker's configuration, in the host."""
_SOCKET: Final = "/run/docker.sock"
_CONTAINERD: Final = "/run/containerd/containerd.sock"
CONTAINERD_CONF: Final = (
    f"{HOME}/containerd.toml",
    'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
)
"""containerd's configuration file: path and content."""
# Before Docker 27 an IPv6 network needs a pool for its subnet, and its rules need the
# experimental ip6tables: https://docs.docker.com/engine/daemon/ipv6/. A list of pools replaces
# the built-in one, so the built-in IPv4 pools are repeated here.
_FIRST: Final = tuple({"base": f"172.{number}.0.0/16", "size": 16} for number in range(17, 32))
_LAST: Final = ("192.168.0.0/16",)
# Each pool is one subnet: Docker 26 splits a larger IPv6 pool into identical subnets.
_IPV6: Final = tuple({"base": f"fd00:d0c:0:{number:x}::/64", "size": 64} for number in range(32))


def daemon_conf(last: Sequence[str] = _LAST, **more: object) -> str:
    """Return the content of daemon.json; `last` are the address pools after those of 172.x."""
    conf = {
        "live-restore": True,
        "experimental": True,
        "ip6tables": True,
        "default-address-pools": (*_FIRST, *({"base": base, "size": 20} for base in last), *_IPV6),
        **more,
    }
    return json.dumps(conf)


SPEC: Final = CliSpec(
    name="docker",
    command=("docker",),
    cgroups=True,
    features=options.FEATURES,
    words=CliVerbs(inspect=("container", "inspect")),
    daemons=(
        DaemonSpec(
            command=("containerd", "--config", f"{HOME}/containerd.toml"), socket=_CONTAINERD
        ),
        DaemonSpec(
            command=(
                *("dockerd", "--config-file", f"{HOME}/daemon.json"),
                *("--containerd", _CONTAINERD, "--host", f"unix://{_SOCKET}"),
            ),
            socket=_SOCKET,
        ),
    ),
    env=(("DOCKER_HOST", f"unix://{_SOCKET}"), ("DOCKER_CONFIG", f"{HOME}/cli")),
    files=(
        CONTAINERD_CONF,
        (f"{HOME}/daemon.json", daemon_conf()),
    ),
    scratch=("/var/lib",),
    programs=("runc", "docker-proxy", "iptables"),
    install="apt-get install docker.io docker-cli containerd runc iptables",
    shortest_name=2,  # "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", says dockerd
)

# --- by an ordinary user: https://docs.docker.com/engine/security/rootless/ ----------------
# The same as dockerd-rootless.sh, which not every distribution has. Mode host is not declared,
# because its netns is that of rootlesskit. SCTP is not declared, because rootlesskit does not
# forward it.

_STATE: Final = f"{rootless.RUN}/dockerd-rootless"
_ROOTLESS_SOCKET: Final = f"{rootless.RUN}/docker.sock"
_ROOTLESS_CONF: Final = f"{rootless.HOME}/daemon.json"
# All of 192.168.0.0/16 except the first /20, which contains br0. dockerd does not see br0 from
# its namespace (docs/findings.md), so a network in this /20 would not reach ns1. Tests that
# request a subnet of the host cover that as well.
_LAST_BUT_BR0: Final = ("192.168.16.0/20", "192.168.32.0/19", "192.168.64.0/18", "192.168.128.0/17")
ROOTLESS: Final = replace(
    SPEC,
    name="docker-rootless",
    kin=("docker", "docker-rootless"),
    rootless=True,
    cgroups=False,
    bridges_at=(f"{_STATE}/child_pid", "ns/net"),
    features=options.FEATURES - {Feature.BRIDGE, Feature.HOST, Feature.SCTP},
    daemons=(
        DaemonSpec(
            command=rootless.command(
                (
                    *("rootlesskit", f"--state-dir={_STATE}", "--net=slirp4netns", "--mtu=65520"),
                    *("--slirp4netns-sandbox=false", "--slirp4netns-seccomp=false"),
                    *("--disable-host-loopback", "--port-driver=builtin"),
                    *("--copy-up=/etc", "--copy-up=/run", "--propagation=rslave"),
                    *("dockerd", "--rootless", "--config-file", _ROOTLESS_CONF),
                    *("--data-root", "/var/lib/docker", "--exec-root", f"{rootless.RUN}/docker"),
                    *("--pidfile", f"{rootless.RUN}/docker.pid"),
                    *("--host", f"unix://{_ROOTLESS_SOCKET}"),
                )
            ),
            socket=_ROOTLESS_SOCKET,
        ),
    ),
    env=(("DOCKER_HOST", f"unix://{_ROOTLESS_SOCKET}"),),
    files=((_ROOTLESS_CONF, daemon_conf(_LAST_BUT_BR0)),),
    programs=("rootlesskit", "dockerd", "containerd", "runc", "slirp4netns", "iptables"),
    install="apt-get install docker.io docker-cli rootlesskit slirp4netns uidmap iptables",
)
