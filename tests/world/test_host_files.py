"""Tests that no process in a host can change files of the machine."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from harness.world import host_files
from harness.world.host import HostMachine
from linux.syscalls import mount, umount


def _try_to_write(path: str) -> int:
    """Create and remove a file; return 0, or the errno if the file cannot be created."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        return error.errno or -1
    os.unlink(path)
    return 0


@pytest.mark.parametrize("directory", ["/", "/usr", "/var", "/home", os.path.expanduser("~")])
def test_directories_of_the_machine_are_read_only_in_a_host(
    host: HostMachine, directory: str
) -> None:
    """Root in the host cannot create a file in the machine's directories."""
    assert host.call(_try_to_write, f"{directory}/netmodes-was-here") == errno.EROFS


def test_files_written_to_tmp_stay_in_the_host(host: HostMachine, tmp_path: Path) -> None:
    """The host reads the machine's files in /tmp; new files are visible in the host only."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.write_text("to be read")
    done = host.run(["sh", "-c", f"cat {theirs}; echo new > {ours}"])
    assert (done.returncode, done.stdout) == (0, "to be read")
    assert not ours.exists()


@pytest.mark.parametrize("directory", ["/run", "/etc", "/dev/shm"])
def test_runtime_directories_are_writable_in_a_host(host: HostMachine, directory: str) -> None:
    """Runtimes can write state and configuration files, which are visible in the host only."""
    assert host.call(_try_to_write, f"{directory}/netmodes-was-here") == 0


def test_cached_files_survive_the_host(host: HostMachine) -> None:
    """Files that an adapter writes to the cache are available in the next run."""
    name = os.path.join(host_files.cache(), f"test-{uuid4()}")
    host.run(["touch", name])
    assert os.path.exists(name)
    os.unlink(name)


def test_host_does_not_copy_temporary_mounts_of_the_sandbox() -> None:
    """A host has no copies of the temporary mounts that other workers make in the sandbox.

    Tests of another worker mount and unmount file systems there meanwhile.
    """
    beside = Path(tempfile.mkdtemp(dir="/run"))
    mount("tmpfs", str(beside), "tmpfs")
    try:
        started = HostMachine.start(resolver="203.0.113.53", hosts={})
        mounts = Path(f"/proc/{started.pid}/mountinfo").read_text()
        started.stop()
    finally:
        umount(str(beside))
        beside.rmdir()
    assert str(beside) not in mounts
