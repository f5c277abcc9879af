"""Cheap checks on the repository itself: pins, sizes, paths, promises of the documents."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 10 * 1024**2

# Absolute paths of somebody's machine; put together so that this file does not hold one.
MACHINE_PATH = re.compile(
    r"(?<![\w.~:/-])/(?:" + "|".join(("work", "root", "home", "Users")) + r")/\w"
)


def read_pins(name: str) -> list[Requirement]:
    """Return the requirements in a file, comments and includes left out."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    stated = [line.split("#")[0].strip() for line in lines]
    return [Requirement(line) for line in stated if line and not line.startswith("-")]


def project_files() -> list[Path]:
    """Return the files that git tracks or would track, or skip where git cannot say."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("git is not installed: cannot list the tracked files")
    if listed.returncode:
        pytest.skip(f"git ls-files cannot list the tracked files: {listed.stderr.strip()}")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_is_exact(name):
    pins = read_pins(name)
    assert pins
    loose = [str(pin) for pin in pins if not re.fullmatch(r"==[\w.]+", str(pin.specifier))]
    assert loose == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_has_a_reason(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    assert [line for line in lines if "==" in line and not re.search(r"# \w", line)] == []


def test_pyproject_and_requirements_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ranges = {canonicalize_name(r.name): r for r in map(Requirement, project["dependencies"])}
    pins = {canonicalize_name(pin.name): pin for pin in read_pins("requirements.txt")}
    assert ranges.keys() == pins.keys()
    assert ranges["torch"].specifier == pins["torch"].specifier
    outside = {
        name: f"{pin.specifier} is outside {ranges[name].specifier}"
        for name, pin in pins.items()
        if not ranges[name].specifier.contains(str(pin.specifier).removeprefix("=="))
    }
    assert outside == {}


def test_every_dependency_is_a_recorded_decision():
    decisions = (ROOT / "docs/decisions.md").read_text("utf-8").lower().replace("_", "-")
    names = {canonicalize_name(pin.name) for pin in read_pins("requirements.txt")}
    missing = {name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", decisions)}
    assert missing == set()


@pytest.mark.parametrize("command", ["make app", "make test"])
def test_readme_names_the_command(command):
    assert command in (ROOT / "README.md").read_text("utf-8")


def test_no_file_is_too_big():
    sizes = {str(file.relative_to(ROOT)): file.stat().st_size for file in project_files()}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


def test_no_file_names_a_path_of_one_machine():
    found = []
    for file in project_files():
        content = file.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_a_path_of_one_machine_is_found(folder):
    assert MACHINE_PATH.search(f'open("/{folder}/somebody/x.csv")')
    assert MACHINE_PATH.search(f"/{folder}/somebody")
    assert not MACHINE_PATH.search(f"https://example.org/{folder}/somebody")
    assert not MACHINE_PATH.search(f"frame{folder}/x, ~/{folder}/x, ../{folder}/x, /{folder}")
