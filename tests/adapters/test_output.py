"""What `inspect` prints, in the shapes of Docker and of podman, as facts."""

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


def told(**settings: Any) -> str:
    """Return the output of `inspect` for a running container."""
    state = {"Running": True, "Pid": 42, "ExitCode": 0}
    return json.dumps([{"Id": ID, "Name": "/web", "State": state, "NetworkSettings": settings}])


def test_a_container_is_read() -> None:
    """Its id, its name without the slash, its pid, and where it is on each network."""
    facts = output.container(PLAIN, told(Networks={"lan": ENDPOINT}))
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


def test_the_default_network_goes_by_its_name_in_plans() -> None:
    """Whatever the runtime calls it."""
    spec = replace(PLAIN, default_network="podman")
    facts = output.container(spec, told(Networks={"podman": ENDPOINT}))
    assert [item.network for item in facts.endpoints] == ["bridge"]


@pytest.mark.parametrize(
    ("without", "family"), [("GlobalIPv6Address", 4), ("IPAddress", 6)], ids=["IPv4", "IPv6"]
)
def test_one_family_is_enough(without: str, family: int) -> None:
    """What the other one would be is left out."""
    (endpoint,) = output.container(
        PLAIN, told(Networks={"lan": {**ENDPOINT, without: ""}})
    ).endpoints
    assert (endpoint.address is not None) == (family == 4)
    assert (endpoint.address6 is not None) == (family == 6)


def test_a_mode_that_is_told_as_a_network_is_none() -> None:
    """Docker tells `host` and `none` so, without an address."""
    empty = {"IPAddress": "", "IPPrefixLen": 0, "GlobalIPv6Address": ""}
    assert output.container(PLAIN, told(Networks={"none": empty})).endpoints == ()


def test_ports_are_read_as_they_came_about() -> None:
    """With the address of the host, or without one for all; exposed ones lead nowhere."""
    ports = {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "", "HostPort": "81"}],
        "443/tcp": None,
    }
    assert output.container(PLAIN, told(Ports=ports)).ports == (
        Publish(8080, 80, "tcp", IPv4Address("127.0.0.1")),
        Publish(81, 80, "tcp", None),
    )


def test_a_network_of_docker_is_read() -> None:
    """The bridge by its option or the id; an IPv6 gateway may come with a prefix."""
    pools = [
        {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1/64"},
    ]
    text = [{"Name": "lan", "Id": ID, "Driver": "bridge", "IPAM": {"Config": pools}}]
    gateways = (IPv4Interface("172.18.0.1/16"), IPv6Interface("fd00::1/64"))
    read = output.network(PLAIN, json.dumps(text))
    assert read == NetworkInfo("lan", ID, "br-47bd56418767", gateways)
    text[0]["Options"] = {"com.docker.network.bridge.name": "docker0"}
    assert output.network(PLAIN, json.dumps(text)).interface == "docker0"


def test_a_gateway_that_is_not_told_is_left_out() -> None:
    """As Docker before 28 does where the subnet was chosen; the subnet is known."""
    pools = [{"Subnet": "172.18.0.0/16"}]
    text = json.dumps([{"Name": "l", "Id": ID, "Driver": "bridge", "IPAM": {"Config": pools}}])
    assert output.network(PLAIN, text).gateways == ()
    assert output.subnets(text) == ["172.18.0.0/16"]


def test_a_network_of_podman_is_read() -> None:
    """Its shape is podman's own."""
    pools = [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]
    text = [{"name": "podman", "id": ID, "network_interface": "podman0", "subnets": pools}]
    spec = replace(PLAIN, default_network="podman")
    assert output.network(spec, json.dumps(text)) == NetworkInfo(
        "bridge", ID, "podman0", (IPv4Interface("10.88.0.1/16"),)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "no JSON"),
        ("[]", "no list of one object"),
        ("7", "no list of one object"),
        ("[{}]", "no description of a container: there is no 'State'"),
        (
            '[{"Id": 1, "Name": "n", "State": {"Running": true, "Pid": "x"}}]',
            "no description of a container: ValueError: ",
        ),
        (
            told(Networks={"lan": {**ENDPOINT, "IPAddress": "elsewhere"}}),
            "no description of a container: A",
        ),
        (told(Ports={"80/tcp": [{"HostPort": ""}]}), "no description of a container: V"),
    ],
)
def test_anything_else_is_garbage_and_says_why(text: str, words: str) -> None:
    """No JSON, another shape, or values that mean nothing."""
    with pytest.raises(UnreadableOutput, match=f"^{words}"):
        output.container(PLAIN, text)
