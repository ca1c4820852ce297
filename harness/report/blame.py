"""The requirements that explain the failed checks of a run, and no others (pure).

A failed test often names several requirements, and one defect fails tests of many. The causes are
found by spectrum-based fault localisation. The requirement whose tests fail most consistently, by
Ochiai's coefficient, is a cause. It explains every failed check that concerns it or a requirement
that needs it. The search is repeated until every failed check is explained.

Source: Abreu and others, "An Evaluation of Similarity Coefficients for Software Fault
Localization", PRDC 2006, https://doi.org/10.1109/PRDC.2006.18.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt


@dataclass(frozen=True, slots=True)
class Check:
    """A test's result as evidence about requirements.

    `concerns` has the requirements that the test checks or, if it failed, those that the failure
    may contradict. `held` has requirements that the failed test showed to be kept.
    """

    test: str
    concerns: frozenset[str]
    held: frozenset[str] = frozenset()
    failed: bool = False


def causes(
    checks: Iterable[Check], needs: Mapping[str, Sequence[str]]
) -> dict[str, frozenset[str]]:
    """Return the broken requirements, each with the failed tests that it explains.

    `needs` names for each requirement those without which it cannot be kept. A cause is always a
    requirement that a failed check concerns. The result is in the order of discovery: the cause
    with the strongest evidence comes first. Of requirements with equal evidence all are causes,
    except for those that need one of the others.
    """

    @cache
    def suspects(ids: frozenset[str]) -> frozenset[str]:
        found, waiting = set(ids), list(ids)
        while waiting:
            more = set(needs.get(waiting.pop(), ())) - found
            found |= more
            waiting += more
        return frozenset(found)

    passed: dict[str, int] = {}
    open_: list[tuple[Check, frozenset[str]]] = []
    for check in checks:
        possible = suspects(check.concerns) - check.held
        if check.failed and check.concerns:
            open_.append((check, possible))
        elif not check.failed:
            for id_ in possible:
                passed[id_] = passed.get(id_, 0) + 1
    found: dict[str, frozenset[str]] = {}
    while open_:
        direct: dict[str, int] = {}
        failed: dict[str, int] = {}
        for check, possible in open_:
            for id_ in check.concerns:
                direct[id_] = direct.get(id_, 0) + 1
            for id_ in possible:
                failed[id_] = failed.get(id_, 0) + 1

        def evidence(id_: str) -> tuple[float, int]:
            total = len(open_) * (failed[id_] + passed.get(id_, 0))  # noqa: B023 # used at once
            return round(failed[id_] / sqrt(total), 9), direct[id_]  # noqa: B023

        strongest = max(map(evidence, direct.keys() & failed.keys()))
        equal = [id_ for id_ in direct if id_ in failed and evidence(id_) == strongest]
        best = [id_ for id_ in equal if suspects(frozenset({id_})).isdisjoint({*equal} - {id_})]
        for id_ in best or equal:
            found[id_] = frozenset(check.test for check, possible in open_ if id_ in possible)
        open_ = [item for item in open_ if item[1].isdisjoint(found)]
    return found
