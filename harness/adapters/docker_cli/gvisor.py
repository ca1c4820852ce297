"""gVisor under podman and Docker: the engines are unchanged, and runsc runs the containers.

Docker configures runsc in daemon.json (https://gvisor.dev/docs/user_guide/quick_start/docker/),
podman in containers.conf. The engine provides networks, published ports and names. The sandbox
takes over the state of the network namespace when the container starts. A later `network connect`
therefore has no effect. The same holds for everything that the engine later sets up in the
namespace, such as Docker's resolver at 127.0.0.11
(https://gvisor.dev/docs/user_guide/faq/#docker-bridge).

Mode host is a flag of runsc, which an annotation of the container sets. The adapter does not
declare joining: a joining container would be a second sandbox in a namespace with nothing left to
take over. It does not declare sysctls, which runsc ignores (`docs/findings.md`), or SCTP, which
netstack does not have.
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
"""The script that an engine calls instead of runsc, with runsc's flags."""
_HOST: Final = ("--annotation", "dev.gvisor.flag.network=host")
"""https://gvisor.dev/docs/user_guide/networking/#network-passthrough, for one container."""
_RAW: Final = ("--cap-add", "NET_RAW")
"""Docker's default; without it runsc refuses to pass raw sockets to the host's stack."""
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
    features=docker.SPEC.features - _NEITHER - {Feature.DNS},
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
