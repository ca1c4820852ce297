"""Tests of plan files: reading a written plan restores it, and errors name the entry."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import plan_file
from harness.model.plan import (
    Attached,
    Bridge,
    ContainerSpec,
    Host,
    Joined,
    NetworkSpec,
    Nothing,
    Plan,
    PlanError,
    Publish,
)
from harness.testbench.strategies import plans

FULL = Plan(
    (
        NetworkSpec(
            "lan",
            subnet=ip_network("10.9.0.0/24"),  # type: ignore[arg-type] # of the text's family
            gateway=ip_address("10.9.0.1"),  # type: ignore[arg-type] # likewise
            ip_range=ip_network("10.9.0.64/26"),  # type: ignore[arg-type] # likewise
            subnet6=ip_network("fd00:9::/64"),  # type: ignore[arg-type] # likewise
            ipv6=True,
            internal=True,
            icc=False,
            mtu=1400,
        ),
    ),
    (
        ContainerSpec(
            "web",
            Bridge("lan"),
            also=("bridge",),
            ip=ip_address("10.9.0.70"),  # type: ignore[arg-type] # of the text's family
            mac="02:00:00:00:00:01",
            hostname="w",
            aliases=("www",),
            ports=(
                Publish(8080, 80),
                Publish(0, 53, "udp", ip_address("::1")),
                Publish(9000, 90, "sctp", ip_address("198.51.100.7"), 3),
                Publish(0, 90, count=3),
            ),
            sysctls=(("net.ipv4.ip_forward", "1"),),
            dns=(ip_address("203.0.113.53"),),
            hosts=(("db", ip_address("10.9.0.9")),),
            command=("sleep", "1"),
        ),
        ContainerSpec("by-hand", Attached("lan")),
    ),
)


def test_plan_file_keeps_every_field() -> None:
    """All fields of networks and containers survive writing and reading."""
    assert plan_file.loads(plan_file.dumps(FULL)) == FULL


@given(plans())
def test_any_plan_survives_its_file(plan: Plan) -> None:
    """Writing and reading a plan restores it, also an empty plan."""
    assert plan_file.loads(plan_file.dumps(plan)) == plan


@given(
    st.builds(
        Publish,
        st.integers(0, 60000),
        st.integers(1, 60000),
        st.sampled_from(["tcp", "udp", "sctp"]),
        st.none() | st.ip_addresses(),
        st.integers(1, 100),
    )
)
def test_published_port_is_equal_after_writing_and_reading_a_plan_file(port: Publish) -> None:
    """Writing and reading a plan restores every published port.

    Ports are single ports and ranges, on addresses of both families.
    """
    plan = Plan(containers=(ContainerSpec("a", ports=(port,)),))
    assert plan_file.loads(plan_file.dumps(plan)) == plan


A = "[[container]]\nname = 'a'\n"
NET = "[[network]]\nname = 'a'\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[network]\n", "the plan is not TOML: Expected ']]' at the end of an array declaration "),
        ("zzz = 1", "the plan has an unknown key 'zzz'; known: network, container"),
        ("[[netwerk]]", "the plan has an unknown key 'netwerk'; did you mean 'network'?"),
        ("[network]\nname = 'a'", "write each network under [[network]]"),
        ("container = ['a']", "write each container under [[container]]"),
        (
            "[[container]]\nmode = 'host'",
            "a container without a name: every container needs a name",
        ),
        (
            "[[network]]\nzzz = 1",
            "a network without a name has an unknown key 'zzz'; known: name, ",
        ),
        (NET + "zzz = 1", "network 'a' has an unknown key 'zzz'; known: name, "),
        (
            A + "hostnam = 'a'",
            "container 'a' has an unknown key 'hostnam'; did you mean 'hostname'?",
        ),
        ("[[container]]\nname = 1", "container 1: name: Expected `str`, got `int`"),
        (NET + "subnet = '10.0.0.1/33'", "network 'a': subnet: '33' is not a valid netmask"),
        (NET + "gateway6 = 4", "network 'a': gateway6: At least 3 parts expected in '4'"),
        (NET + "ipv6 = 1", "network 'a': ipv6: Expected `bool`, got `int`"),
        (NET + "mtu = true", "network 'a': mtu: Expected `int | null`, got `bool`"),
        (A + "aliases = 'www'", "container 'a': aliases: Expected `array`, got `str`"),
        (A + "aliases = [1]", "container 'a': aliases: Expected `str`, got `int` - at `$[0]`"),
        (A + "dns = ['9.9']", "container 'a': '9.9' does not appear to be an IPv4 or IPv6 address"),
        (A + "ports = ['80']", "container 'a': '80' is not a port mapping; write "),
        (A + "mode = 'network:lan'", "container 'a' is on unknown network 'lan'"),
        (A + "mode = 'network:a:b'", "container 'a' is on unknown network 'a:b'"),
        (NET + NET, "network name 'a' is taken"),
    ],
)
def test_plan_file_error_names_entry_and_key(text: str, complaint: str) -> None:
    """The error for a plan file names the entry and the key.

    It suggests a similar or a valid value.
    """
    with pytest.raises(PlanError, match=f"^{re.escape(complaint)}"):
        plan_file.loads(text)


def test_plan_file_omits_default_values() -> None:
    """A plan file contains only the values that differ from the defaults."""
    plan = Plan(containers=(ContainerSpec("a"), ContainerSpec("b", Host())))
    told = {"container": [{"name": "a"}, {"name": "b", "mode": "host"}]}
    assert tomllib.loads(plan_file.dumps(plan)) == told
    assert not plan_file.dumps(Plan())


def written(mode: str) -> ContainerSpec:
    """Return a container with this text as `mode`.

    Its plan also has a network and another container.
    """
    lan = "[[network]]\nname = 'lan'\n"
    text = f"{lan}[[container]]\nname = 'web'\n[[container]]\nname = 'a'\nmode = '{mode}'"
    return plan_file.loads(text).containers[1]


def test_plan_file_writes_each_mode_as_one_word() -> None:
    """A plan file writes each mode as one word, in one of the six forms in the documentation."""
    texts = ["bridge", "host", "none", "network:lan", "container:web", "attached:lan"]
    modes = [Bridge(), Host(), Nothing(), Bridge("lan"), Joined("web"), Attached("lan")]
    assert [written(text).mode for text in texts] == modes


@pytest.mark.parametrize("mode", ["network", "network:", "host:lan", ":lan", "lan:network", ""])
def test_plan_file_refuses_unknown_mode_with_list_of_modes(mode: str) -> None:
    """The error for an unknown mode lists the valid modes.

    A mode is a kind, in some cases followed by a colon and a name.
    """
    said = (
        f"container 'a': unknown mode '{mode}'; "
        "the modes are bridge, host, none, network:NAME, container:NAME, attached:NETWORK"
    )
    with pytest.raises(PlanError, match=f"^{re.escape(said)}$"):
        written(mode)


def published(text: str) -> Publish:
    """Return the published port whose text in `ports` is this."""
    plan = plan_file.loads(f"[[container]]\nname = 'a'\nports = ['{text}']")
    return plan.containers[0].ports[0]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80/tcp", Publish(8080, 80)),
        ("0:80/udp", Publish(0, 80, "udp")),
        ("0:80-81/tcp", Publish(0, 80, count=2)),
        ("8000-8001:80-81/tcp", Publish(8000, 80, count=2)),
        ("65535:65535/tcp", Publish(65535, 65535)),
        ("127.0.0.1:1:2/tcp", Publish(1, 2, host_ip=ip_address("127.0.0.1"))),
        ("[::1]:8080:80/sctp", Publish(8080, 80, "sctp", ip_address("::1"))),
        ("[2001:db8::7]:0:80/tcp", Publish(0, 80, host_ip=ip_address("2001:db8::7"))),
    ],
)
def test_plan_file_has_ports_in_command_line_format(text: str, port: Publish) -> None:
    """A plan file has published ports as on the command line, TCP by default.

    A range maps to a host range of equal length, or to any host ports.
    """
    assert published(text) == published(text.removesuffix("/tcp")) == port
    plan = tomllib.loads(plan_file.dumps(Plan(containers=(ContainerSpec("a", ports=(port,)),))))
    assert plan["container"][0]["ports"] == [text]


BAD_PORTS = """
80 :80 80: 8080:0 8080:80/icmp 8080:80-81 8080-8081:80 0-1:80 8080-8081:80-82 80:65536
80:65535-65536 80:9-8 80:-8 80:8- 80:http lan:8080:80 X::1X:8080:80 10.9.0.300:8080:80
"""


@pytest.mark.parametrize("text", BAD_PORTS.split())
def test_plan_file_refuses_invalid_port_with_expected_format(text: str) -> None:
    """The error for an invalid published port shows the expected format.

    Invalid are ports out of range, ranges of unequal length, names and other protocols.
    """
    said = (
        f"container 'a': '{text}' is not a port mapping; "
        "write [ADDRESS:]HOST:CONTAINER[/tcp|udp|sctp]"
    )
    with pytest.raises(PlanError, match=f"^{re.escape(said)}$"):
        published(text)


def test_invalid_or_missing_plan_file_is_named(tmp_path: Path) -> None:
    """The error for an invalid or missing plan file has its path and the reason."""
    path = tmp_path / "plan.toml"
    path.write_bytes("# für später\n[[container]]\nname = 'a'".encode())
    assert plan_file.read(path) == Plan(containers=(ContainerSpec("a"),))
    for wrong in (b"[[network]", b"\xff"):
        path.write_bytes(wrong)
        with pytest.raises(PlanError, match=f"^{re.escape(str(path))}: .*(not TOML|invalid start)"):
            plan_file.read(path)
    with pytest.raises(PlanError, match=r"nosuch\.toml: No such file or directory"):
        plan_file.read(tmp_path / "nosuch.toml")
