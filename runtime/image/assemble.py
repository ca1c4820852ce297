"""The image `base`, put together from what this machine has, without a network."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from runtime.errors import UnsupportedError
from runtime.image import imagepython
from runtime.image.base import BASE, Image, fingerprint, recipe
from runtime.image.create import base_config
from runtime.store import now, read_json, write_json

_DIRECTORIES: Final = ("/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin")
_NEEDED: Final = ("sh", "sleep", "cat", "ls", "env", "true")
_WANTED: Final = (
    *("basename", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "echo", "expr", "false"),
    *("getent", "grep", "head", "hostname", "id", "ip", "kill", "ln", "mkdir", "mount", "mv"),
    *("nc", "ping", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sort", "ss"),
    *("stat", "stty", "tail", "tee", "test", "touch", "tr", "tty", "uname", "uniq", "wc", "whoami"),
)
_BESIDE: Final = ("getent",)
"""What busybox does not do: ask the C library's resolver."""
_PT_INTERP: Final = 3
_KEPT: Final = 30 * 24 * 3600
"""For how many seconds a layer of `base` is kept that another has taken the place of."""


def assemble(cache: str) -> Image:
    """Make `base` anew in the cache directory, whose lock must be held."""
    # tempfile draws the same names in every fork that has its parent's pid, as forks into
    # new pid namespaces have.
    scratch = tempfile.mkdtemp(prefix=f"new-{secrets.token_hex(4)}", dir=cache)
    try:
        os.chmod(scratch, 0o755)  # noqa: S103 - it becomes "/"
        busybox = _static_busybox()
        if busybox:
            sources = _from_busybox(scratch, busybox) + _from_programs(scratch, (), _BESIDE)
        else:
            sources = _from_programs(scratch, _NEEDED, _WANTED)
        sources += imagepython.install(scratch, copy=_copy, libraries=_libraries)
        _furnish(scratch)
        size, created = _size(scratch), now()
        made_of = {path: fingerprint(path) for path in [*sources, *_existing(_DIRECTORIES)]}
        config = base_config(scratch, created)
        layer = f"base-{os.path.basename(scratch)[4:]}"
        os.rename(scratch, f"{cache}/{layer}")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _forget_old(cache)
    record = {
        "layer": layer,
        "recipe": recipe(),
        "from": made_of,
        "size": size,
        "created": created,
        "id": config.identity,
        "config": config.raw.decode(),
    }
    write_json(f"{cache}/base.json", record)
    return Image(BASE, (f"{cache}/{layer}",), size, created, config.identity)


def _forget_old(cache: str) -> None:
    """Remove layers that were replaced a month ago; on a younger one a container may stand."""
    with suppress(OSError, ValueError, KeyError):
        os.utime(f"{cache}/{read_json(f'{cache}/base.json')['layer']}")  # it is replaced now
    for entry in os.scandir(cache):
        kept = time.time() - entry.stat(follow_symlinks=False).st_mtime < _KEPT
        if entry.name.startswith(("base-", "new-")) and not kept:
            shutil.rmtree(entry.path, ignore_errors=True)


def _existing(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if os.path.isdir(path)]


def _size(root: str) -> int:
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _, names in os.walk(root)
        for name in names
    )


def _furnish(root: str) -> None:
    for directory in ("dev", "etc", "proc", "root", "run", "sys", "var/tmp", "tmp"):
        os.makedirs(f"{root}/{directory}", mode=0o755, exist_ok=True)
    os.chmod(f"{root}/tmp", 0o1777)  # noqa: S103, S108 - the image's own
    os.chmod(f"{root}/root", 0o700)
    for name, text in {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "hosts": "",
        "hostname": "",
        "resolv.conf": "",
    }.items():
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)


def _copy(source: str, root: str, target: str) -> None:
    """Copy one file; a second name of the same file becomes a second name of the copy."""
    if os.path.exists(root + target):
        return
    os.makedirs(os.path.dirname(root + target), mode=0o755, exist_ok=True)
    first = root + os.path.realpath(source)
    if os.path.exists(first):
        os.link(first, root + target)
    else:
        shutil.copyfile(source, root + target)
        os.chmod(root + target, 0o755)  # noqa: S103 - programs


# --- from a static busybox --------------------------------------------------------


def _static_busybox() -> str | None:
    for directory in _DIRECTORIES:
        path = f"{directory}/busybox"
        if os.access(path, os.X_OK) and interpreter(path) is None:
            return path
    return None


def _from_busybox(root: str, busybox: str) -> list[str]:
    _copy(busybox, root, "/bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{root}/bin/{applet}")
    return [busybox]


# --- from the host's programs -----------------------------------------------------


def _find(name: str) -> str | None:
    for directory in _DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _from_programs(root: str, needed: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Copy programs and their libraries; a file that has several names is copied once."""
    programs: dict[str, list[str]] = {}
    for name in (*needed, *wanted):
        path = _find(name)
        if path is not None and _is_elf(path):
            programs.setdefault(os.path.realpath(path), []).append(name)
        elif name in needed:
            raise UnsupportedError(
                "assemble the base image",
                f"this machine has no program {name!r} in {':'.join(_DIRECTORIES)}",
                remedy="install busybox-static",
            )
    libraries = _libraries(list(programs))
    for path, names in programs.items():
        _copy(path, root, f"/bin/{names[0]}")
        for other in names[1:]:
            os.symlink(names[0], f"{root}/bin/{other}")
    for library in libraries:
        _copy(library, root, library)
    return [*programs, *libraries]


def _libraries(programs: list[str]) -> list[str]:
    """What the programs' own loaders say they load, the loaders included."""
    running = []
    found: dict[str, None] = {}
    for program in programs:
        loader = interpreter(program)
        if loader is not None:
            found[loader] = None
            running.append(
                subprocess.Popen(
                    [loader, "--list", program],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
    for process in running:
        listed, _ = process.communicate()
        for line in listed.splitlines():
            # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)"
            words = line.split()
            path = words[2] if len(words) > 2 and words[1] == "=>" else words[0]
            if path.startswith("/"):
                found[path] = None
    return list(found)


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def interpreter(path: str) -> str | None:
    """The loader that an ELF file asks for (PT_INTERP); `None` for a static program: elf(5)."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or head[4] not in (1, 2):
            return None
        order = "<" if head[5] == 1 else ">"
        wide = head[4] == 2
        offset = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
        size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
        file.seek(offset)
        table = file.read(size * count)
        for start in range(0, size * count, size):
            if struct.unpack_from(f"{order}I", table, start)[0] == _PT_INTERP:
                place = start + (8 if wide else 4)
                where = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", table, place)[0]
                place = start + (32 if wide else 16)
                length = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", table, place)[0]
                file.seek(where)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None
