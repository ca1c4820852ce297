"""An OCI bundle: a root file system of the test image, and its config.json.

The format is that of https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md. The
image's tree is unpacked once per host; each container has a separate overlay on it. Capabilities,
masked paths and read-only paths have the values that engines use by default.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final

from harness.adapters.bare.protocol import StartRequest
from harness.model.plan import ContainerSpec
from linux.syscalls import MS_BIND, MS_NODEV, mount, umount

FOR_EVER: Final = "/.for-ever"
"""A fifo in every container on which an idle shell waits without a child process."""
PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES: Final = tuple(
    f"CAP_{name}"
    for name in (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
"""https://github.com/moby/moby/blob/v26.1.5/oci/caps/defaults.go."""
_MASKED: Final = (
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_READ_ONLY: Final = (*("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),)
_QUIET: Final = ("nosuid", "noexec", "nodev")


def unpack(archive: str, root: Path) -> None:
    """Unpack the layers of an image archive in order, once per host."""
    done = root.with_name(f"{root.name}.done")
    if done.exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as whole:
        manifest = whole.extractfile("manifest.json")
        layers = json.load(manifest)[0]["Layers"] if manifest else ()
        for name in layers:
            with tarfile.open(fileobj=whole.extractfile(name)) as layer:
                layer.extractall(root, filter="fully_trusted")  # noqa: S202 # our own image
    done.touch()


def mount_root(bundle: Path, image: Path) -> None:
    """Make a bundle's directories and mount its root: an overlay on the image's tree."""
    for name in ("rootfs", "upper", "work"):
        (bundle / name).mkdir()
    os.mkfifo(f"{bundle}/upper{FOR_EVER}")
    where = f"lowerdir={image},upperdir={bundle}/upper,workdir={bundle}/work"
    mount("overlay", str(bundle / "rootfs"), "overlay", MS_NODEV, where)


def unmount(bundle: Path, *names: str) -> None:
    """Unmount the named mounts of a bundle, such as `netns`; by default all of them."""
    for name in names or ("rootfs", "netns"):
        while os.path.ismount(path := bundle / name):
            umount(str(path))


def hold_netns(bundle: Path, namespace: int) -> Path:
    """Bind-mount a netns to a path in the bundle, so that it exists until `unmount`."""
    path = bundle / "netns"
    path.touch()
    mount(f"/proc/self/fd/{namespace}", str(path), flags=MS_BIND)
    return path


def write_config(request: StartRequest, config: Mapping[str, Any] | None = None) -> None:
    """Write config.json, by default with the content of `config_of`."""
    config = config or config_of(request)
    (request.home / "config.json").write_text(json.dumps(config), encoding="utf-8")


FILES: Final = ("resolv.conf", "hostname", "hosts")
"""Files of a container's directory that are bound to its /etc."""


def write_files(home: Path, spec: ContainerSpec, addresses: Sequence[str], resolver: str) -> None:
    """Write the container's `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts`.

    `resolver` is the content of resolv.conf if the container's spec names no DNS servers. The hosts
    file has the names of the loopback addresses, the container's name, and the requested entries.
    """
    hostname = spec.hostname or spec.name
    servers = "".join(f"nameserver {server}\n" for server in spec.dns)
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{ip_interface(item).ip}\t{hostname}" for item in addresses]
    lines += [f"{address}\t{name}" for name, address in spec.hosts]
    hosts = "".join(f"{line}\n" for line in lines)
    for name, content in zip(FILES, (servers or resolver, f"{hostname}\n", hosts), strict=True):
        (home / name).write_text(content, encoding="utf-8")


def config_of(request: StartRequest) -> dict[str, Any]:
    """Return the content of config.json."""
    netns = request.netns
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if netns is not None:
        namespaces.append({"type": "network", **({"path": netns} if netns else {})})
    files = [
        _mount(f"/etc/{name}", "bind", f"{request.home}/{name}", "rbind", "rprivate")
        for name in FILES
    ]
    known = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(request.args),
            "env": [PATH, f"HOSTNAME={request.hostname}"],
            "cwd": "/",
            "capabilities": known,
        },
        "root": {"path": "rootfs"},
        "hostname": request.hostname,
        "mounts": [*_MOUNTS, *files],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": f"/{request.name}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "sysctl": dict(request.spec.sysctls),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def _mount(where: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": where, "type": kind, "source": source, "options": options}


_MOUNTS: Final = (
    _mount("/proc", "proc", "proc", *_QUIET),
    _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    _mount(
        *("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance"),
        *("ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    _mount("/dev/shm", "tmpfs", "tmpfs", *_QUIET, "mode=1777", "size=65536k"),  # noqa: S108 # the container's
    _mount("/sys", "sysfs", "sysfs", *_QUIET, "ro"),
)
