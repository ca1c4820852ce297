"""Pure tests run without Linux."""

from __future__ import annotations

from tests.support.programs import python, run

FOREIGN = """
import os, select, signal, socket, sys

for module, prefixes in (
    (os, ("pidfd_", "eventfd", "memfd_", "setns", "unshare", "splice", "O_PATH", "sched_getaff")),
    (socket, ("AF_NETLINK", "AF_PACKET", "NETLINK_", "PACKET_", "SOCK_CLOEXEC", "SO_BINDTODEV")),
    (signal, ("sigtimedwait", "sigwaitinfo", "SIGPWR", "SIGSTKFLT")),
    (select, ("epoll", "EPOLL")),
):
    for name in dir(module):
        if name.startswith(prefixes):
            delattr(module, name)
sys.platform = "darwin"

import harness.cli.main, harness.plugin.fixtures, harness.plugin
from harness.adapters import registry

print(registry.find("mydocker").name)
"""


def test_modules_load_without_linux() -> None:
    """Plugin, fixtures, commands and adapter can be imported on other systems."""
    done = run(python(FOREIGN))
    assert done.stdout == "mydocker\n", done.stderr
