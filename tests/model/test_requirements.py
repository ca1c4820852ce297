"""Tests of the catalogue of requirements, and of the error for an unknown id."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from harness.model.features import Feature
from harness.model.requirements import (
    CatalogueError,
    Level,
    Reference,
    Requirement,
    UnknownRequirement,
    load,
    parse,
)

CATALOGUE = load(Path(__file__).parents[2] / "suites" / "requirements.toml")

GOOD = """
[links]
"seed" = ""
"moby#{}" = "https://github.com/moby/moby/issues/{}"
"RFC 792" = "https://www.rfc-editor.org/rfc/rfc792"

[[section]]
name = "bridge"

[[section.requirement]]
id = "BR-1"
level = "MUST"
statement = "It holds."
sources = ["seed"]
history = ["moby#14041"]
dialect = ["mac"]
features = ["bridge"]
"""

# --- the catalogue that ships ------------------------------------------------


def test_catalogue_ids_have_no_gap() -> None:
    """The ids of each group run from 1 without a gap, up to the known number of requirements."""
    numbers: dict[str, list[int]] = {}
    for requirement in CATALOGUE:
        group, number = requirement.id.split("-")
        numbers.setdefault(group, []).append(int(number))
    assert " ".join(f"{group} {len(found)}" for group, found in numbers.items()) == (
        "NONE 7 ATT 5 HOST 7 CTR 9 BR 28 NET 8 INT 3 ICC 1 UM 6 PUB 15 V6 3 "
        "DNS 6 FILE 1 L2 2 LIFE 8 BYS 5"
    )
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_every_requirement_has_a_source_and_known_features() -> None:
    """Every requirement has a source and known features.

    If a requirement depends on the dialect, the catalogue has the name of the field of `Dialect`.
    """
    for row in CATALOGUE:
        assert row.sources, row
        assert row.features <= set(Feature), row
        assert row.dialect or "declares" not in row.statement, row


def test_every_reference_except_seed_is_an_https_url() -> None:
    """Every reference except `seed` resolves to an https URL without a placeholder."""
    references = [ref for row in CATALOGUE for ref in (*row.sources, *row.history)]
    assert {ref.name for ref in references if ref.url is None} == {"seed"}
    assert all(ref.url.startswith("https://") for ref in references if ref.url)
    assert not any("{}" in ref.url for ref in references if ref.url)


def test_requirement_statements_are_unique() -> None:
    """No two requirements have the same statement."""
    assert Counter(r.statement for r in CATALOGUE).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("id_", "name", "url"),
    [
        ("BR-9", "moby#14041", "https://github.com/moby/moby/issues/14041"),
        ("NET-2", "netavark#331", "https://github.com/containers/netavark/issues/331"),
        ("PUB-4", "cni-plugins#68", "https://github.com/containernetworking/plugins/issues/68"),
        ("BR-19", "RFC 1812", "https://www.rfc-editor.org/rfc/rfc1812"),
        ("INT-2", "CVE-2024-29018", "https://nvd.nist.gov/vuln/detail/CVE-2024-29018"),
        ("NONE-2", "docker: none", "https://docs.docker.com/engine/network/drivers/none/"),
    ],
)
def test_reference_resolves_to_url_of_its_source(id_: str, name: str, url: str) -> None:
    """Issues, RFCs, CVEs and documentation resolve to the URLs of their texts."""
    row = CATALOGUE[id_]
    assert (name, url) in [(ref.name, ref.url) for ref in (*row.sources, *row.history)]


# --- lookups -----------------------------------------------------------------


def test_requirement_is_found_by_its_id() -> None:
    """`CATALOGUE[id]` is a requirement with all fields that a verdict shows."""
    row = CATALOGUE["BR-7"]
    assert (row.id, row.level, row.section) == ("BR-7", Level.MUST, "bridge")
    assert row.statement.startswith("A bridged container reaches the internet")
    assert row.features == {"bridge"}
    assert "BR-7" in CATALOGUE
    assert "BR-99" not in CATALOGUE


@pytest.mark.parametrize(
    ("id_", "hint"),
    [
        ("BR-3", "did you mean BR-4, BR-2, BR-1?"),
        ("none-4", "did you mean NONE-4, NET-2, BR-4?"),
        ("NETWORK-2", "did you mean NET-2, BR-2, NONE-4?"),
        ("DNS-7", "did you mean DNS-1, NET-2?"),
        ("?", "see suites/requirements.toml"),
    ],
)
def test_unknown_requirement_id_suggests_similar_id(id_: str, hint: str) -> None:
    """The error for an unknown requirement id suggests similar ids.

    Without a similar id it names the file of the catalogue.
    """
    text = GOOD
    for name in ("BR-2", "BR-4", "NONE-4", "NET-2", "DNS-1", "LIFE-1"):
        text += GOOD[GOOD.index("[[section.requirement]]") :].replace("BR-1", name)
    with pytest.raises(
        UnknownRequirement, match=f"^{re.escape(f'no requirement {id_!r}: {hint}')}$"
    ):
        parse(text)[id_]


# --- malformed catalogues ----------------------------------------------------


def test_parser_reads_every_field_of_a_catalogue() -> None:
    """The parser stores every field of a catalogue in the attribute of the same name."""
    (row,) = parse(GOOD.replace('["seed"]', '["seed", "RFC 792"]'))
    assert row == Requirement(
        "BR-1",
        Level.MUST,
        "bridge",
        "It holds.",
        sources=(
            Reference("seed", None),
            Reference("RFC 792", "https://www.rfc-editor.org/rfc/rfc792"),
        ),
        history=(Reference("moby#14041", "https://github.com/moby/moby/issues/14041"),),
        dialect=("mac",),
        features=frozenset({"bridge"}),
    )
    assert str(row.sources[0]) == "seed"
    assert str(row.history[0]) == "moby#14041 <https://github.com/moby/moby/issues/14041>"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('id = "BR-1"', "", "'' in .*'It holds.'.* is not an id"),
        ("BR-1", "br-1", "'br-1' in .* is not an id"),
        ("BR-1", "BR-01", "'BR-01' in .* is not an id"),
        ("MUST", "must", r"BR-1: Invalid enum value 'must' - at `\$.level`"),
        ('level = "MUST"', "", "BR-1: Object missing required field `level`"),
        ('statement = "It holds."', "", "BR-1: Object missing required field `statement`"),
        ("It holds.", "It holds", "BR-1: the statement is not a full sentence: 'It holds'"),
        ('["seed"]', '"seed"', r"BR-1: Expected `array`, got `str` - at `\$.sources`"),
        ('["seed"]', "[1]", r"BR-1: Expected `str`, got `int` - at `\$.sources\[0\]`"),
        ('["seed"]', '["sead"]', r"BR-1: \[links\] has no entry for 'sead'"),
        ("moby#14041", "mobi#14041", r"BR-1: \[links\] has no entry for 'mobi#14041'"),
        ('"mac"', '"mak"', r"BR-1: \['mak'\] are not fields of Dialect"),
        ("features =", 'needs = ["BR-0"]\nfeatures =', r"BR-1 needs unknown requirements: BR-0"),
        ("features =", "feature =", "BR-1: Object contains unknown field `feature`"),
        ("[links]", "[lynx]", r"BR-1: \[links\] has no entry for 'seed'"),
        ("[links]", "[links", "the catalogue is not TOML: .*line 2"),
    ],
)
def test_malformed_catalogue_error_names_the_entry(old: str, new: str, complaint: str) -> None:
    """The error for a malformed catalogue names the entry and the mistake in it."""
    assert old in GOOD
    with pytest.raises(CatalogueError, match=complaint):
        parse(GOOD.replace(old, new, 1))


def test_duplicate_requirement_id_is_refused() -> None:
    """A catalogue with the same id twice is refused."""
    with pytest.raises(CatalogueError, match="BR-1: the id is taken"):
        parse(GOOD + GOOD[GOOD.index("[[section.requirement]]") :])


def test_optional_catalogue_fields_may_be_absent() -> None:
    """A catalogue may omit links, sections, requirements, and optional fields.

    All fields are optional except id, level and statement.
    """
    assert not parse("")
    assert not parse("[[section]]")
    row = '[[section.requirement]]\nid = "BR-1"\nlevel = "MUST"\nstatement = "It holds."'
    assert list(parse(f"[[section]]\n{row}")) == [Requirement("BR-1", Level.MUST, "", "It holds.")]
    assert list(parse(f"[[section]]\nname = 'bridge'\n{row}")) == [
        Requirement("BR-1", Level.MUST, "bridge", "It holds.")
    ]


def test_catalogue_file_is_read_as_utf_8(tmp_path: Path) -> None:
    """A catalogue is read as UTF-8, both from a `Path` and from a resource of a package."""
    path = tmp_path / "requirements.toml"
    path.write_bytes(GOOD.replace("It holds.", "It holds everywhere → always.").encode())
    assert load(path)["BR-1"].statement == "It holds everywhere → always."
