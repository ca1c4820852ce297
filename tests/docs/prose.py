"""Check docstrings, test names and pages against the rules of CONTRIBUTING.md.

`python -m tests.docs.prose [PATH...]` prints one line for each sentence that breaks a rule and
exits with 1 if there is any. Code in backquotes, quotations and code blocks are exempt.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("harness", "runtime", "linux", "suites", "tests", "bench")
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs")
LONGEST = 40  # words in a sentence; 25 is the habit, a list of names may need more

# A sentence whose subject is a relative clause has to be read twice.
NOUN_CLAUSE = re.compile(
    r"^(Who|Whom|Whose|Whoever|Whatever|What|Those (who|that|whose)|He who|That (which|is what)"
    r"|Where (it|that) is)\b(?!.*\?$)"
)
# Phrases that are vague, archaic or home-made, and the standard term.
PHRASES = {
    r"of (one's|its|his|their) own accord": "by itself",
    r"network of one's own": "user-defined network",
    r"one's own": "its own, or the owner's name",
    r"\bwhoever\b": "the process, the user or the client",
    r"\b(somebody|someone|nobody|no one|anybody|everybody)\b": "the container, process or client",
    r"\bis told\b": "gets an error, or the report says",
    r"\bone more\b": "another",
    r"\bgoes without saying\b": "nothing",
    r"\bso (does|do|is|are|has|have) (it|they|that)\b": "the full statement",
    r"\bas well it\b": "the full statement",
    r"\bin the end stands\b|\bat the end stands\b": "ends with",
    r"\bcables?\b": "veth pair",
    r"\battendants?\b": "daemon, resolver or relay",
    r"\bjoiners?\b": "joining container",
    r"\bwhereabouts\b": "place",
}
# A test's name is read alone, in a log of another project.
NAME_WORDS = re.compile(
    r"_(who|whom|whose|whoever|what|whatever|nobody|somebody|someone|anybody|everybody|it|so)(_|$)"
)
FEWEST = 3  # words of a test's name after `test_`


@dataclass(frozen=True)
class Remark:
    """A remark that a rule is broken in a line of a file."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        """Return the remark in the format `path:line: text`."""
        return f"{self.path}:{self.line}: {self.text}"


def main(arguments: list[str]) -> int:
    """Print the remarks on the given files and folders, by default all; return 1 if any."""
    remarks = list(check([Path(a) for a in arguments or (*FOLDERS, *PAGES)]))
    for remark in remarks:
        sys.stdout.write(f"{remark}\n")
    sys.stdout.write(f"{len(remarks)} remarks\n" if remarks else "")
    return 1 if remarks else 0


def check(paths: Iterable[Path]) -> Iterator[Remark]:
    """Yield the remarks on the Python files and Markdown pages in `paths`, which may be folders."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix == ".py":
                yield from python_remarks(file, file.read_text(encoding="utf-8"))
            elif file.suffix == ".md":
                yield from page_remarks(file, file.read_text(encoding="utf-8"))


def python_remarks(path: Path, source: str) -> Iterator[Remark]:
    """Yield the remarks on the docstrings and test names of a module."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        line = getattr(node, "lineno", 1)
        if text := ast.get_docstring(node):
            yield from (Remark(path, line, remark) for remark in prose_remarks(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from (Remark(path, line, remark) for remark in name_remarks(node.name))


def page_remarks(path: Path, text: str) -> Iterator[Remark]:
    """Yield the remarks on a page's paragraphs and list items; tables and code are exempt."""
    text = re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)
    line = 1
    for block in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.) ))", text):
        if block.strip() and not block.lstrip().startswith(("|", "#", "<", "!", "[")):
            start = line + len(block) - len(block.lstrip("\n"))
            for remark in prose_remarks(re.sub(r"^\s*([-*]|\d+\.)\s+", "", block)):
                yield Remark(path, start, remark)
        line += block.count("\n")


def name_remarks(name: str) -> Iterator[str]:
    """Yield the remarks on a test's name."""
    if found := NAME_WORDS.search(name):
        yield f"test name {name}: “{found[1]}” is no subject or object"
    if len(name.split("_")) <= FEWEST:
        yield f"test name {name}: say subject, behaviour and condition"


def prose_remarks(text: str) -> Iterator[str]:
    """Yield the remarks on the sentences of a docstring or paragraph."""
    for sentence in sentences(text):
        start = " ".join(sentence.split()[:8])
        if found := NOUN_CLAUSE.match(sentence):
            yield f"“{start} …”: the sentence begins with “{found[1]}” as a noun"
        for phrase, better in PHRASES.items():
            if found := re.search(phrase, sentence, flags=re.I):
                yield f"“{start} …”: “{found[0]}”: write {better}"
        if (length := len(sentence.split())) > LONGEST:
            yield f"“{start} …”: {length} words in a sentence"


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; code, quotations, links and indented blocks are one word."""
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"``[^`]+``|`[^`]+`|“[^”]*”|\"[^\"]*\"", "`code`", text)
    prose = "\n".join(
        "" if line.startswith(("    ", "\t", "|", ">")) else line for line in text.splitlines()
    )
    parts = re.split(r"(?<=[.!?:;])\s+(?=[A-Z`“(\[])|\n\s*\n|\n(?=\s*[-*] )", prose)
    return [" ".join(part.split()) for part in parts if part.strip()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
