"""Tests of the state inside a sandbox, and that a sandbox leaves the machine unchanged."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.programs import python, run

LOOK = """
import json, os, socket
from pathlib import Path
from harness.sandbox import sandbox

def namespaces():
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in
            ("mnt", "net", "pid", "uts", "ipc", "cgroup")}

def look():
    links = {p.name: (p / "flags").read_text().strip() for p in Path("/sys/class/net").iterdir()}
    print(json.dumps({
        "pid": os.getpid(), "parent": os.getppid(), "uid": os.getuid(), "links": links,
        "inside": sandbox.inside(), "namespaces": namespaces(), "run": os.listdir("/run"),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
    }))
    return 0

print(json.dumps({"namespaces": namespaces(), "inside": sandbox.inside()}))
raise SystemExit(sandbox.run(look))
"""


def test_sandbox_has_new_namespaces_and_an_empty_network() -> None:
    """A sandbox has a new namespace of each kind and two processes.

    Its network has only `lo`, which is down.
    """
    done = run(python(LOOK))
    outside, inside = map(json.loads, done.stdout.splitlines())
    assert inside["inside"]
    shared = inside["namespaces"].items() & outside["namespaces"].items()
    assert not shared
    assert inside["links"] == {"lo": "0x8"}  # IFF_LOOPBACK, and not IFF_UP
    assert (inside["pid"], inside["parent"], inside["uid"]) == (2, 1, 0)
    assert inside["processes"] == [1, 2]
    assert "netmodes" in inside["run"]


SCENES = {
    "code": ("return 7", 7),
    "exception": ("raise RuntimeError('of mine')", 1),
    "signal": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}


@pytest.mark.parametrize(("body", "code"), SCENES.values(), ids=list(SCENES))
def test_sandbox_run_returns_the_exit_code_of_its_function(body: str, code: int) -> None:
    """`run` returns the exit code of its function, however the function ends."""
    source = f"""
import os, signal
from harness.sandbox import sandbox
def function():
    {body}
print(sandbox.run(function))
"""
    done = run(python(source))
    assert done.stdout.strip() == str(code)
    assert ("of mine" in done.stderr) == ("of mine" in body)


UNCHANGED = """
import json, os, signal, sys
from pathlib import Path
from harness.sandbox import cgroup, sandbox
from linux import syscalls

# A separate view without mounts of other workers; mounts of the sandbox would show.
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SHARED)

def state():
    group = cgroup.own()
    return {
        "fds": sorted(os.listdir("/proc/self/fd")),
        "links": Path("/proc/net/dev").read_text().count(":"),
        "children": Path("/proc/thread-self/children").read_text(),
        "cgroup": group is not None and (group / f"netmodes-{os.getpid()}").exists(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "hostname": os.uname().nodename,
        "environment": dict(os.environ),
    }

def mounts():
    return set(Path("/proc/self/mountinfo").read_text().splitlines())

def change():
    from linux import rtnetlink
    from linux.netlink import Netlink
    import socket
    with Netlink() as kernel:
        kernel.send([rtnetlink.add_bridge("left"), rtnetlink.add_veth("here", "there")])
    syscalls.mount("tmpfs", "/mnt", "tmpfs")
    Path("/mnt/left").touch()
    socket.sethostname("left")
    os.environ["LEFT"] = "yes"
    os.mkdir("/run/left")
    if Path("/sys/fs/cgroup/cgroup.procs").exists():
        os.makedirs("/sys/fs/cgroup/left/over")
    if os.fork() == 0:
        os.setsid()
        signal.pause()
    return 0

before, mounted = state(), mounts()
assert sandbox.run(change) == 0
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
print(json.dumps(sorted(mounts() - mounted)))  # the copy of a mount ends with its directory
print(json.dumps([str(p) for p in (Path("/mnt/left"), Path("/run/left")) if p.exists()]))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no children")
"""


def test_sandbox_leaves_the_host_unchanged() -> None:
    """After a sandbox the host's links, mounts, files and processes are as before.

    Cgroups and signals are as before too.
    """
    done = run(python(UNCHANGED))
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "[]", "[]", "no children"]


ORPHAN = """
import os, time
from pathlib import Path
from harness.sandbox import sandbox

def function():
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        orphan = os.fork()
        if orphan:
            os.write(writer, str(orphan).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = Path("/proc", os.read(reader, 16).decode())
    deadline = time.monotonic() + 10
    while orphan.exists() and time.monotonic() < deadline:
        os.sched_yield()
    return int(orphan.exists())

raise SystemExit(sandbox.run(function))
"""


def test_sandbox_reaps_orphans() -> None:
    """An orphan in the sandbox is reaped, so it leaves no zombie."""
    assert run(python(ORPHAN)).returncode == 0


def test_sandboxes_can_be_nested() -> None:
    """A process inside a sandbox can create another sandbox."""
    source = """
from harness.sandbox import sandbox
raise SystemExit(sandbox.run(lambda: sandbox.run(lambda: 5)))
"""
    assert run(python(source)).returncode == 5


def test_private_run_keeps_working_directory_and_links(tmp_path: Path) -> None:
    """The private /run does not hide the working directory.

    Links such as /run/lock still lead to their targets.
    """
    source = f"""
import os
from harness.sandbox import sandbox
from linux import syscalls

def function():
    syscalls.mount("{tmp_path}", "/run", flags=syscalls.MS_BIND)
    os.makedirs("/run/media/stick")
    os.symlink("/tmp", "/run/shortcut")
    os.mkdir("/run/secret")
    os.chdir("/run/media/stick")
    open("seen", "w").close()
    return sandbox.run(lambda: print(os.getcwd(), os.listdir("."), sorted(os.listdir("/run"))) or 0)

raise SystemExit(sandbox.run(function))
"""
    done = run(python(source))
    assert done.stdout == ("/run/media/stick ['seen'] ['media', 'netmodes', 'shortcut']\n"), (
        done.stderr
    )
