"""Driver of CNI plugins without CNI's library: builds a network's plugin list and runs each plugin.

https://github.com/containernetworking/cni/blob/spec-v1.0.0/SPEC.md. Each plugin is a program. It
takes a configuration on standard input and the verb (ADD or DEL) in its environment. The result of
one plugin is passed to the next. The last result is kept in a file, because DEL needs it. The file
is written before the next plugin is called, so that DEL finds the result even after an interrupted
ADD.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.adapters.protocol import Endpoint
from harness.adapters.support import programs
from harness.model.plan import ContainerSpec, NetworkSpec, Publish

VERSION: Final = "1.0.0"
PLUGINS: Final = ("bridge", "host-local", "portmap", "firewall", "loopback")
_FOLDERS: Final = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_BOUND: Final = 30.0
"""Time limit of one plugin, in seconds."""
_HOSTS_OWN: Final = ("0.0.0.0", "::")  # noqa: S104 # not bound, written


class CniError(Exception):
    """A plugin refused the request; the message has the plugin's name and its error."""


class CniBroken(Exception):
    """A plugin crashed, hung or printed an invalid result."""


class CniAttachment(NamedTuple):
    """Attachment of a container to a network: one interface."""

    network: str
    container: str
    interface: str
    netns: str
    folder: Path
    """The directory of the CNI results: the container's bundle."""
    prefix: str = ""
    """The folder in which plugins are searched first."""

    @property
    def kept(self) -> Path:
        """The path of the file with the last result."""
        return self.folder / f"{self.network}.{self.interface}.json"


def folder(prefix: str = "") -> str:
    """Return the first folder that has all plugins; an empty text if there is none.

    Folders below `prefix`, which has an unpacked package, are searched first.
    """
    own = [f"{prefix}{name}" for name in _FOLDERS] if prefix else []
    for name in (*own, *_FOLDERS):
        if all(os.access(f"{name}/{plugin}", os.X_OK) for plugin in PLUGINS):
            return name
    return ""


def version(prefix: str = "") -> str:
    """Return the newest version of the CNI specification that the plugins support.

    Plugins do not report a version of their own.
    """
    try:
        done = subprocess.run(
            [f"{folder(prefix)}/bridge", "--version"],
            capture_output=True,
            text=True,
            timeout=_BOUND,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a call of a plugin reports the reason
    found = re.findall(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return max(found, key=lambda item: tuple(map(int, item.split(".")))) if found else ""


def missing(prefix: str = "") -> list[str]:
    """Return the plugins that are missing and the missing programs that plugins run."""
    absent = [] if folder(prefix) else missing_plugins(*PLUGINS)
    return absent + programs.missing("", ("iptables",))


def missing_plugins(*plugins: str) -> list[str]:
    """Return the plugins that no folder has."""
    path = ":".join(_FOLDERS)
    return [f"CNI plugin {name}" for name in plugins if not shutil.which(name, path=path)]


def conf(spec: NetworkSpec, bridge: str, state: Path) -> dict[str, Any]:
    """Return the plugin list of a network; the spec has its subnets and gateways.

    The plugins are bridge (with an address and masquerade), portmap, and firewall, which isolates
    networks: https://www.cni.dev/plugins/current/.
    """
    ranges = [[_range(spec.subnet, spec.gateway, spec.ip_range)]]
    routes = [{"dst": "0.0.0.0/0"}]
    if spec.subnet6 is not None:
        ranges.append([_range(spec.subnet6, spec.gateway6, None)])
        routes.append({"dst": "::/0"})
    ipam = {"type": "host-local", "dataDir": str(state), "ranges": ranges, "routes": routes}
    plugin = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipMasq": True,
        "ipam": ipam,
        **({"mtu": spec.mtu} if spec.mtu is not None else {}),
    }
    ports = {"type": "portmap", "snat": True}
    walls = {"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"}
    return {"cniVersion": VERSION, "name": spec.name, "plugins": [plugin, ports, walls]}


def _range(subnet: Any, gateway: Any, part: Any) -> dict[str, str]:
    found = {"subnet": str(subnet), "gateway": str(gateway)}
    if part is not None and part != subnet:
        # The first and last address of a range are ordinary addresses.
        first = max(part[0], subnet[1])
        last = min(part[-1], subnet[-2])
        found |= {"rangeStart": str(first), "rangeEnd": str(last)}
    return found


def add(
    attachment: CniAttachment,
    network: Mapping[str, Any],
    spec: ContainerSpec | None = None,
    *,
    first: bool = True,
) -> Endpoint:
    """Connect a container to a network; call `delete` if a plugin refuses.

    Only the `first` network of a container gives the container default routes, and the requested
    addresses and ports. Raises `CniError` and `CniBroken`.
    """
    answer: dict[str, Any] = {}
    for plugin in network["plugins"]:
        wanted = dict(plugin)
        if spec is not None and first:
            wanted |= _arguments(plugin["type"], spec)
        if plugin["type"] == "bridge" and not first:
            wanted["ipam"] = {**plugin["ipam"], "routes": []}
        output = _call("ADD", attachment, network["name"], wanted, answer)
        answer = _answer(output, f"{plugin['type']} ADD") if output.strip() else answer
        attachment.kept.write_text(json.dumps(answer), encoding="utf-8")
    return endpoint(attachment.network, attachment.interface, answer)


def delete(
    attachment: CniAttachment, network: Mapping[str, Any], spec: ContainerSpec | None = None
) -> None:
    """Disconnect a container: call every plugin with DEL, the last one first.

    The plugins get the requested ports, because portmap does nothing without them. A failed DEL is
    repeated, as engines do. The reason is an ADD that was killed before it added the masquerade
    rule: DEL of the bridge plugin then fails at that rule, after it has removed everything else.
    """
    answer: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        answer = json.loads(attachment.kept.read_text(encoding="utf-8"))
    failed: CniError | None = None
    for plugin in reversed(network["plugins"]):
        ports = _ports(spec) if spec is not None and plugin["type"] == "portmap" else {}
        for _ in range(2):
            try:
                _call("DEL", attachment, network["name"], {**plugin, **ports}, answer)
                break
            except CniError as error:
                last = error
        else:
            failed = last
    if failed is not None:
        raise failed
    attachment.kept.unlink(missing_ok=True)


def _answer(output: str, what: str) -> dict[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CniBroken(f"CNI plugin {what} printed {output[:200]!r} instead of a JSON object")
    return answer


def loopback(attachment: CniAttachment) -> None:
    """Set up the loopback of a new netns."""
    _call("ADD", attachment._replace(interface="lo"), "lo", {"type": "loopback"}, {})


def lease(attachment: CniAttachment, ipam: Mapping[str, Any], wanted: Sequence[object]) -> Endpoint:
    """Reserve addresses: call only the plugin of an `ipam` section.

    Raises `CniError` if the `wanted` addresses are unavailable, or if no address is free.
    """
    args = {"args": {"cni": {"ips": list(map(str, wanted))}}} if wanted else {}
    conf = {"type": ipam["type"], "ipam": ipam, **args}
    output = _call("ADD", attachment, attachment.network, conf, {})
    answer = _answer(output, f"{ipam['type']} ADD")
    return endpoint(attachment.network, attachment.interface, answer)


def release(attachment: CniAttachment, ipam: Mapping[str, Any]) -> None:
    """Release the addresses that `lease` reserved."""
    conf = {"type": ipam["type"], "ipam": ipam}
    _call("DEL", attachment, attachment.network, conf, {})


def _arguments(kind: str, spec: ContainerSpec) -> dict[str, Any]:
    """Return the `args` and `runtimeConfig` sections of a container for one plugin.

    https://github.com/containernetworking/cni/blob/spec-v1.0.0/CONVENTIONS.md. Hairpin mode is on
    only for containers that publish ports: they reach these ports themselves. Hairpin mode on every
    bridge port would return broadcasts to their senders.
    """
    if kind == "portmap":
        return _ports(spec)
    if kind != "bridge":
        return {}
    args: dict[str, Any] = {"mac": spec.mac} if spec.mac else {}
    if ips := [str(item) for item in (spec.ip, spec.ip6) if item is not None]:
        args["ips"] = ips
    hairpin = {"hairpinMode": True} if spec.ports else {}
    return {**hairpin, **({"args": {"cni": args}} if args else {})}


def _ports(spec: ContainerSpec) -> dict[str, Any]:
    found = [item for port in spec.ports for item in mappings(port)]
    return {"runtimeConfig": {"portMappings": found}} if found else {}


def mappings(port: Publish) -> Iterator[dict[str, Any]]:
    """Yield the port mappings of a published port or range, in portmap's format."""
    for number in range(port.count):
        found: dict[str, Any] = {
            "hostPort": port.host_port + number,
            "containerPort": port.container_port + number,
            "protocol": port.protocol,
        }
        if port.host_ip is not None and str(port.host_ip) not in _HOSTS_OWN:
            found["hostIP"] = str(port.host_ip)
        yield found


def endpoint(network: str, interface: str, answer: Mapping[str, Any]) -> Endpoint:
    """Return the endpoint that a CNI result describes: SPEC.md, section 5."""
    own = [
        number
        for number, item in enumerate(answer.get("interfaces", ()))
        if item.get("sandbox") and item["name"] == interface
    ]
    found: dict[int, tuple[IPv4Interface | IPv6Interface, str | None]] = {}
    for item in answer.get("ips", ()):
        address = ip_interface(item["address"])
        found[address.version] = address, item.get("gateway")
    four, gateway = found.get(4, (None, None))
    six, gateway6 = found.get(6, (None, None))
    return Endpoint(
        network=network,
        address=four if isinstance(four, IPv4Interface) else None,
        gateway=gateway,
        address6=six if isinstance(six, IPv6Interface) else None,
        gateway6=gateway6,
        mac=answer["interfaces"][own[0]]["mac"] if own else None,
    )


def _call(
    verb: str,
    attachment: CniAttachment,
    name: str,
    plugin: Mapping[str, Any],
    previous: Mapping[str, Any],
) -> str:
    where = folder(attachment.prefix)
    given = {"cniVersion": VERSION, "name": name, **plugin}
    if previous:
        given["prevResult"] = previous
    environment = {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.container,
        "CNI_NETNS": attachment.netns,
        "CNI_IFNAME": attachment.interface,
        "CNI_PATH": where,
    }
    text, what = json.dumps(given), f"{plugin['type']} {verb}"
    try:
        done = subprocess.run(
            [f"{where}/{plugin['type']}"],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_BOUND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CniBroken(f"CNI plugin {what} did not end within {_BOUND:g} s") from None
    except OSError as error:
        raise CniBroken(f"CNI plugin {what} cannot be executed: {error}") from None
    if not done.returncode:
        return done.stdout
    try:
        refusal = json.loads(done.stdout)
        words = " ".join(str(refusal[key]) for key in ("msg", "details") if refusal.get(key))
    except (ValueError, TypeError, KeyError, AttributeError):
        output = (done.stdout + done.stderr).strip()
        raise CniBroken(
            f"CNI plugin {what} exited with {done.returncode} without an error as in "
            f"the CNI specification; input: {text}, output: {output[-2000:]!r}"
        ) from None
    raise CniError(f"CNI plugin {what}: {words}")
