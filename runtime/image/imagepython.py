"""A Python for the image `base`: this machine's own, with the few modules that a probe needs.

What comes along is what the interpreter itself says it has loaded: some sixty modules of
the standard library, as bytecode, and the shared objects among them.
"""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

PATH: Final = "/usr/bin/python3"
"""Where it is in the image."""
_WANTED: Final = ("__future__", "base64", "json", "os", "select", "socket", "struct", "time")
_ASK: Final = f"""
import {", ".join(_WANTED)}, sys
files = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
print(json.dumps([(name, path) for name, path in files if path and name != "__main__"]))
"""
_LIBRARY: Final = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
"""Where an interpreter at `PATH` looks for its modules: https://docs.python.org/3/library/sys_path_init.html."""

Copy = Callable[[str, str, str], None]
"""Copies a file, from a path here, below a root, to a path there."""


def install(root: str, *, copy: Copy, libraries: Callable[[list[str]], Sequence[str]]) -> list[str]:
    """Put a Python into an image's tree; the files of this machine that it was made of.

    `libraries` tells which shared objects programs load.
    """
    own = os.path.realpath(sys.executable)
    asked = subprocess.run(
        [own, "-I", "-S", "-c", _ASK], capture_output=True, text=True, check=True
    )
    loaded: list[tuple[str, str]] = json.loads(asked.stdout)
    shared = [path for _, path in loaded if ".so" in os.path.basename(path)]
    copy(own, root, PATH)
    for name, path in loaded:
        if path in shared:
            copy(path, root, f"{_LIBRARY}/lib-dynload/{os.path.basename(path)}")
        else:
            _compile(name, path, root)
    os.makedirs(f"{root}{_LIBRARY}/lib-dynload", mode=0o755, exist_ok=True)
    found = libraries([own, *shared])
    for library in found:
        copy(library, root, library)
    return [own, os.path.dirname(os.__file__), *shared, *found]


def _compile(name: str, path: str, root: str) -> None:
    """A module as bytecode without its source, which nothing has to be checked against."""
    parts = name.split(".")
    if os.path.basename(path) == "__init__.py":
        parts.append("__init__")
    elif name == "os.path":
        return  # it goes by its own name as well
    target = f"{root}{_LIBRARY}/{'/'.join(parts)}.pyc"
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    py_compile.compile(
        path,
        cfile=target,
        dfile=f"{'/'.join(parts)}.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
