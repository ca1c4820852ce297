"""Docker: its own dockerd and containerd in the host, https://docs.docker.com.

containerd is started beside dockerd rather than by it, which takes a second less. Live
restore is on, so that containers outlive a daemon that is killed
(https://docs.docker.com/engine/daemon/live-restore/).
"""

from __future__ import annotations

import json
from typing import Final

from harness.adapters.cli_spec import CliSpec, Daemon, Words
from harness.adapters.protocol import Feature
from linux.protocols import spoken

# docker-proxy needs sockets of what it publishes, and not every kernel has those of SCTP.
_NOT_HERE: Final = set() if spoken("SCTP") else {Feature.SCTP}
FEATURES: Final = frozenset(Feature) - {Feature.MACVLAN, Feature.USER_MODE} - _NOT_HERE

_HOME: Final = "/run/netmodes/docker"
_SOCKET: Final = "/run/docker.sock"
_CONTAINERD: Final = "/run/containerd/containerd.sock"
_CONTAINERD_CONF: Final = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
# Before 27 an IPv6 network needs a pool to take its subnet from, and its rules the
# experimental ip6tables: https://docs.docker.com/engine/daemon/ipv6/. Who names pools
# names all of them: the IPv4 ones are those that are built in.
_POOLS: Final = (
    *({"base": f"172.{number}.0.0/16", "size": 16} for number in range(17, 32)),
    {"base": "192.168.0.0/16", "size": 20},
    # One by one: 26 splits an IPv6 pool into subnets that are all the same.
    *({"base": f"fd00:d0c:0:{number:x}::/64", "size": 64} for number in range(32)),
)
_DAEMON_CONF: Final = {
    "live-restore": True,
    "experimental": True,
    "ip6tables": True,
    "default-address-pools": _POOLS,
}

SPEC: Final = CliSpec(
    name="docker",
    command=("docker",),
    features=FEATURES,
    words=Words(inspect=("container", "inspect")),
    daemons=(
        Daemon(command=("containerd", "--config", f"{_HOME}/containerd.toml"), socket=_CONTAINERD),
        Daemon(
            command=(
                *("dockerd", "--config-file", f"{_HOME}/daemon.json"),
                *("--containerd", _CONTAINERD, "--host", f"unix://{_SOCKET}"),
            ),
            socket=_SOCKET,
        ),
    ),
    env=(("DOCKER_HOST", f"unix://{_SOCKET}"), ("DOCKER_CONFIG", f"{_HOME}/cli")),
    files=(
        (f"{_HOME}/containerd.toml", _CONTAINERD_CONF),
        (f"{_HOME}/daemon.json", json.dumps(_DAEMON_CONF)),
    ),
    scratch=("/var/lib",),
    programs=("runc", "docker-proxy", "iptables"),
    install="apt-get install docker.io docker-cli containerd runc iptables",
    shortest_name=2,  # "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", says dockerd
)
