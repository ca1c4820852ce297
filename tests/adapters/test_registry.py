"""Tests of the registry: described and bare runtimes, installed, missing or from a prefix."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.bare import cni
from harness.adapters.bare.adapter import BareFactory
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.registry import DoesNotLoad, NotInstalled, UnknownRuntime
from harness.cli import main
from harness.cli.runtimes import version_of
from tests.adapters.acme import describe


def program(path: Path, content: str) -> None:
    """Write an executable file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def test_error_of_a_missing_runtime_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error for a missing runtime names the programs and packages in one line."""
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled) as raised:
        registry.find("podman")
    told = str(raised.value)
    assert told.startswith("not installed: podman, crun, conmon not found. Try: apt-get install ")
    assert "\n" not in told


def test_at_sign_in_a_path_belongs_to_the_path(tmp_path: Path) -> None:
    """An at sign in the path of a description is part of the path.

    An at sign after the file's name separates the folder of programs.
    """
    folder = tmp_path / "us@home"
    folder.mkdir()
    path = describe(folder, command="acmectl")
    program(tmp_path / "v@2/acmectl", "#!/bin/sh\n")
    plain, elsewhere = registry.load(path), registry.load(f"{path}@{tmp_path}/v@2")
    assert isinstance(plain, CliSpec)
    assert isinstance(elsewhere, CliSpec)
    assert (plain.name, plain.prefix) == ("acme", "")
    assert elsewhere.command == (f"{tmp_path}/v@2/acmectl",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "no_such_module:X",
            "does not load: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("pathlib:Acme", "does not load: AttributeError: .*Acme"),
        ("pathlib:Path", "not an adapter class with `features`"),
        ("math:pi", "is 3.14.*, not an adapter class"),
    ],
)
def test_entry_point_that_does_not_load_is_named(
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error for an entry point that does not load names the entry point.

    The list of adapters still has all others.
    """
    point = EntryPoint("acme", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: (point,))
    with pytest.raises(DoesNotLoad, match=f"'acme', which is {value}, .*{words}"):
        registry.find("acme")
    assert main.main(["vendors"]) == 0
    told = capsys.readouterr().out
    assert "does not load" in told
    assert "podman-rootless" in told


def test_non_executable_command_of_a_description_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """If the command of a description is not executable, the error says that it exists."""
    (tmp_path / "notes").write_text("no program\n")
    path = describe(tmp_path, command=f"{tmp_path}/notes")
    told = f"{tmp_path}/notes exists but is not executable"
    with pytest.raises(NotInstalled, match=f"^{told}\\. `netmodes vendors` lists"):
        registry.find(path)
    assert main.main(["vendors", path]) == 0
    assert f"  {told}\n" in capsys.readouterr().out


def test_invalid_description_is_an_unknown_runtime(tmp_path: Path) -> None:
    """The error for an invalid description is that of an unknown runtime, with the reason."""
    (tmp_path / "acme.toml").write_text("[runtme]")
    with pytest.raises(UnknownRuntime, match="unknown table: 'runtme'"):
        registry.find(str(tmp_path / "acme.toml"))


@pytest.mark.parametrize("name", ["bwrap", "containerd", "crun", "runc"])
def test_bare_runtime_and_cni_plugins_come_from_the_prefix_first(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bare runtime and the CNI plugins in the prefix take precedence over installed ones.

    The version is that of the program in the prefix.
    """
    monkeypatch.setattr("harness.adapters.bare.cni._FOLDERS", ("/no/plugins",))
    programs = [f"usr/bin/{item}" for item in (name, "ctr")]
    for path in (*programs, *(f"no/plugins/{plugin}" for plugin in cni.PLUGINS)):
        program(tmp_path / path, "#!/bin/sh\necho version 9.8.7\n")
    factory = registry.load(f"{name}@{tmp_path}")
    assert isinstance(factory, BareFactory)
    assert (factory.called, factory.version) == (f"{name}@{tmp_path}", "9.8.7")
    assert factory.wiring.prefix == str(tmp_path)
    assert cni.folder(str(tmp_path)) == f"{tmp_path}/no/plugins"
    assert not any("CNI" in absent for absent in factory.missing()), "nor need they be installed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runc@{empty}", "{empty} contains none of .*runc"),
        ("docker@{empty}", "{empty} contains none of .*runc"),
        ("docker@", "no folder ''"),
        ("docker@relative", "no folder 'relative'"),
        ("docker@/no/such/folder", "no folder"),
        ("lxc@{empty}", "CNI plugins need libraries of their own version"),
        ("nspawn@{empty}", "CNI plugins need libraries of their own version"),
        ("mydocker@/", "does not support programs from another folder: it has no programs"),
    ],
)
def test_unusable_prefix_is_refused(name: str, words: str, tmp_path: Path) -> None:
    """An unusable prefix is refused, because otherwise the installed programs would be tested."""
    with pytest.raises(UnknownRuntime, match=words.format(empty=tmp_path)):
        registry.find(name.format(empty=tmp_path))


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [("podman", "podman, netavark", "crun"), ("crun", "crun", "CNI's plugins")],
)
def test_provenance_lists_prefix_and_installed_programs(
    name: str, own: str, others: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`provenance` lists the programs from the prefix and the installed ones.

    The programs of the network backend are included.
    """
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", ("/usr/bin",))
    monkeypatch.setattr("harness.adapters.bare.cni._FOLDERS", (f"{tmp_path}/plugins",))
    monkeypatch.setenv("PATH", str(tmp_path / "installed"))
    for path in ("installed/crun", f"v2/usr/bin/{name}", "v2/usr/libexec/podman/netavark"):
        program(tmp_path / path, "#!/bin/sh\n")
    for plugin in cni.PLUGINS:
        program(tmp_path / "plugins" / plugin, "#!/bin/sh\n")
    factory = registry.load(f"{name}@{tmp_path}/v2")
    assert name not in registry.missing(factory)
    told = registry.provenance(factory)
    assert told.startswith(f"from {tmp_path}/v2: {own}; as installed: {others}")
    assert registry.provenance(registry.load(name)) == ""


@pytest.mark.parametrize("name", ["crun-by-hand", "podman"])
def test_non_executable_program_in_the_prefix_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in the prefix that is not executable is an error.

    A search in PATH would skip it and find the installed program.
    """
    command = name.partition("-")[0]
    program(tmp_path / "installed" / command, "#!/bin/sh\necho version 1.2.3\n")
    program(tmp_path / "folder/usr/bin" / command, "\0")
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", ("/usr/bin", "/bin"))
    monkeypatch.setenv("PATH", str(tmp_path / "installed"))
    assert version_of(registry.load(name)) == "1.2.3"
    assert version_of(registry.load(f"{name}@{tmp_path}/folder")) == ""


def test_root_only_runtime_is_refused_to_ordinary_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user gets an error for a runtime that needs root, once at the start of a run."""
    monkeypatch.setattr("harness.adapters.bare.adapter.in_user_namespace", lambda: True)
    factory = registry.load("nspawn")
    assert "does not run in a user namespace" in registry.obstacle(factory)
    assert registry.obstacle(registry.load("bwrap")) == ""


@pytest.mark.parametrize("name", ["crun", "docker", "podman", "podman-runc", "runc-by-hand"])
def test_runtime_that_needs_cgroups_is_refused_without_delegation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without cgroup delegation, a runtime that needs cgroups is refused.

    Other runtimes are accepted.
    """
    monkeypatch.setattr("harness.adapters.support.rootless.in_user_namespace", lambda: True)
    monkeypatch.setattr("harness.adapters.support.rootless.os.access", lambda *_: False)
    assert "creates cgroups, but none is delegated" in registry.obstacle(registry.load(name))
    others = ("bwrap", "containerd", "docker-runsc", "lxc", "mydocker-cli", "runsc")
    assert {registry.obstacle(registry.load(other)) for other in others} == {""}
    monkeypatch.setattr("harness.adapters.support.rootless.os.access", lambda *_: True)
    assert registry.obstacle(registry.load(name)) == ""
