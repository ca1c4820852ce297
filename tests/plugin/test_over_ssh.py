"""Tests of workers on other machines, which pytest-xdist starts by ssh."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.model.plan import HOST, NS1, NS2
from harness.model.topology import pick
from harness.world.build import World
from linux import nftables
from linux.netns import NetNS
from linux.nftables import Nft, Table
from tests.conftest import SSHD
from tests.support.programs import ROOT, Watched, environment, run

TABLE = Table("inet", "firewall")
_LONG = 240.0
"""Time limit in seconds of a run over ssh, where pytest-xdist copies each file of pytest."""
AFAR = """
import os
import pytest
from harness.sandbox import sandbox

@pytest.mark.parametrize("number", range(8))
def test_where(number, world, record_property):
    assert sandbox.inside()
    record_property("machine", os.environ["SSH_CONNECTION"].split()[2])
    record_property("sandbox", os.stat("/proc/self/ns/pid").st_ino)
    record_property("links", ",".join(os.listdir("/sys/class/net")))
"""
SERVER = """
Port 22
ListenAddress {address}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PYTHONPATH={path}
"""
CLIENT = """
Host *
  User root
  BatchMode yes
  IdentityFile {keys}/user
  IdentitiesOnly yes
  UserKnownHostsFile {keys}/known
  GlobalKnownHostsFile /dev/null
"""


@dataclass(frozen=True)
class Fleet:
    """Two machines that can only be reached by ssh, and the machine of the controller."""

    desk: NetNS
    addresses: tuple[str, str]
    config: Path


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Build the machines in the namespaces of a world.

    The machines are ns1 and ns2; the controller runs on the host.
    """
    site = tmp_path / "site" / "afar"
    site.mkdir(parents=True)
    (site / "__init__.py").touch()
    (site / "test_where.py").write_text(AFAR)
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("host", "user"):
        done = run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)])
        assert done.returncode == 0, done.stderr
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as stack:
        world = stack.enter_context(World.build())
        of = {NS1: world.topology.ns1, NS2: world.topology.ns2}
        addresses = [str(pick(interfaces, 4).ip) for interfaces in of.values()]
        for name, address in zip(of, addresses, strict=True):
            space = world.namespaces[name]
            _only_ssh(space)
            settings = tmp_path / f"sshd-{name}"
            path = f"{tmp_path}/site:{ROOT}"
            settings.write_text(SERVER.format(address=address, keys=keys, path=path))
            with space.entered():
                server = Watched([str(SSHD), "-D", "-e", "-f", str(settings)])
            stack.enter_context(server)
            server.expect(f"Server listening on {address} port 22")
        host_key = (keys / "host.pub").read_text()
        (keys / "known").write_text("".join(f"{address} {host_key}" for address in addresses))
        config = tmp_path / "ssh_config"
        config.write_text(CLIENT.format(keys=keys))
        yield Fleet(world.namespaces[HOST], (addresses[0], addresses[1]), config)


def _only_ssh(space: NetNS) -> None:
    """Drop all packets except those of ssh connections."""
    with Nft(space) as rules:
        accept = nftables.verdict("accept")
        rules.apply(
            [
                nftables.add_table(TABLE),
                nftables.add_chain(TABLE, "input", hook="input"),
                nftables.add_rule(TABLE, "input", nftables.iifname("lo"), accept),
                nftables.add_rule(
                    TABLE, "input", nftables.l4proto("tcp"), nftables.dport(22), accept
                ),
                nftables.add_rule(TABLE, "input", nftables.verdict("drop")),
            ]
        )


def over_ssh(fleet: Fleet, python: str, *arguments: str) -> Watched:
    """Run pytest on the controller's machine, with a worker on each of the other two."""
    folder = fleet.config.parent
    workers = []
    for number, address in enumerate(fleet.addresses):
        spec = f"ssh={address}//ssh_config={fleet.config}//chdir={folder}/machine{number}"
        workers += ["--tx", f"{spec}//python={python}"]
    command = [sys.executable, "-m", "pytest", "-p", "harness.plugin", "-p", "no:cacheprovider"]
    command += ["--runtime", "mydocker", "--dist=load", *workers, "--pyargs", *arguments]
    with fleet.desk.entered():
        return Watched(command, env=environment(PYTEST_ADDOPTS=""), at=str(folder))


SANDBOXED = f"{sys.executable} -m harness.cli.main python"


@pytest.mark.timeout(300)
def test_ssh_workers_run_in_sandboxes_of_their_machines(fleet: Fleet) -> None:
    """Workers on two machines run tests in sandboxes there, and there is one common report.

    The machines' firewalls admit only ssh.
    """
    where = fleet.config.parent / "junit.xml"
    arguments = ("afar", "suites.modes.test_none", f"--junitxml={where}", "--report=report")
    with over_ssh(fleet, SANDBOXED, *arguments) as watched:
        assert watched.end(within=_LONG) == 0, watched.output
    found: dict[str, set[str]] = {}
    for item in ElementTree.parse(where).iter("property"):
        found.setdefault(item.attrib["name"], set()).add(item.attrib["value"])
    assert found["machine"] == set(fleet.addresses)
    assert len(found["sandbox"]) == 2
    assert found["links"] == {"lo"}
    report = json.loads((fleet.config.parent / "report" / "report.json").read_text())
    assert "partial" not in report
    files = {item["id"].split("::")[0] for item in report["tests"]}
    assert {"suites/modes/test_none.py"} < files, files
