"""Assembly of the image `base` from programs of this machine.

The programs are the applets of a static busybox if the machine has one, else some of the host's
programs with the libraries that their loader lists. The image also has a Python for the harness's
probe: the interpreter that runs mydocker, with the modules that it loads itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from runtime.errors import UnsupportedError
from runtime.image.config import Image
from runtime.image.documents import compose
from runtime.image.store import BASE, add_mount_points, fingerprint, recipe_checksum
from runtime.image.tar import pack
from runtime.store import now, read_json, write_json

PYTHON: Final = "/usr/bin/python3"
"""Path of the interpreter in the image."""

_DIRECTORIES: Final = ("/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin")
_REQUIRED: Final = ("sh", "sleep", "cat", "ls", "env", "true")
_OPTIONAL: Final = (
    *("basename", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "echo", "expr", "false"),
    *("getent", "grep", "head", "hostname", "id", "ip", "kill", "ln", "mkdir", "mount", "mv"),
    *("nc", "ping", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sort", "ss"),
    *("stat", "stty", "tail", "tee", "test", "touch", "tr", "tty", "uname", "uniq", "wc", "whoami"),
)
_PT_INTERP: Final = 3
_GRACE: Final = 30 * 24 * 3600
"""Time for which a replaced layer of `base` is kept for the containers on it, in seconds."""
_LIBRARY: Final = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
"""Module path of an interpreter at `PYTHON`: https://docs.python.org/3/library/sys_path_init.html."""
_LIST_MODULES: Final = """
import __future__, base64, json, os, select, socket, struct, time, sys
files = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
print(json.dumps([(name, path) for name, path in files if path and name != "__main__"]))
"""


def assemble(cache: str) -> Image:
    """Create `base` in the cache directory, whose lock must be held."""
    # tempfile draws the same names in every fork with the same pid as its parent, such as forks
    # into new pid namespaces.
    scratch = tempfile.mkdtemp(prefix=f"new-{secrets.token_hex(4)}", dir=cache)
    try:
        busybox = _find("busybox")
        if busybox is not None and interpreter(busybox) is None:
            # busybox lacks a program that asks the C library's resolver
            sources = _add_busybox(scratch, busybox) + _add_programs(scratch, (), ["getent"])
        else:
            sources = _add_programs(scratch, _REQUIRED, _OPTIONAL)
        sources += _add_python(scratch)
        _add_etc(scratch)
        size, created = _size(scratch), now()
        directories = [path for path in _DIRECTORIES if os.path.isdir(path)]
        made_of = {path: fingerprint(path) for path in [*sources, *directories]}
        config = compose([_diff_id(scratch)], {}, created=created)
        layer = f"base-{os.path.basename(scratch)[4:]}"
        os.rename(scratch, f"{cache}/{layer}")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _remove_replaced(cache)
    record = {
        "layer": layer,
        "recipe": recipe_checksum(),
        "from": made_of,
        "size": size,
        "created": created,
        "id": config.identity,
        "config": config.raw.decode(),
    }
    write_json(f"{cache}/base.json", record)
    return Image(BASE, (f"{cache}/{layer}",), size, created, config.identity)


def _diff_id(tree: str) -> str:
    found = hashlib.sha256()
    for piece in pack(tree, layer=True):
        found.update(piece)
    return found.hexdigest()


def _remove_replaced(cache: str) -> None:
    """Remove versions of `base` that were replaced over a month ago.

    A container may still use a version that was replaced later.
    """
    with suppress(OSError, ValueError, KeyError):
        os.utime(f"{cache}/{read_json(f'{cache}/base.json')['layer']}")  # replaced now
    for entry in os.scandir(cache):
        kept = time.time() - entry.stat(follow_symlinks=False).st_mtime < _GRACE
        if entry.name.startswith(("base-", "new-")) and not kept:
            shutil.rmtree(entry.path, ignore_errors=True)


def _size(root: str) -> int:
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _, names in os.walk(root)
        for name in names
    )


def _add_etc(root: str) -> None:
    add_mount_points(root)
    for directory in ("root", "run", "var/tmp", "tmp"):
        os.makedirs(f"{root}/{directory}", mode=0o755, exist_ok=True)
    os.chmod(f"{root}/tmp", 0o1777)  # noqa: S103, S108 - the image's own
    os.chmod(f"{root}/root", 0o700)
    for name, text in {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }.items():
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)


def _copy(source: str, root: str, target: str) -> None:
    """Copy one file; make a hard link if the file was copied before under another path."""
    if os.path.exists(root + target):
        return
    os.makedirs(os.path.dirname(root + target), mode=0o755, exist_ok=True)
    first = root + os.path.realpath(source)
    if os.path.exists(first):
        os.link(first, root + target)
    else:
        shutil.copyfile(source, root + target)
        os.chmod(root + target, 0o755)  # noqa: S103 - programs


# --- programs ----------------------------------------------------------------------


def _find(name: str) -> str | None:
    for directory in _DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _add_busybox(root: str, busybox: str) -> list[str]:
    _copy(busybox, root, "/bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{root}/bin/{applet}")
    return [busybox]


def _add_programs(root: str, required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Copy programs and their libraries; a file that has several names is copied once."""
    programs: dict[str, list[str]] = {}
    for name in (*required, *optional):
        path = _find(name)
        if path is not None and _is_elf(path):
            programs.setdefault(os.path.realpath(path), []).append(name)
        elif name in required:
            raise UnsupportedError(
                "assemble the base image",
                f"this machine has no program {name!r} in {':'.join(_DIRECTORIES)}",
                remedy="install the package busybox-static",
            )
    for path, names in programs.items():
        _copy(path, root, f"/bin/{names[0]}")
        for other in names[1:]:
            os.symlink(names[0], f"{root}/bin/{other}")
    return [*programs, *_add_libraries(root, programs)]


def _add_libraries(root: str, programs: Iterable[str]) -> list[str]:
    """Copy the shared objects that the programs' loaders list, and the loaders."""
    found: dict[str, None] = {}
    for program in programs:
        loader = interpreter(program)
        if loader is None:
            continue
        found[loader] = None
        command = [loader, "--list", program]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in listed.stdout.splitlines():
            # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)"
            words = line.split()
            path = words[2] if len(words) > 2 and words[1] == "=>" else words[0]
            if path.startswith("/"):
                found[path] = None
    for library in found:
        _copy(library, root, library)
    return list(found)


def _is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def interpreter(path: str) -> str | None:
    """Return the loader of this machine's ELF file (PT_INTERP, elf(5)); `None` if it has none."""
    with open(path, "rb") as file:
        head = file.read(64)
        if not head.startswith(b"\x7fELF"):
            return None
        wide = head[4] == 2
        word = "Q" if wide else "I"
        (table,) = struct.unpack_from(word, head, 32 if wide else 28)
        size, count = struct.unpack_from("HH", head, 54 if wide else 42)
        file.seek(table)
        for segment in [file.read(size) for _ in range(count)]:
            if struct.unpack_from("I", segment)[0] == _PT_INTERP:
                (offset,) = struct.unpack_from(word, segment, 8 if wide else 4)
                (length,) = struct.unpack_from(word, segment, 32 if wide else 16)
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None


# --- Python ------------------------------------------------------------------------


def _add_python(root: str) -> list[str]:
    """Copy the running interpreter with the modules of a probe, as bytecode."""
    own = os.path.realpath(sys.executable)
    listed = subprocess.run(
        [own, "-I", "-S", "-c", _LIST_MODULES], capture_output=True, text=True, check=True
    )
    shared = []
    _copy(own, root, PYTHON)
    os.makedirs(f"{root}{_LIBRARY}/lib-dynload", mode=0o755, exist_ok=True)
    for name, path in json.loads(listed.stdout):
        if ".so" in os.path.basename(path):
            shared.append(path)
            _copy(path, root, f"{_LIBRARY}/lib-dynload/{os.path.basename(path)}")
        elif name != "os.path":  # the module is also listed under its own name
            _compile(name, path, root)
    return [own, os.path.dirname(os.__file__), *shared, *_add_libraries(root, [own, *shared])]


def _compile(name: str, path: str, root: str) -> None:
    """Compile a module to bytecode that is imported without a check of its source."""
    relative = name.replace(".", "/")
    if os.path.basename(path) == "__init__.py":
        relative += "/__init__"
    target = f"{root}{_LIBRARY}/{relative}.pyc"
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    py_compile.compile(
        path,
        cfile=target,
        dfile=f"{relative}.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
