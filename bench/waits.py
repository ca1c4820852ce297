"""Processor time and kernel waits of a test run: `python -m bench.waits [ROUNDS [SUITE…]]`.

All figures are seconds. Processor times include the whole machine, so stop all other work. The
figure of a wait is the time that processes spend in uninterruptible sleep for it, summed over all
processes and sampled every 50 ms. Only root may read the kernel stacks (proc_pid_stack(5)); for
other users the waits are missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.timing import Row, show

EVERY: Final = 0.05
USER_HZ: Final = os.sysconf("SC_CLK_TCK")
_KERNEL_THREADS: Final = "2"
"""The pid of kthreadd, the parent of all kernel threads."""

WAITS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("waits with the rtnl lock, bridge removal", ("br_multicast_dev_del",)),
    ("waits without the rtnl lock, link removal", ("netdev_run_todo",)),
    ("waits for removal of a packet socket", ("packet_release", "packet_set_ring")),
    ("waits for removal of nft rules", ("nft_rcv_nl_event",)),
    (
        "waits for the rtnl lock",
        (
            *("rtnl_", "rtnetlink_", "inet_rtm_", "inet6_rtm_", "inet6_addr_"),
            *("register_nexthop_notifier", "register_netdevice_notifier", "dev_ioctl"),
        ),
    ),
)
"""Waits by the kernel functions on the stack that identify them; the first match counts."""


def main() -> int:
    """Run `pytest -n auto`, sample its processes, and print the times."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", *(sys.argv[2:] or ["suites"])]
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, figure in watched(command).items():
            taken[name].append(figure)
    show("Times of a run", [Row(name, tuple(figures), unit="s") for name, figures in taken.items()])
    return 0


def watched(command: Sequence[str]) -> dict[str, float]:
    """Run a command and return its wall-clock time, processor times and kernel waits in seconds."""
    seen: Counter[str] = Counter()
    began, (user, kernel) = time.monotonic(), _processors()
    looks = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            seen.update(_waiting())
            looks += 1
            time.sleep(EVERY)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    clock, (user_now, kernel_now) = time.monotonic() - began, _processors()
    found = {
        "wall-clock time": clock,
        "processors in user mode": user_now - user,
        "processors in kernel mode": kernel_now - kernel,
    }
    return found | {name: seen[name] * clock / looks for name, _ in WAITS if seen[name]}


def _processors() -> tuple[float, float]:
    """Return the user-mode and the kernel-mode seconds of all processors: proc_stat(5)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, hard, soft, *_ = map(int, file.readline().split()[1:])
    return (user + nice) / USER_HZ, (system + hard + soft) / USER_HZ


def _waiting() -> list[str]:
    """Return the names of the kernel waits (`WAITS`) in which processes sleep uninterruptibly."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
            if state != "D" or parent == _KERNEL_THREADS:
                continue
            stack = Path(f"/proc/{process}/stack").read_text()
        except OSError:  # The process has ended, or access is denied.
            continue
        calls = [line.split()[1] for line in stack.splitlines()]
        found += [name for name, marks in WAITS if _is(calls, marks)][:1]
    return found


def _is(calls: Sequence[str], marks: tuple[str, ...]) -> bool:
    return any(call.startswith(marks) for call in calls)


if __name__ == "__main__":
    sys.exit(main())
