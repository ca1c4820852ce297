"""Tests of `exec` in a running container, and of the environment of commands."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime.container import exec as execution
from runtime.engine import Engine
from runtime.errors import (
    CommandError,
    CommandNotFoundError,
    ConflictError,
    NotFoundError,
    UnsupportedError,
)
from runtime.init import rootfs
from runtime.init.process import Command, Stdio
from runtime.init.security import DEFAULT_CAPABILITIES
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.container.container_files import sh
from tests.runtime.support.inspection import nothing_left, opened, until


@pytest.fixture
def web(engine: Engine) -> ContainerRecord:
    """Start a container that sleeps, without a network so that it starts quickly."""
    return engine.run("base", FOR_EVER, name="web", network="none", env={"COLOUR": "red"})


def test_exec_returns_output_and_exit_code(engine: Engine, web: ContainerRecord) -> None:
    """`exec` returns stdout and stderr separately.

    After a killed command it returns 128 plus the signal's number.
    """
    result = engine.exec(web.id, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert result == (7, b"out\n", b"err\n")
    assert engine.exec(web.id, ["sh", "-c", "kill -9 $$"]).exit_code == 137


def test_exec_returns_output_larger_than_a_pipe_holds(engine: Engine, web: ContainerRecord) -> None:
    """`exec` returns output larger than any pipe's capacity, on both streams at the same time."""
    script = "dd if=/dev/zero bs=1024 count=512 2>/dev/null; dd if=/dev/zero bs=1024 count=256 >&2"
    result = engine.exec(web.id, ["sh", "-c", script])
    assert len(result.stdout) == 512 * 1024
    assert result.stderr[: 256 * 1024] == bytes(256 * 1024)


def test_exec_reports_container_that_just_stopped(engine: Engine, web: ContainerRecord) -> None:
    """`exec` reports that the container has stopped, not that a system call failed."""
    handle = os.pidfd_open(web.state.pid)
    nothing = os.open("/dev/null", os.O_RDWR)
    try:
        engine.kill("web")
        engine.wait("web")
        command = Command(["true"], {}, "/")
        with pytest.raises(ConflictError, match="has just stopped"):
            execution.spawn(handle, command, tty=False, stdio=Stdio(nothing, nothing, nothing))
    finally:
        os.close(nothing)
        os.close(handle)


def test_exec_enters_every_namespace_of_the_container(engine: Engine, web: ContainerRecord) -> None:
    """A command of `exec` is in each namespace of pid 1, and in none of the caller's."""
    for kind in ("pid", "mnt", "net", "uts", "ipc", "cgroup"):
        inside = sh(engine, f"readlink /proc/self/ns/{kind}").strip()
        assert inside == os.readlink(f"/proc/{web.state.pid}/ns/{kind}")
        assert inside != os.readlink(f"/proc/thread-self/ns/{kind}")


def test_exec_has_requested_environment_and_directory(engine: Engine, web: ContainerRecord) -> None:
    """A command of `exec` has the container's directory and environment.

    The requested variables are added to the environment.
    """
    result = engine.exec(
        web.id, ["sh", "-c", "echo $COLOUR $SHAPE; pwd"], env={"SHAPE": "round"}, workdir="/tmp"
    )
    assert result.stdout == b"red round\n/tmp\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [("nope", 127), ("/bin/nope", 127), ("/etc/passwd", 126), ("/bin", 126)],
)
def test_exec_of_unusable_command_has_the_exit_code_of_a_shell(
    engine: Engine, web: ContainerRecord, root: Path, command: str, code: int
) -> None:
    """`exec` of an unusable command has a shell's exit code and leaves nothing behind."""
    kind = CommandNotFoundError if code == 127 else CommandError
    with nothing_left(root), pytest.raises(kind, match=command) as caught:
        engine.exec(web.id, [command])
    assert caught.value.exit_code == code


def test_exec_timeout_kills_every_process_of_the_command(
    engine: Engine, web: ContainerRecord, root: Path
) -> None:
    """`exec` kills every process of its command at the timeout."""
    with nothing_left(root), pytest.raises(TimeoutError, match=r"0\.05 s"):
        engine.exec(web.id, FOR_EVER, timeout=0.05)


def test_exec_does_not_wait_for_background_processes(engine: Engine, web: ContainerRecord) -> None:
    """`exec` returns while a background child holds its output open; pid 1 reaps the child."""
    assert engine.exec(web.id, ["sh", "-c", "sleep 1000 & echo done"]).stdout == b"done\n"


def test_exec_in_stopped_or_unknown_container_is_refused(
    engine: Engine, web: ContainerRecord
) -> None:
    """The error of `exec` names a stopped or unknown container."""
    engine.stop(web.id)
    with pytest.raises(ConflictError, match="'web': the container is not running"):
        engine.exec("web", ["true"])
    with pytest.raises(NotFoundError, match="nope"):
        engine.exec("nope", ["true"])


# --- the environment of the command ---------------------------------------------------


def test_pid_1_is_mydocker_and_the_command_is_pid_2(engine: Engine, web: ContainerRecord) -> None:
    """Pid 1 is mydocker, without any part of the host's command line; pid 2 is the command."""
    assert sh(engine, "cat /proc/1/comm") == "mydocker-init\n"
    assert sh(engine, "cat /proc/1/cmdline").rstrip("\0") == "mydocker-init"
    assert sh(engine, "tr '\\0' ' ' < /proc/2/cmdline").split() == FOR_EVER


def test_container_cannot_inspect_its_pid_1(engine: Engine, web: ContainerRecord) -> None:
    """Root of the container cannot read pid 1's files, memory, environment or namespaces."""
    for name in ("fd", "root/", "cwd/", "environ", "mem", "ns/net", "maps"):
        shown = engine.exec(web.id, ["sh", "-c", f"ls /proc/1/{name}; cat /proc/1/{name}"])
        assert shown.exit_code, f"/proc/1/{name} can be read"
    assert os.readlink(f"/proc/{web.state.pid}/ns/net")  # the host can see them


@pytest.mark.parametrize("who", ["2", "self"])
def test_default_capabilities_are_those_of_docker(
    engine: Engine, web: ContainerRecord, who: str
) -> None:
    """The command and later `exec` have Docker's default capabilities.

    The default holds for the permitted, effective and bounding sets.
    """
    status = dict(
        line.split(":\t", 1) for line in sh(engine, f"cat /proc/{who}/status").splitlines()
    )
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == DEFAULT_CAPABILITIES
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


def test_command_has_only_three_file_descriptors(engine: Engine, web: ContainerRecord) -> None:
    """The command and later `exec` have the descriptors 0, 1 and 2 only.

    `ls`, which lists them, has a fourth.
    """
    assert sh(engine, "ls /proc/2/fd").split() == ["0", "1", "2"]
    assert sh(engine, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_pid_1_keeps_no_descriptor_of_its_caller(engine: Engine, root: Path) -> None:
    """Pid 1 keeps only its pipes, log and record: no lock, file or socket of its caller."""
    with open(root / "secret", "w", encoding="ascii"):
        web = engine.run("base", FOR_EVER, network="none")
    directory = f"{root}/containers/{web.id}"
    wanted = {"/dev/null", "pipe", f"{directory}/log", f"{directory}/exit"}
    # The start returns once the command runs; pid 1 closes its start-up descriptors after that.
    until(lambda: opened(web.state.pid) == wanted, f"pid 1 has only {wanted} open")


def test_command_starts_with_no_signal_ignored_or_blocked(
    engine: Engine, web: ContainerRecord
) -> None:
    """A command starts with no signal ignored or blocked.

    Python ignores SIGPIPE for itself, but the command does not. Signals 32 and 33 are exceptions:
    glibc's posix_spawn(3) ignores them without clone3(2), and each C library sets them itself.
    """
    internal = 0b11 << 31
    for who in ("2", "self"):
        # Without a shell: busybox's shell ignores SIGQUIT for its children too.
        looked = engine.exec("web", ["grep", "-E", "Sig(Ign|Blk)", f"/proc/{who}/status"])
        lines = looked.stdout.decode().splitlines()
        assert [int(line.split()[1], 16) & ~internal for line in lines] == [0, 0]


def test_host_file_system_is_unreachable_from_the_container(
    engine: Engine, web: ContainerRecord
) -> None:
    """A container reaches no part of the host's file system, and its files stay inside.

    The test never deletes files in the container. If the container's root were the host's by
    mistake, the test must not destroy the host's files.
    """
    inside, outside = os.stat(f"/proc/{web.state.pid}/root"), os.stat("/")
    assert (inside.st_dev, inside.st_ino) != (outside.st_dev, outside.st_ino)
    name = f"/only-in-{web.id[:12]}"
    assert sh(engine, "stat -c %d:%i /").strip() == f"{inside.st_dev}:{inside.st_ino}"
    sh(engine, f"echo x > {name}")
    assert not Path(name).exists()
    other = engine.run("base", FOR_EVER, network="none")
    assert engine.exec(other.id, ["ls", name]).exit_code != 0
    mounts = [line.split() for line in sh(engine, "cat /proc/self/mountinfo").splitlines()]
    assert [mount[4] for mount in mounts].count("/") == 1


def test_host_root_as_container_root_is_refused() -> None:
    """A container whose root would be the host's root is refused.

    Neither its start nor `exec` runs any command.
    """
    with pytest.raises(UnsupportedError, match="still reachable"):
        rootfs._refuse_host_root(os.stat("/"))
    idle = os.fork()
    if not idle:
        signal.pause()
    handle = os.pidfd_open(idle)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            execution._enter(handle)
        except UnsupportedError:
            code = 7
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        os.kill(idle, signal.SIGKILL)
        os.waitpid(idle, 0)
        os.close(handle)


def test_proc_and_sys_show_only_the_container(engine: Engine, web: ContainerRecord) -> None:
    """/proc and /sys show only the container's processes and devices.

    Host settings cannot be changed through them.
    """
    pids = {int(item) for item in sh(engine, "ls /proc").split() if item.isdigit()}
    assert {1, 2} <= pids
    assert len(pids) <= 5
    assert sh(engine, "ls /sys/class/net").split() == ["lo"]
    for path in ("/proc/sys/kernel/panic", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
        # Opened for writing without a write: a writable setting would be the host's.
        tried = engine.exec(web.id, ["sh", "-c", f": >> {path}"])
        assert tried.exit_code, f"{path} can be written"
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list"):
        assert not sh(engine, f"cat {path} 2>/dev/null | head -c 1")


def test_dev_has_only_harmless_devices(engine: Engine, web: ContainerRecord) -> None:
    """The devices in /dev work; device nodes that the container makes cannot be opened."""
    sh(
        engine,
        "head -c 8 /dev/urandom > /dev/null; test -c /dev/full -a -d /dev/pts -a -d /dev/shm",
    )
    assert sh(engine, "head -c 3 /dev/zero | tr '\\0' z") == "zzz"
    assert sh(engine, "echo hi > /dev/shm/x; cat /dev/shm/x") == "hi\n"
    mounts = [line.split() for line in sh(engine, "cat /proc/self/mountinfo").splitlines()]
    options = {mount[4]: mount[5].split(",") for mount in mounts}
    for directory in ("/", "/dev", "/dev/shm", "/proc", "/sys"):
        assert "nodev" in options[directory]


def test_hostname_and_resolver_files_have_requested_names(
    engine: Engine, web: ContainerRecord
) -> None:
    """Hostname, /etc/hostname, /etc/hosts and resolv.conf have the requested names."""
    engine.run(
        "base",
        FOR_EVER,
        name="named",
        hostname="web.example",
        add_hosts=["db:192.0.2.7"],
        dns=["192.0.2.53", "2001:db8::53"],
    )

    def read(path: str) -> str:
        return engine.exec("named", ["cat", path]).stdout.decode()

    assert read("/proc/sys/kernel/hostname") == read("/etc/hostname") == "web.example\n"
    assert "127.0.0.1\tlocalhost\n" in read("/etc/hosts")
    assert "172.17.0.1\tweb.example\n" in read("/etc/hosts")
    assert "192.0.2.7\tdb\n" in read("/etc/hosts")
    assert read("/etc/resolv.conf") == "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"
