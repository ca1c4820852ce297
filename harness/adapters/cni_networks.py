"""Networks for bare runtimes: a directory of CNI confs, and which subnets are free.

CNI leaves it to whoever writes a conf that subnets do not overlap, and takes no bridge
away with the last container. So this part is the harness's own, as it would be an
engine's. All of it runs inside the host.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    ip_interface,
)
from pathlib import Path
from typing import Any, Final

from harness.adapters import cni, subnets
from harness.adapters.program import Refused
from harness.adapters.protocol import NetworkFacts
from harness.model import DEFAULT_NETWORK, NetworkSpec
from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS

DEFAULT_BRIDGE: Final = "cni0"
DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.85.0.0/16"), gateway=IPv4Address("10.85.0.1")
)
"""The default network has what CNI's and CRI-O's examples have."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks whose confs are in a directory."""

    home: Path

    def create(self, spec: NetworkSpec) -> NetworkFacts:
        """Write the conf of a network, with subnets chosen where none are asked for."""
        for name, value in (("internal", spec.internal), ("icc=false", not spec.icc)):
            if value:
                raise Refused(f"there is no CNI plugin for {name}")
        if self._path(spec.name).exists():
            raise Refused(f"network {spec.name} is there already")
        used = [item.network for name in self.names() for item in self.facts(name).gateways]
        spec = subnets.settled(spec, [*used, *subnets.of_host()])
        self._write(spec)
        return self.facts(spec.name)

    def ensure_default(self) -> None:
        """Write the default network's conf where it is not there yet."""
        if not self._path(DEFAULT_NETWORK).exists():
            self._write(DEFAULT)

    def _write(self, spec: NetworkSpec) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        found = cni.conf(spec, bridge(spec.name), self.home / "addresses")
        self._path(spec.name).write_text(json.dumps(found), encoding="utf-8")
        (self.home / f"{spec.name}.spec").write_bytes(pickle.dumps(spec))

    def conf(self, name: str) -> dict[str, Any]:
        """The list of plugins of a network."""
        try:
            found: dict[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"there is no network {name}") from None
        return found

    def facts(self, name: str) -> NetworkFacts:
        """What there is to tell about a network."""
        self.conf(name)
        spec: NetworkSpec = pickle.loads((self.home / f"{name}.spec").read_bytes())  # noqa: S301
        pairs = ((spec.gateway, spec.subnet), (spec.gateway6, spec.subnet6))
        gateways = tuple(
            ip_interface(f"{gateway}/{subnet.prefixlen}") for gateway, subnet in pairs if subnet
        )
        return NetworkFacts(name, name, bridge(name), gateways)

    def names(self) -> list[str]:
        """Every network's name."""
        return sorted(path.stem for path in self.home.glob("*.conflist"))

    def remove(self, name: str) -> None:
        """Take a conf away, and the bridge, which CNI leaves."""
        self.conf(name)
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send([rtnl.del_link(bridge(name))], missing_ok=True)
        for path in (self._path(name), self.home / f"{name}.spec"):
            path.unlink()

    def _path(self, name: str) -> Path:
        return self.home / f"{name}.conflist"


def bridge(name: str) -> str:
    """The bridge of a network; a name has more characters than a link may have."""
    if name == DEFAULT_NETWORK:
        return DEFAULT_BRIDGE
    return f"cni-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
