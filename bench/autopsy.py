"""Share of faults that the diagnosis locates: `python -m bench.autopsy [FAULT…]`.

The bench tries every fault in `PLACES`, in a scene with three networks and nine containers. These
faults misroute or drop packets. The bench explains the first wrong cell of at most three kinds. A
fault counts as located if an explanation has the words that name its place. `PLACES` does not have
faults that make no cell of this scene wrong, such as faults of published ports, of names, or after
a restart.
"""

from __future__ import annotations

import re
import sys
from itertools import islice

from harness.adapters import registry
from harness.diagnosis.replay import Replay
from harness.faults.adapter import FaultyAdapter, FaultyFactory
from harness.faults.fault import discover
from harness.model import requirements
from harness.model.matrix import Difference, diff
from harness.model.plan import Bridge, Host, Joined, Nothing, Publish
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World

BAR = 0.95
"""Lower bound on the share of located faults."""
_KINDS = 3
_RULE = r"in {}, table {} sabotage, chain {}"
_NO_MASQUERADE = r"the host did not masquerade the source"
_CAME = r"the request arrived, against the promise, by \S+ → host"
_DOUBLE = r"{} is used by .* and by"

PLACES = {
    "narrow-prefix": r"forwarded by host \(64 → 63\)",
    "address-given-twice": _DOUBLE.format(r"172\.17\.0\.1"),
    "one-address-for-all": _DOUBLE.format(r"172\.17\.0\.\d+"),
    "gateways-address-given": _DOUBLE.format(r"172\.17\.42\.1"),
    "broadcast-address-given": _DOUBLE.format(r"172\.17\.255\.255"),
    "one-mac-for-all": _DOUBLE.format(r"the MAC \S+"),
    "mac-of-the-bridge": _DOUBLE.format(r"the MAC \S+"),
    "ipv6-address-given-twice": _DOUBLE.format(r"fd\S+"),
    "subnet-of-a-bystander": r"no neighbour replied for 172\.18\.0\.2, solicited at host/br0",
    "no-masquerade": _NO_MASQUERADE,
    "one-protocol-untranslated": _NO_MASQUERADE,
    "ipv6-untranslated": _NO_MASQUERADE,
    "every-flow-has-one-port": r"host/docker0 and was lost in host|port 40000",
    "direct-routing-open": _CAME,
    "networks-are-not-isolated": _CAME,
    "isolation-of-one-family": _CAME,
    "internal-network-is-open": _CAME,
    "pings-from-outside-get-in": _CAME,
    "what-looks-like-an-answer-gets-in": _CAME,
    "networks-leak-one-way": _CAME,
    "gateway-is-deaf-to-pings": _RULE.format("host", "inet", "input"),
    "host-is-out-of-reach": _RULE.format("host", "inet", "input"),
    "bystanders-are-out-of-reach": _RULE.format("host", "inet", "forward"),
    "internet-is-out-of-reach": _RULE.format("host", "inet", "forward"),
    "host-cannot-reach-in": _RULE.format("host", "inet", "output"),
    "host-cannot-connect-in": _RULE.format("host", "inet", "output"),
    "peers-lose-datagrams": _RULE.format("host", "bridge", "forward"),
    "peers-lose-connections": _RULE.format("host", "bridge", "forward"),
    "ipv6-peers-are-deaf": _RULE.format("host", "bridge", "forward"),
    "common-loopback-filtered": _RULE.format("c1", "inet", "input"),
    "host-mode-listens-in-vain": _RULE.format("host", "inet", "input"),
    "host-mode-reaches-less": _RULE.format("host", "inet", "output"),
    "refused-with-another-code": _RULE.format("c1", "inet", "input"),
    "host-mode-is-translated": r"source rewritten in host: 192\.168\.2\.\d0 port",
    "host-mode-strips-ipv6": r"the host sent the \w+ out of the wrong interface",
    "loopback-down": r"link c1/lo is down",
    "none-is-down": r"link n/lo is down",
    "none-without-ipv6-loopback": r"n has no route to ::1",
    "interface-has-another-name": r"c1 has no route",
    "host-end-down": r"other end, host/veth\w+, is down",
    "host-end-outside-the-bridge": r"host/veth\w+, is not in a bridge",
    "groups-are-not-flooded": r"solicitation did not arrive through host/veth",
    "broadcasts-are-not-flooded": r"solicitation did not arrive through host/veth",
    "peers-are-isolated": r"host/veth\w+, is isolated",
    "ports-answer-for-others": r"host/br-|host/docker0",
    "container-answers-for-everybody": r"forwarded by l2|l2/eth0",
    "pings-are-not-counted": r"rewritten in host .*64 → 65",
    "ttl-is-not-counted": r"rewritten in host .*64 → 65",
    "hop-limit-is-not-counted": r"IPV6_NDISC_HOP_LIMIT|rewritten in host .*64 → 65",
    "one-router-too-many": r"rewritten in host .*64 → 62",
    "answers-of-the-host-are-old": r"sent with 63 by host",
    "peers-are-a-router-apart": r"in host .*64 → 63|by host \(64 → 63\)",
    "no-default-route": r"c1 has no route",
    "default-route-to-nobody": r"no neighbour replied for 172\.17\.\S+, solicited at c1/eth0",
    "no-ipv6-default-route": r"l1 has no route",
    "none-swallows": r"promise, by n|lost in n",
    "internal-has-a-default-route": r"promise, by d1 → host|table inet \w+, chain \w+, .*internal",
    "second-default-route": r"promise, by d1 → host|table inet \w+, chain \w+, .*internal",
    "internal-reaches-the-host": r"promise, by d1 → host",
}
"""Pattern of the words that name the place of each fault; a fault's rules are in its own table."""


def main() -> int:
    """Try the faults, print each result and the share; return 1 if the share is below `BAR`."""
    return sandbox.run(_measure)


def _measure() -> int:
    asked = sys.argv[1:] or list(PLACES)
    found = seen = 0
    for id_ in asked:
        told = stories(id_)
        if not told:
            print(f"unseen  {id_}: no cell was wrong", flush=True)
            continue
        seen += 1
        named = bool(re.search(PLACES[id_], told))
        found += named
        print(f"{'named ' if named else 'MISSED'}  {id_}", flush=True)
        if not named:
            print("\n".join(f"          {line}" for line in told.splitlines()))
    share = found / max(1, seen)
    print(f"The diagnosis names the place of {found} of {seen} faults: {share:.1%} (bar {BAR:.0%})")
    return int(share < BAR)


def stories(id_: str) -> str:
    """Return the explanations of the cells that a fault makes wrong, without packet captures."""
    rows = requirements.of_suites()
    fault, lines = discover(rows)[id_], []
    made: list[FaultyAdapter] = []
    with World.build() as world:
        runtime = FaultyFactory(registry.find("mydocker"), fault, made)(world.host)
        runtime.start()
        with Scene(world, runtime) as scene:
            _build(scene)
            wrong = _first_of_each_kind(diff(scene.observed(), scene.promised()))
            with Replay(scene, [item.cell for item in wrong]) as examination:
                for item in wrong:
                    lines.append(f"{item.cell}: {item.observation}")
                    lines += examination.of(item.cell, item.promise).lines
        runtime.stop()
    return "\n".join(line for line in lines if not line.startswith(("request ", "reply ")))


def _build(scene: Scene) -> None:
    scene.container("c1")
    scene.container("c2", ports=(Publish(8080, 80),))
    scene.network("lan", ipv6=True)
    scene.network("dmz", internal=True)
    scene.containers(l1=Bridge("lan"), l2=Bridge("lan"), d1=Bridge("dmz"), d2=Bridge("dmz"))
    scene.containers(j=Joined("c1"), h=Host(), n=Nothing())


def _first_of_each_kind(wrong: tuple[Difference, ...]) -> list[Difference]:
    kinds: dict[object, Difference] = {}
    for item in wrong:
        kinds.setdefault((str(item.promise), str(item.observation)), item)
    return list(islice(kinds.values(), _KINDS))


if __name__ == "__main__":
    sys.exit(main())
