"""podman, which has no daemon and whose networks netavark creates: https://docs.podman.io.

When root starts podman, its directories are new and empty in the host. Containers have no resource
limits. crun starts them; for the adapter `podman-runc`, runc starts them. An ordinary user of the
host starts `podman-rootless` and its variants. Their traffic passes through pasta or slirp4netns, a
process in user space.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from harness.adapters.docker_cli.spec import CliSpec, CliVerbs
from harness.adapters.support import options, rootless
from harness.adapters.support.programs import PREFIX
from harness.model.features import Feature

FEATURES: Final = options.FEATURES - {Feature.ICC}
_OF_NETWORKS: Final = frozenset(
    (Feature.NETWORKS, Feature.INTERNAL, Feature.DNS, Feature.CONNECT, Feature.STATIC_ADDRESS)
)
HOME: Final = "/run/netmodes/podman"
"""The directory of podman's configuration, in the host."""
# Runtimes and conmon have fixed paths that come before the PATH. With empty lists they are
# searched on the PATH, and so in a prefix first. netavark and other helpers are never searched on
# the PATH.
_HELPERS: Final = ("/usr/local/libexec", "/usr/local/lib", "/usr/libexec", "/usr/lib")
_PROGRAMS: Final = "conmon_path = []\nhelper_binaries_dir = " + json.dumps(
    [f"{root}{folder}/podman" for root in (PREFIX, "") for folder in _HELPERS]
)


def conf(runtime: str, *at: str) -> str:
    """Return the content of containers.conf for an OCI runtime, at its paths or on the PATH.

    https://github.com/containers/common/blob/main/docs/containers.conf.5.md. The pids limit is off:
    it needs a cgroup controller that a nested cgroup may not have.
    """
    return f"""
[containers]
pids_limit = 0
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "none"
{_PROGRAMS}
[engine.runtimes]
{runtime} = {json.dumps(at)}
[network]
network_config_dir = "/run/netmodes/podman/networks"
"""


CRUN: Final = CliSpec(
    name="podman",
    command=("podman",),
    features=FEATURES,
    kin=("podman", "netavark", "netavark-root"),
    cgroups=True,
    words=CliVerbs(
        stop=("stop", "-t", "1"),
        remove=("rm", "-f", "-t", "0"),
        repair=("network", "reload", "--all"),
        mtu="mtu",
        icc="",
    ),
    default_network="podman",
    env=(("CONTAINERS_CONF", f"{HOME}/containers.conf"), ("TMPDIR", "/tmp")),  # noqa: S108 # the host's own
    files=((f"{HOME}/containers.conf", conf("crun")),),
    scratch=("/var/lib", "/var/cache"),
    programs=("crun", "conmon"),
    helpers=tuple(
        f"{folder}/podman/{name}" for name in ("netavark", "aardvark-dns") for folder in _HELPERS
    ),
    install="apt-get install podman crun netavark aardvark-dns nftables",
)
RUNC: Final = replace(
    CRUN,
    name="podman-runc",
    files=((f"{HOME}/containers.conf", conf("runc")),),
    programs=("runc", "conmon"),
    install="apt-get install podman runc netavark aardvark-dns nftables",
)

# --- by an ordinary user: https://github.com/containers/podman/blob/main/rootless.md --------

_ROOTLESS_CONF_PATH: Final = f"{rootless.HOME}/.config/containers/containers.conf"


def _rootless_conf(command: str) -> str:
    return f"""
[containers]
pids_limit = 0
cgroups = "disabled"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
{_PROGRAMS}
[engine.runtimes]
crun = []
[network]
default_rootless_network_cmd = "{command}"
"""


_ROOTLESS_NETNS: Final = f"{rootless.RUN}/containers/networks/rootless-netns/rootless-netns"
PASTA: Final = replace(
    CRUN,
    name="podman-rootless",
    kin=("podman", "netavark", "rootless", "pasta"),
    rootless=True,
    cgroups=False,
    features=FEATURES - _OF_NETWORKS - {Feature.BRIDGE, Feature.SCTP} | {Feature.USER_MODE},
    bridges_at=(f"{rootless.RUN}/libpod/tmp/pause.pid", f"root{_ROOTLESS_NETNS}"),
    default_network="pasta",
    env=(),
    files=((_ROOTLESS_CONF_PATH, _rootless_conf("pasta")),),
    scratch=(),
    programs=("crun", "conmon", "pasta"),
    install="apt-get install podman crun passt uidmap",
)
BRIDGE: Final = replace(
    PASTA,
    name="podman-rootless-bridge",
    kin=(*PASTA.kin, "podman-rootless-bridge"),
    features=PASTA.features | _OF_NETWORKS,
    programs=("crun", "conmon", "pasta", "nft"),
    install="apt-get install podman crun netavark aardvark-dns nftables passt uidmap",
)
SLIRP: Final = replace(
    PASTA,
    name="podman-rootless-slirp4netns",
    kin=("podman", "netavark", "rootless", "slirp4netns"),
    default_network="slirp4netns",
    files=((_ROOTLESS_CONF_PATH, _rootless_conf("slirp4netns")),),
    programs=("crun", "conmon", "slirp4netns"),
    install="apt-get install podman crun slirp4netns uidmap",
)
