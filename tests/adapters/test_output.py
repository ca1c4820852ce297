"""Tests of the parser for the output of `inspect`, in the formats of Docker and podman."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any, Final

import pytest

from harness.adapters.docker_cli import output
from harness.adapters.docker_cli.output import UnreadableOutput
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import Endpoint, NetworkInfo
from harness.model.plan import Publish

PLAIN: Final = CliSpec(name="acme", command=("acmectl",), features=frozenset())
ID: Final = "47bd564187670f27605ee8db646a34add3b8bf7e6468d8d1c78ed526fc3f2240"
ENDPOINT: Final = {
    "IPAddress": "172.18.0.2",
    "IPPrefixLen": 16,
    "Gateway": "172.18.0.1",
    "MacAddress": "02:42:ac:12:00:02",
    "GlobalIPv6Address": "fd00::2",
    "GlobalIPv6PrefixLen": 64,
    "IPv6Gateway": "fd00::1",
}


def inspected(**settings: Any) -> str:
    """Return the output of `inspect` for a running container."""
    state = {"Running": True, "Pid": 42, "ExitCode": 0}
    return json.dumps([{"Id": ID, "Name": "/web", "State": state, "NetworkSettings": settings}])


def test_output_of_container_inspect_is_parsed() -> None:
    """The parsed facts of a container have its id, name, pid and endpoints.

    The name has no slash at its begin.
    """
    facts = output.container(PLAIN, inspected(Networks={"lan": ENDPOINT}))
    assert (facts.id, facts.name, facts.pid, facts.running) == (ID, "web", 42, True)
    assert facts.exit_code is None
    assert facts.endpoints == (
        Endpoint(
            "lan",
            IPv4Interface("172.18.0.2/16"),
            "172.18.0.1",
            IPv6Interface("fd00::2/64"),
            "fd00::1",
            "02:42:ac:12:00:02",
        ),
    )


def test_endpoint_has_the_reported_families() -> None:
    """An endpoint has an address only for the families that are reported.

    Docker reports the modes `host` and `none` as networks without an address.
    """
    networks = {
        "four": {**ENDPOINT, "GlobalIPv6Address": ""},
        "six": {**ENDPOINT, "IPAddress": ""},
        "none": {"IPAddress": "", "IPPrefixLen": 0, "GlobalIPv6Address": ""},
    }
    four, six = output.container(PLAIN, inspected(Networks=networks)).endpoints
    assert (four.network, four.address6) == ("four", None)
    assert (six.network, six.address) == ("six", None)


def test_published_ports_are_parsed() -> None:
    """A published port has its host address or none.

    Ports that are only exposed are omitted.
    """
    ports = {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "", "HostPort": "81"}],
        "443/tcp": None,
    }
    assert output.container(PLAIN, inspected(Ports=ports)).ports == (
        Publish(8080, 80, "tcp", IPv4Address("127.0.0.1")),
        Publish(81, 80, "tcp", None),
    )


def test_docker_network_inspect_is_parsed() -> None:
    """The name of a Docker network's bridge comes from its option, or else from its id.

    An IPv6 gateway may have a prefix length.
    """
    pools = [
        {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1/64"},
    ]
    text = [{"Name": "lan", "Id": ID, "Driver": "bridge", "IPAM": {"Config": pools}}]
    gateways = (IPv4Interface("172.18.0.1/16"), IPv6Interface("fd00::1/64"))
    read, _ = output.network(PLAIN, json.dumps(text))
    assert read == NetworkInfo("lan", ID, "br-47bd56418767", gateways)
    text[0]["Options"] = {"com.docker.network.bridge.name": "docker0"}
    assert output.network(PLAIN, json.dumps(text))[0].interface == "docker0"


def test_unreported_gateway_is_omitted() -> None:
    """A gateway that the runtime does not report is omitted.

    Docker before 28 does not report the gateway of an automatic subnet.
    """
    pools = [{"Subnet": "172.18.0.0/16"}]
    text = json.dumps([{"Name": "l", "Id": ID, "Driver": "bridge", "IPAM": {"Config": pools}}])
    facts, subnets = output.network(PLAIN, text)
    assert (facts.gateways, subnets) == ((), ["172.18.0.0/16"])


def test_podman_network_inspect_is_parsed() -> None:
    """The format of podman is parsed.

    Its default network gets the name that plans use.
    """
    pools = [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]
    text = [{"name": "podman", "id": ID, "network_interface": "podman0", "subnets": pools}]
    spec = replace(PLAIN, default_network="podman")
    gateways = (IPv4Interface("10.88.0.1/16"),)
    facts = NetworkInfo("bridge", ID, "podman0", gateways)
    assert output.network(spec, json.dumps(text)) == (facts, ["10.88.0.0/16"])
    (endpoint,) = output.container(spec, inspected(Networks={"podman": ENDPOINT})).endpoints
    assert endpoint.network == "bridge"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "not JSON"),
        ("[]", "not a list of one object"),
        ("7", "not a list of one object"),
        ("[{}]", "not the description of a container: 'State' is missing"),
        (
            '[{"Id": 1, "Name": "n", "State": {"Running": true, "Pid": "x"}}]',
            "not the description of a container: ValueError: ",
        ),
        (
            inspected(Networks={"lan": {**ENDPOINT, "IPAddress": "elsewhere"}}),
            "not the description of a container: A",
        ),
        (inspected(Ports={"80/tcp": [{"HostPort": ""}]}), "not the description of a container: V"),
    ],
)
def test_unexpected_output_is_an_error_with_the_reason(text: str, words: str) -> None:
    """Output is an error if it is not JSON, has another format or is invalid.

    The error has the reason.
    """
    with pytest.raises(UnreadableOutput, match=f"^{words}"):
        output.container(PLAIN, text)
