"""gVisor under podman and Docker: each engine as it is, its containers in sandboxes of runsc's.

https://gvisor.dev/docs/user_guide/quick_start/docker/ has runsc put into daemon.json; podman
has it in containers.conf. Neither needs to know: networks, ports and names are the engine's,
and what it has done in a network namespace by the time a container is started there is what
the sandbox takes over. So what it does later is without effect (`connect`), and what it does
for processes that are in the namespace themselves: Docker's resolver is one, at 127.0.0.11
(https://gvisor.dev/docs/user_guide/faq/#docker-bridge).

Mode host is a flag of runsc's, in an annotation of the container's. Who joins a container would
be a sandbox more in the same namespace, where nothing is left to be taken over; so that mode is
not claimed. Nor are sysctls, which are ignored (`docs/findings.md`), and SCTP, which netstack
does not have.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Final

from harness.adapters.bare.runtimes.runsc import HIDDEN, IDLE, OPTIONS
from harness.adapters.docker_cli import docker, podman
from harness.model.features import Feature

_FLAGS: Final = (*OPTIONS, "--allow-flag-override")
_SCRIPT: Final = f'#!/bin/sh\nexec {shlex.join((*HIDDEN, "runsc", *_FLAGS))} "$@"\n'
"""What an engine calls in place of runsc, with all that it has to say."""
_HOST: Final = ("--annotation", "dev.gvisor.flag.network=host")
"""https://gvisor.dev/docs/user_guide/networking/#network-passthrough, for one container."""
_RAW: Final = ("--cap-add", "NET_RAW")
"""What Docker gives unasked; without, runsc refuses to pass raw sockets on to the host's stack."""
_NEITHER: Final = {Feature.CONTAINER, Feature.CONNECT, Feature.SYSCTL, Feature.SCTP}

_BY_PODMAN: Final = f"{podman.HOME}/runsc"
PODMAN: Final = replace(
    podman.CRUN,
    name="podman-runsc",
    cgroups=False,
    features=podman.FEATURES - _NEITHER,
    kin=("podman", "netavark", "netavark-root", "gvisor", "podman-runsc"),
    words=replace(podman.CRUN.words, host=(*_HOST, *_RAW)),
    files=(
        (f"{podman.HOME}/containers.conf", podman.conf("runsc", _BY_PODMAN)),
        (_BY_PODMAN, _SCRIPT),
    ),
    programs=("runsc", "conmon", "unshare"),
    idle=IDLE,
    install="apt-get install podman runsc netavark aardvark-dns nftables",
)

_BY_DOCKER: Final = f"{docker.HOME}/runsc"
DOCKER: Final = replace(
    docker.SPEC,
    name="docker-runsc",
    cgroups=False,
    features=docker.FEATURES - _NEITHER - {Feature.DNS},
    kin=("docker", "gvisor", "docker-runsc"),
    words=replace(docker.SPEC.words, host=_HOST),
    files=(
        docker.CONTAINERD_CONF,
        (
            f"{docker.HOME}/daemon.json",
            docker.daemon_conf(
                runtimes={"runsc": {"path": _BY_DOCKER}}, **{"default-runtime": "runsc"}
            ),
        ),
        (_BY_DOCKER, _SCRIPT),
    ),
    programs=("runsc", "docker-proxy", "iptables", "unshare"),
    idle=IDLE,
    install="apt-get install docker.io docker-cli containerd runsc iptables",
)
