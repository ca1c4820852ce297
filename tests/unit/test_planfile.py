"""A plan written to a file is the same plan when it is read again; what is wrong is named."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import planfile
from harness.model import Attached, Bridge, ContainerSpec, NetworkSpec, Plan, PlanError, Publish
from harness.strategies import plans

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


def test_every_field_comes_back() -> None:
    """Of networks and containers alike."""
    assert planfile.loads(planfile.dumps(FULL)) == FULL


@given(plans())
def test_any_plan_comes_back(plan: Plan) -> None:
    """Also the empty one."""
    assert planfile.loads(planfile.dumps(plan)) == plan


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
def test_any_port_comes_back(port: Publish) -> None:
    """Single ports and ranges, on addresses of both families."""
    plan = Plan(containers=(ContainerSpec("a", ports=(port,)),))
    assert planfile.loads(planfile.dumps(plan)) == plan


WRONG = {
    "no TOML": ("[[network]", "no TOML"),
    "another table": ("[[netwerk]]\nname = 'a'", "'network' is meant, perhaps"),
    "one table": ("[network]\nname = 'a'", r"written as \[\[network\]\]"),
    "no name": ("[[container]]\nmode = 'host'", "every container needs one"),
    "key": ("[[network]]\nname = 'a'\nintrenal = true", "network 'a'.*'internal' is meant"),
    "mode": ("[[container]]\nname = 'a'\nmode = 'lan'", "no mode 'lan'; there are bridge"),
    "network": ("[[container]]\nname = 'a'\nmode = 'network:lan'", "unknown network 'lan'"),
    "subnet": ("[[network]]\nname = 'a'\nsubnet = '10.0.0.1/33'", "network 'a': '10.0.0.1/33'"),
    "flag": ("[[network]]\nname = 'a'\nipv6 = 'yes'", "ipv6 is true or false, not 'yes'"),
    "mtu": ("[[network]]\nname = 'a'\nmtu = '9'", "mtu is a number of bytes"),
    "port": ("[[container]]\nname = 'a'\nports = ['80']", "'80' is no port; write"),
    "reversed": ("[[container]]\nname = 'a'\nports = ['9-8:9-8']", "is no port"),
    "ranges": ("[[container]]\nname = 'a'\nports = ['8-9:80']", "is no port"),
    "text": ("[[container]]\nname = 'a'\nmac = 2", "mac is a text, not 2"),
    "taken": ("[[network]]\nname = 'a'\n[[network]]\nname = 'a'", "'a' is taken"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    """With the entry, and what it may be."""
    with pytest.raises(PlanError, match=said):
        planfile.loads(text)
