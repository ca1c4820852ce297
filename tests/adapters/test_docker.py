"""Docker's configuration."""

from __future__ import annotations

import json
from ipaddress import ip_network

from harness.adapters.docker_cli.docker import ROOTLESS
from harness.adapters.support import rootless
from harness.model.topology import Topology


def test_rootless_docker_pools_avoid_the_hosts_subnet() -> None:
    """Rootless dockerd cannot see that subnet from its netns; ns1 would be unreachable."""
    conf = json.loads(dict(ROOTLESS.files)[f"{rootless.HOME}/daemon.json"])
    pools = [ip_network(pool["base"]) for pool in conf["default-address-pools"]]
    own = [item.network for item in (*Topology().host, *Topology().br0)]
    assert not [pool for pool in pools for item in own if pool.overlaps(item)]
