"""The report as JUnit XML: a case per test, with the requirement ids as properties.

`pytest --junitxml` writes the same properties, but not from reports. This module is needed for two
reasons: `netmodes merge` joins reports of shards without running pytest, and the texts of a report
are sanitised.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from harness.report.sanitize import plain
from harness.report.schema import Report, TestResult, Verdict

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """Return the report as an XML document."""
    counts = report.totals.tests
    totals = {
        "name": _text(f"netmodes {report.implementation.name}"),
        "tests": str(counts.total),
        "failures": str(counts.broken),
        "errors": str(counts.error),
        "skipped": str(counts.unsupported + counts.skipped),
        "time": f"{report.seconds:.3f}",
    }
    suites = Xml.Element("testsuites")
    suite = Xml.SubElement(suites, "testsuite", totals | {"timestamp": _text(report.started)})
    properties = Xml.SubElement(suite, "properties")
    for name, value in (
        ("runtime", report.implementation.name),
        ("version", report.implementation.version or ""),
        *(("partial", reason) for reason in report.partial),
        *report.environment.items(),
    ):
        _property(properties, name, value)
    for test in report.tests:
        _case(suite, test)
    Xml.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(suites, encoding="unicode")


def _case(suite: Xml.Element, test: TestResult) -> None:
    file, _, name = test.id.partition("::")
    place = file.removesuffix(".py").replace("/", ".")
    case = Xml.SubElement(
        suite,
        "testcase",
        {"classname": _text(place), "name": _text(name), "time": f"{test.seconds:.3f}"},
    )
    if test.requirements or test.breaks:
        properties = Xml.SubElement(case, "properties")
        for id_ in test.requirements:
            _property(properties, "requirement", id_)
        for id_ in test.breaks:
            _property(properties, "breaks", id_)
    for failure in test.failures:
        kind = "failure" if failure.when == "call" else "error"
        element = Xml.SubElement(case, kind, {"message": _text(failure.message)})
        element.text = _text(failure.text)
        if failure.evidence:
            element.text += f"\nevidence: {_text(failure.evidence)}"
        for section in failure.sections:
            output = Xml.SubElement(case, "system-out")
            output.text = _text(f"{section.title}\n{section.text}")
    if test.verdict in (Verdict.UNSUPPORTED, Verdict.SKIPPED):
        Xml.SubElement(case, "skipped", {"message": _text(f"{test.verdict}: {test.reason}")})


def _property(parent: Xml.Element, name: str, value: str) -> None:
    Xml.SubElement(parent, "property", {"name": _text(name), "value": _text(value)})


def _text(text: str) -> str:
    """Return `text` with all characters replaced that XML forbids.

    ElementTree escapes markup, but lets control characters pass.
    """
    return _NO_XML.sub("�", plain(text))
