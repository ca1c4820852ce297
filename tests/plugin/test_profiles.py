"""Whether the property suites draw the same in every run."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ([], False),
        (["--profile", "explore"], False),
        (["--profile", "gate"], True),
        (["--write-expect", "acme.toml"], True),
        (["--expect", "acme.toml"], True),
        (["-p", "tries", "--try", "a-fault"], True),
    ],
    ids=str,
)
def test_what_a_gate_judges_is_drawn_alike_in_every_run(
    project: pytest.Pytester, options: list[str], *, same: bool
) -> None:
    """Else chance would decide whether a known deviation is seen."""
    (project.path / "acme.toml").write_text("")
    # As the plugin behind `netmodes faults` has it, which runs no test once.
    project.makepyfile(tries="def pytest_addoption(parser): parser.addoption('--try')")
    project.makepyfile(
        f"""
        from harness.testbench import profiles

        def test_it(request):
            chosen = profiles.chosen(request.config)
            assert chosen.derandomize is {same}
            assert any(phase.name == "shrink" for phase in chosen.phases) is (
                {same} is False or {"--profile" in options})
        """
    )
    project.runpytest_subprocess(*options).assert_outcomes(passed=1)
