"""Tests that runs of the property suites are reproducible."""

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
def test_gated_runs_draw_the_same_examples(
    project: pytest.Pytester, options: list[str], *, same: bool
) -> None:
    """Runs with the profile `gate` draw the same examples.

    Otherwise it would depend on chance whether a known deviation occurs.
    """
    (project.path / "acme.toml").write_text("")
    # `try` is an option of the plugin behind `netmodes faults`.
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
