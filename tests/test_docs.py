"""The documents: what is generated is up to date, links lead somewhere, the README stays short."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import lwap
from docs import generate
from lwap.cli import parser

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN += sorted((ROOT / "assets").glob("*.md"))
LONGEST_README = 1200  # words, as `wc -w` counts them

LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read_prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return FENCED.sub("", path.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document.

    >>> sorted(anchors("# The run's folder\\n\\n## `a_b`: 1–2"))
    ['a_b-12', 'the-runs-folder']
    """
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.name)
def test_a_generated_document_is_up_to_date(path):
    assert path.read_text("utf-8") == generate.documents()[path], "run `make docs`"


def test_the_table_of_levels_is_that_of_the_layering_test():
    text = (ROOT / "docs/architecture.md").read_text("utf-8").partition(generate.BEGIN)[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    written = {int(level): set(re.findall(r"`(?:lwap/)?(\w+)`", names)) for level, names in rows}
    there = {path.stem for path in (ROOT / "lwap").iterdir()}
    assert written == {level: set(names) & there for level, names in generate.levels().items()}


def test_type_checkers_see_every_public_name():
    assert sorted(generate.public_homes()) == lwap.__all__


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    broken = []
    for link in LINK.findall(read_prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(read_prose(target))):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short():
    words = len((ROOT / "README.md").read_text("utf-8").split())
    assert words <= LONGEST_README


def test_every_document_is_linked_from_the_readme():
    linked = set(LINK.findall(read_prose(ROOT / "README.md")))
    documents = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert documents - {link.partition("#")[0] for link in linked} == set()


def test_glossary_has_one_definition_a_term():
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    terms = re.findall(r"^## (.+)\n\n(.+)\n", text, re.MULTILINE)
    names = [name for name, _ in terms]
    assert len(names) == len(set(names)) == text.count("\n## ")
    assert all(definition.endswith(".") for _, definition in terms)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(document):
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)\b", read_commands(ROOT / document)))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert named <= set(re.findall(r"^  make ([a-z-]+)", listed.stdout, re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "docs/guide.md", "docs/files.md"])
def test_commands_that_are_named_are_understood(document, capsys):
    code = read_commands(ROOT / document).replace("\\\n", " ")
    lines = re.findall(r"^\$? ?(?:python -m )?lwap ([a-z].*)$", code, re.MULTILINE)
    for line in lines:
        parser().parse_args(shlex.split(line, comments=True))  # exits where it is wrong


def read_commands(path: Path) -> str:
    """Return what a document sets as code, inline or in blocks."""
    text = path.read_text("utf-8")
    return "\n".join([*FENCED.findall(text), *re.findall(r"`([^`\n]+)`", text)])
