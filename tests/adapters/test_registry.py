"""How a described runtime is found, and what is said when it is not there."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.bare import cni
from harness.adapters.bare.adapter import BareFactory
from harness.adapters.docker_cli.adapter import CliFactory
from harness.adapters.registry import DoesNotLoad, NotInstalled, UnknownRuntime
from harness.cli import main
from harness.cli.runtimes import version_of
from tests.adapters.acme import acme, describe


def program(path: Path, content: str) -> None:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


@pytest.mark.parametrize(
    "name", ["docker", "docker-runsc", "mydocker-cli", "podman", "podman-runc", "podman-runsc"]
)
def test_the_described_ones_are_there_by_name(name: str) -> None:
    """Whether they are installed or not."""
    factory = registry.load(name)
    assert isinstance(factory, CliFactory)
    assert factory.features == factory.spec.features
    assert name in registry.names()


def test_a_path_that_ends_in_toml_is_a_description(tmp_path: Path) -> None:
    """Whatever it is called."""
    factory = acme(tmp_path)
    assert isinstance(factory, CliFactory)
    assert factory.spec.name == "acme"


def test_a_runtime_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In one line, with the programs that are missing and the packages that bring them."""
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled) as raised:
        registry.find("podman")
    told = str(raised.value)
    assert told.startswith("not installed: there is no podman, crun, conmon. Try: apt-get install ")
    assert "\n" not in told


def test_an_at_in_a_path_is_of_the_path(tmp_path: Path) -> None:
    """What follows the file's name is a folder."""
    folder = tmp_path / "us@home"
    folder.mkdir()
    path = describe(folder, command="acmectl")
    program(tmp_path / "v@2/acmectl", "#!/bin/sh\n")
    plain, elsewhere = registry.load(path), registry.load(f"{path}@{tmp_path}/v@2")
    assert isinstance(plain, CliFactory)
    assert isinstance(elsewhere, CliFactory)
    assert (plain.spec.name, plain.spec.prefix) == ("acme", "")
    assert elsewhere.spec.command == (f"{tmp_path}/v@2/acmectl",)


def test_who_was_asked_for_knows_by_what_name(tmp_path: Path) -> None:
    """So that what it advises can be typed."""
    program(tmp_path / "crun", "#!/bin/sh\n")
    bare = registry.load(f"crun-by-hand@{tmp_path}")
    assert isinstance(bare, BareFactory)
    assert bare.called == f"crun-by-hand@{tmp_path}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "no_such_module:X",
            "does not load: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("pathlib:Acme", "does not load: AttributeError: .*Acme"),
        ("pathlib:Path", "an adapter's class is wanted, which has `features`"),
        ("math:pi", "is 3.14.*: an adapter's class is wanted"),
    ],
)
def test_an_adapter_that_does_not_load_is_named_and_hides_no_other(
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is wrong with somebody else's package."""
    point = EntryPoint("acme", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: (point,))
    with pytest.raises(DoesNotLoad, match=f"'acme', which is {value}, .*{words}"):
        registry.find("acme")
    assert main.main(["vendors"]) == 0
    told = capsys.readouterr().out
    assert "does not load" in told
    assert "podman-rootless" in told


def test_a_description_whose_command_is_not_there_says_so(tmp_path: Path) -> None:
    """There is nobody who knows how to install it."""
    with pytest.raises(NotInstalled, match=r"there is no acmectl-7\. `netmodes vendors` tells"):
        registry.find(describe(tmp_path, command="acmectl-7"))


def test_a_command_that_is_there_and_no_program_is_told_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whoever looks for it would find it."""
    (tmp_path / "notes").write_text("no program\n")
    path = describe(tmp_path, command=f"{tmp_path}/notes")
    told = f"{tmp_path}/notes is there, and cannot be executed"
    with pytest.raises(NotInstalled, match=f"^{told}\\. `netmodes vendors` tells"):
        registry.find(path)
    assert main.main(["vendors", path]) == 0
    assert f"  {told}\n" in capsys.readouterr().out


def test_a_description_that_cannot_be_read_is_an_unknown_runtime(tmp_path: Path) -> None:
    """With all that is wrong with it."""
    (tmp_path / "acme.toml").write_text("[runtme]")
    with pytest.raises(UnknownRuntime, match="no table called 'runtme'"):
        registry.find(str(tmp_path / "acme.toml"))


def test_programs_may_come_from_a_folder(tmp_path: Path) -> None:
    """Of unpacked packages: what is there goes before what is installed."""
    for name in ("podman", "crun", "conmon"):
        program(tmp_path / "usr/bin" / name, "#!/bin/sh\n")
    factory = registry.load(f"podman@{tmp_path}")
    assert isinstance(factory, CliFactory)
    assert factory.spec.prefix == str(tmp_path)
    assert registry.missing(factory) == []


@pytest.mark.parametrize("name", ["bwrap", "containerd", "crun", "runc"])
def test_so_may_those_of_bare_runtimes_and_their_plugins(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their version is that of the program there, their plugins are those there."""
    monkeypatch.setattr("harness.adapters.bare.cni._FOLDERS", ("/no/plugins",))
    programs = [f"usr/bin/{item}" for item in (name, "ctr")]
    for path in (*programs, *(f"no/plugins/{plugin}" for plugin in cni.PLUGINS)):
        program(tmp_path / path, "#!/bin/sh\necho version 9.8.7\n")
    factory = registry.load(f"{name}@{tmp_path}")
    assert isinstance(factory, BareFactory)
    assert factory.version == "9.8.7"
    assert factory.wiring.prefix == str(tmp_path)
    assert cni.folder(str(tmp_path)) == f"{tmp_path}/no/plugins"
    assert not any("CNI" in absent for absent in factory.missing()), "nor need they be installed"


@pytest.mark.parametrize("name", ["runc", "docker", "podman-runc"])
def test_a_folder_that_has_nothing_of_a_runtime_is_refused(name: str, tmp_path: Path) -> None:
    """Else what is installed would be tried, and told to be what is in the folder."""
    with pytest.raises(UnknownRuntime, match=rf"{tmp_path} has none of .*runc"):
        registry.find(f"{name}@{tmp_path}")


def test_which_programs_come_from_the_folder_is_told(tmp_path: Path) -> None:
    """Those that do not are the installed ones."""
    program(tmp_path / "usr/bin/conmon", "#!/bin/sh\n")
    factory = registry.load(f"podman@{tmp_path}")
    assert isinstance(factory, CliFactory)
    assert factory.from_prefix() == ["conmon"]
    assert factory.spec.command == ("podman",)


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [("podman", "podman, netavark", "crun"), ("crun", "crun", "CNI's plugins")],
)
def test_and_which_do_not(
    name: str, own: str, others: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who wires containers among them."""
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", ("/usr/bin",))
    monkeypatch.setattr("harness.adapters.bare.cni._FOLDERS", (f"{tmp_path}/plugins",))
    monkeypatch.setenv("PATH", str(tmp_path / "installed"))
    for path in ("installed/crun", f"v2/usr/bin/{name}", "v2/usr/libexec/podman/netavark"):
        program(tmp_path / path, "#!/bin/sh\n")
    for plugin in cni.PLUGINS:
        program(tmp_path / "plugins" / plugin, "#!/bin/sh\n")
    told = registry.provenance(registry.load(f"{name}@{tmp_path}/v2"))
    assert told.startswith(f"from {tmp_path}/v2: {own}; as installed: {others}")
    assert registry.provenance(registry.load(name)) == ""


@pytest.mark.parametrize("name", ["crun-by-hand", "podman"])
def test_what_cannot_be_executed_is_not_passed_over_for_what_is_installed(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program for another machine, say; whoever looks along the PATH goes on to the next."""
    command = name.partition("-")[0]
    program(tmp_path / "installed" / command, "#!/bin/sh\necho version 1.2.3\n")
    program(tmp_path / "folder/usr/bin" / command, "\0")
    monkeypatch.setattr("harness.adapters.support.programs._SYSTEM", ("/usr/bin", "/bin"))
    monkeypatch.setenv("PATH", str(tmp_path / "installed"))
    assert version_of(registry.load(name)) == "1.2.3"
    assert version_of(registry.load(f"{name}@{tmp_path}/folder")) == ""


@pytest.mark.parametrize("name", ["lxc", "nspawn"])
def test_who_needs_libraries_of_its_own_version_has_to_be_installed(
    name: str, tmp_path: Path
) -> None:
    """And says so."""
    with pytest.raises(UnknownRuntime, match="they need libraries of their own version"):
        registry.find(f"{name}@{tmp_path}")


def test_one_that_is_for_root_says_so_to_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the start of a run."""
    monkeypatch.setattr("harness.adapters.bare.adapter.in_user_namespace", lambda: True)
    factory = registry.load("nspawn")
    assert "does not run in a user namespace" in registry.obstacle(factory)
    assert registry.obstacle(registry.load("bwrap")) == ""


@pytest.mark.parametrize("name", ["crun", "docker", "podman", "podman-runc", "runc-by-hand"])
def test_one_that_makes_cgroups_says_so_where_it_may_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of a failure of each test; who need not make any is tried."""
    monkeypatch.setattr("harness.adapters.support.rootless.in_user_namespace", lambda: True)
    monkeypatch.setattr("harness.adapters.support.rootless.os.access", lambda *_: False)
    assert "makes cgroups, and nobody has delegated one" in registry.obstacle(registry.load(name))
    others = ("bwrap", "containerd", "docker-runsc", "lxc", "mydocker-cli", "runsc")
    assert {registry.obstacle(registry.load(other)) for other in others} == {""}
    monkeypatch.setattr("harness.adapters.support.rootless.os.access", lambda *_: True)
    assert registry.obstacle(registry.load(name)) == ""


@pytest.mark.parametrize("prefix", ["", "relative", "/no/such/folder"])
def test_a_folder_that_is_none_is_refused(prefix: str) -> None:
    """It has to be absolute and there."""
    with pytest.raises(UnknownRuntime, match="there is no folder"):
        registry.find(f"docker@{prefix}")


def test_not_every_adapter_has_programs() -> None:
    """The library that comes along has none to be taken from elsewhere."""
    with pytest.raises(UnknownRuntime, match="cannot be taken from another folder"):
        registry.find("mydocker@/")
