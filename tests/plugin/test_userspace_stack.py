"""Containers with a network stack in user space, whose kernel state does not exist."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("options", [[], ["-n", "2"], ["--pdb"]], ids=" ".join)
def test_look_into_userspace_stack_is_unsupported(
    project: pytest.Pytester, options: list[str]
) -> None:
    """Tests and fixtures that need the kernel's view get no verdict but the reason.

    `--exitfirst` and `--pdb` do not stop there.
    """
    project.makepyfile(
        """
        import pytest
        from harness.plugin.marks import requirement
        from harness.probe.remote import UserspaceStack

        @pytest.fixture
        def looked_at(): raise UserspaceStack("web")

        @requirement("BR-1")
        def test_inside(): raise UserspaceStack("web")

        @requirement("BR-2")
        def test_before(looked_at): pass

        @requirement("BR-4")
        def test_kept(): pass
        """
    )
    result = project.runpytest_subprocess("-rs", *options)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: container web has a network stack of its*"])
    result.stdout.fnmatch_lines(
        ["unsupported BR-1, BR-2: container web has a network*", "1 kept, 2 unsupported*"]
    )
    result.stdout.no_fnmatch_line("*PDB*")


def test_leak_of_an_unsupported_test_is_reported(project: pytest.Pytester) -> None:
    """The leak counts, and an adapter that could not look is no breakdown of the runtime."""
    project.makepyprojecttoml("[tool.pytest.ini_options]\nnetmodes = true\n")
    project.makepyfile(
        """
        import pytest
        from harness.adapters.support import programs
        from harness.probe.remote import UserspaceStack

        def cannot_be_looked_at(prefix): raise UserspaceStack("web")

        def test_leaves(world, monkeypatch):
            world.host.spawn(["sleep", "60"], log="/dev/null")
            monkeypatch.setattr(programs, "_below", cannot_be_looked_at)
            programs.search_path("/opt/acme")
        """
    )
    result = project.runpytest_subprocess("-p", "harness.plugin", "--runtime", "mydocker")
    result.stdout.fnmatch_lines(["*LIFE-1: left behind*", "broken *LIFE-1 *"])
