"""What dockerd is told where nobody can see it in a report."""

from __future__ import annotations

import json
from ipaddress import ip_network

from harness.adapters.docker_cli.docker import ROOTLESS
from harness.adapters.support import rootless
from harness.model.topology import Topology


def test_no_network_of_a_rootless_one_is_where_the_host_is() -> None:
    """From its own namespace it would not see that, and whoever got such a network not ns1."""
    conf = json.loads(dict(ROOTLESS.files)[f"{rootless.HOME}/daemon.json"])
    pools = [ip_network(pool["base"]) for pool in conf["default-address-pools"]]
    own = [item.network for item in (*Topology().host, *Topology().br0)]
    assert not [pool for pool in pools for item in own if pool.overlaps(item)]
