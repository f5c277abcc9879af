"""Entries on disk: what was written comes back whole, or nothing does and a note says why."""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save

from lwap.encoding import diskcache
from lwap.encoding.diskcache import (
    ABANDONED,
    LIMIT_GB,
    SCRATCH,
    SUFFIX,
    DiskCache,
    Usage,
    checked_gigabytes,
    limit_from_environment,
)
from lwap.errors import ConfigError, InputError

ARRAYS = {
    "mean": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counts": np.array([7, 8], dtype=np.int64),
}
FACTS = {"encoder": 'the "tiny" one, é', "states": "7"}
DAMAGED = r"damaged entry of the cache was removed and is made again: banks/key/one \(.+\)\.$"


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


@pytest.fixture
def file(cache) -> Path:
    """The file of a good entry, banks/key/one."""
    assert cache.write("banks/key", "one", ARRAYS, FACTS)
    return cache.folder / "banks/key" / f"one{SUFFIX}"


def files_in(cache: DiskCache) -> list[str]:
    found = (file for file in cache.folder.rglob("*") if file.is_file())
    return sorted(file.relative_to(cache.folder).as_posix() for file in found)


def is_whole(found) -> bool:
    """Say whether an entry is exactly ARRAYS and FACTS."""
    arrays, facts = found
    return (
        facts == FACTS
        and arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(arrays[key], ARRAYS[key]) for key in ARRAYS)
        and all(arrays[key].dtype == ARRAYS[key].dtype for key in ARRAYS)
    )


def age(file: Path, seconds: float) -> None:
    """Make a file one that was last used some time ago."""
    then = time.time() - seconds
    os.utime(file, (then, then))


# --- what was written comes back ----------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        *(np.array([[0, 1, 2]], dtype=kind) for kind in "fdeilBb"),
        np.array([True, False]),
        np.empty((0, 4), dtype=np.float32),
        np.array(3.5),
        np.arange(24.0).reshape(4, 6)[::2, ::3],
        np.arange(6.0).reshape(2, 3).T,
        np.array([np.nan, -np.inf, -0.0]),
    ],
)
def test_an_array_of_any_kind_comes_back(cache, array):
    assert cache.write("kind", "name", {"values": array}, FACTS)
    arrays, facts = cache.read("kind", "name")
    assert facts == FACTS
    assert (arrays["values"].dtype, arrays["values"].shape) == (array.dtype, array.shape)
    assert np.array_equal(arrays["values"], array, equal_nan=array.dtype.kind == "f")
    assert cache.notes == []


def test_an_entry_is_read_in_part_and_written_anew(cache, file):
    assert is_whole(cache.read("banks/key", "one"))
    arrays, facts = cache.read("banks/key", "one", only=["counts", "absent"])
    assert (arrays.keys(), facts) == ({"counts"}, FACTS)
    assert is_whole(cache.read("banks/key", "one", only=iter(ARRAYS)))
    assert cache.read("banks/key", "one", only=())[0] == {}
    assert cache.write("banks/key", "one", {"mean": np.zeros(1)})
    arrays, facts = cache.read("banks/key", "one")
    assert (arrays["mean"].tolist(), facts) == ([0], {})


def test_names_are_those_of_one_kind(cache, file):
    cache.write("banks/key", "another", ARRAYS)
    cache.write("banks/other", "third", ARRAYS)
    assert cache.names("banks/key") == ["another", "one"]
    assert cache.names("banks") == cache.names("nothing") == []
    assert cache.has("banks/key", "one")
    assert not cache.has("banks/other", "one")


def test_what_is_missing_is_no_damage(cache, file, monkeypatch):
    assert cache.read("banks/key", "two") is None
    assert cache.read("scores", "one") is None
    # Another process may remove it between a look and the reading.
    monkeypatch.setattr(DiskCache, "has", lambda *_: True)
    assert cache.read("banks/key", "two") is None
    assert cache.notes == []


# --- damage -------------------------------------------------------------------------------------


def flipped(content: bytes, place: int, mask: int = 1) -> bytes:
    changed = bytearray(content)
    changed[place] ^= mask
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    {
        "half": lambda content: content[: len(content) // 2],
        "one byte short": lambda content: content[:-1],
        "one byte long": lambda content: content + b"\0",
        "stub": lambda content: content[:4],
        "empty": lambda content: b"",
        "zeros": lambda content: bytes(300),
        "garbage": lambda content: bytes(range(255, -1, -1)),
        "endless header": lambda content: b"\xff" * 8 + content[8:],
        "one bit": lambda content: flipped(content, len(content) - 1),
        "no hashes": lambda content: save(ARRAYS),  # safetensors, put there by hand
    }.items(),
    ids=lambda damage: damage[0],
)
def test_a_damaged_entry_is_removed_and_named(cache, file, damage):
    cache.write("banks/key", "two", ARRAYS)
    file.write_bytes(damage[1](file.read_bytes()))
    assert cache.read("banks/key", "one") is None
    assert not file.exists()
    (note,) = cache.notes
    assert re.search(DAMAGED, note)
    assert cache.read("banks/key", "two") is not None
    assert cache.write("banks/key", "one", ARRAYS, FACTS)
    assert is_whole(cache.read("banks/key", "one"))
    assert cache.notes == [note]


def test_no_flipped_byte_anywhere_gives_a_wrong_entry(cache, file):
    """Header, facts, kinds of numbers and shapes included."""
    content = file.read_bytes()
    for place in range(len(content)):
        for mask in (1, 4, 19, 255):  # 19 makes F32 of U32
            file.write_bytes(flipped(content, place, mask))
            found = cache.read("banks/key", "one")
            assert found is None or is_whole(found), (place, mask)


def test_damage_in_an_array_that_is_not_asked_for_stays_unseen(cache, file):
    content = file.read_bytes()
    place = content.rindex(ARRAYS["mean"].tobytes())
    file.write_bytes(flipped(content, place))
    assert cache.read("banks/key", "one", only=["counts"]) is not None
    assert cache.read("banks/key", "one", only=["mean"]) is None
    assert "the array 'mean' has changed" in cache.notes[0]


# --- several at a time --------------------------------------------------------------------------

WRITER = """
import sys
import numpy as np
from pathlib import Path
from lwap.encoding.diskcache import DiskCache
cache = DiskCache(Path(sys.argv[1]), limit_bytes=10**9)
for turn in range(200):
    assert cache.write("kind", "name", {"values": np.full(2000, turn)}, {"turn": str(turn)})
    arrays, facts = cache.read("kind", "name")
    assert len(set(arrays["values"].tolist())) == 1 and int(facts["turn"]) == arrays["values"][0]
assert not cache.notes, cache.notes
"""


def test_two_processes_may_write_the_same_entry(cache):
    command = [sys.executable, "-c", WRITER, str(cache.folder)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert files_in(cache) == [f"kind/name{SUFFIX}"]
    arrays, facts = cache.read("kind", "name")
    assert (set(arrays["values"].tolist()), facts) == ({199}, {"turn": "199"})


def test_threads_may_write_the_same_entry(cache):
    def work(turn: int) -> bool:
        cache.write("kind", "name", {"values": np.full(2000, turn)})
        found = cache.read("kind", "name")
        return found is not None and len(set(found[0]["values"].tolist())) == 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))
    assert files_in(cache) == [f"kind/name{SUFFIX}"]
    assert cache.notes == []


def test_what_another_process_pruned_counts_as_gone(cache, monkeypatch):
    for place, name in enumerate(["oldest", "older", "newest"]):
        cache.write("kind", name, ARRAYS)
        age(cache.folder / "kind" / f"{name}{SUFFIX}", 100 - place)
    seen = cache._files()
    monkeypatch.setattr(cache, "_files", lambda: seen)
    (cache.folder / "kind" / f"oldest{SUFFIX}").unlink()
    cache.prune(2 * seen[0][1])
    assert cache.names("kind") == ["newest", "older"]


def test_a_folder_that_is_deleted_meanwhile_is_made_again(cache, file, monkeypatch):
    shutil.rmtree(cache.folder)
    assert cache.read("banks/key", "one") is None
    assert (cache.names("banks/key"), cache.usage(), cache.prune(0)) == ([], [], 0)
    assert cache.write("banks/key", "one", ARRAYS, FACTS)
    assert is_whole(cache.read("banks/key", "one"))

    def vanished(*_):
        raise FileNotFoundError(errno.ENOENT, "in the midst of a listing")

    monkeypatch.setattr(Path, "glob", vanished)
    assert cache.write("banks/key", "two", ARRAYS)
    assert cache.names("banks/key") == []
    assert cache.notes == []


# --- disks that take nothing --------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_once_and_not_tried_again(cache, file, monkeypatch, error):
    attempts = []

    def fill(arrays, path, metadata):
        attempts.append(path)
        Path(path).write_bytes(b"half an en")
        raise error

    monkeypatch.setattr(diskcache, "save_file", fill)
    assert not cache.write("banks/key", "two", ARRAYS)
    assert not cache.write("banks/key", "three", ARRAYS)
    assert len(attempts) == 1
    assert not cache.is_writable
    assert files_in(cache) == [f"banks/key/one{SUFFIX}"]
    assert is_whole(cache.read("banks/key", "one"))  # what is there is of use still
    (note,) = cache.notes
    assert f"'{cache.folder}' cannot be written (no space is left on the disk)" in note
    assert "Results are complete" in note
    for way_out in ("Free some space", "LWAP_CACHE,", "LWAP_CACHE_GB"):
        assert way_out in note


@pytest.mark.parametrize("kind", ["banks/key", "scores"])
@pytest.mark.parametrize("blocked", ["", "banks", "scores"])
def test_a_file_in_the_place_of_a_folder_is_no_crash(cache, kind, blocked):
    place = cache.folder / blocked
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    is_in_the_way = kind.startswith(blocked)
    assert cache.write(kind, "one", ARRAYS) != is_in_the_way
    assert (cache.read(kind, "one") is None) == is_in_the_way
    assert cache.names(kind) == ([] if is_in_the_way else ["one"])
    assert len(cache.notes) == is_in_the_way
    assert place.read_text() == "mine"


def test_a_name_that_no_disk_takes_is_no_crash(cache, file):
    long = "x" * 300
    assert not cache.has(long, "one")
    assert cache.read(long, "one") is None
    assert not cache.write(long, "one", ARRAYS)
    assert "cannot be written (File name too long)" in cache.notes[0]


@pytest.mark.parametrize("limit_bytes", [0, 100])
def test_an_entry_beyond_the_limit_is_not_written(tmp_path, limit_bytes):
    cache = DiskCache(tmp_path, limit_bytes=limit_bytes)
    assert not cache.write("banks", "one", {"values": np.zeros(100)})
    assert files_in(cache) == []
    (note,) = cache.notes
    assert f"it has a limit of {limit_bytes / 1e9:g} GB" in note
    assert "LWAP_CACHE_GB" in note


# --- the limit ----------------------------------------------------------------------------------


def test_the_entries_used_longest_ago_go_first(cache):
    for place, name in enumerate("abcd"):
        cache.write("banks", name, ARRAYS)
        age(cache.folder / "banks" / f"{name}{SUFFIX}", 1000 - place)
    size = (cache.folder / "banks" / f"a{SUFFIX}").stat().st_size
    cache.limit_bytes = 4 * size
    cache.read("banks", "a")  # used now, so that b is the oldest
    cache.write("scores", "e", ARRAYS)
    assert cache.names("banks") == ["a", "c", "d"]
    assert cache.prune(2 * size + 1) == 2 * size
    assert (cache.names("banks"), cache.names("scores")) == (["a"], ["e"])
    assert cache.prune(2 * size) == 0
    assert cache.prune(0) == 2 * size
    assert files_in(cache) == []


def test_scratch_of_a_killed_process_goes_when_it_is_old(cache, file):
    fresh, old = (file.parent / f"{SCRATCH}{name}" for name in ("fresh", "old"))
    for scratch in (fresh, old):
        scratch.write_bytes(b"half an entry")
    age(fresh, ABANDONED - 60)
    age(old, ABANDONED + 60)
    cache.write("banks/key", "two", ARRAYS)
    assert not old.exists()
    cache.prune(0)
    assert files_in(cache) == [fresh.relative_to(cache.folder).as_posix()]


def test_files_of_others_are_never_touched(cache, file):
    """A cache may be given a folder that holds more, such as ~/.cache, models included."""
    others = ["sha256.json", "banks/key/note.txt", "hub/model.safetensors", "hub/.new-thing"]
    (cache.folder / "hub").mkdir()
    for name in others:
        (cache.folder / name).write_text("mine")
        age(cache.folder / name, 10 * ABANDONED)
    size = file.stat().st_size
    assert cache.usage() == [Usage("banks", 1, size)]
    assert cache.prune(0) == size
    assert files_in(cache) == sorted(others)


def test_usage_is_by_the_first_folder(cache, file):
    cache.write("banks/other", "one", ARRAYS)
    cache.write("scores/key", "two", ARRAYS)
    size = (cache.folder / "scores/key" / f"two{SUFFIX}").stat().st_size
    banks = file.stat().st_size + (cache.folder / "banks/other" / f"one{SUFFIX}").stat().st_size
    assert cache.usage() == [Usage("banks", 2, banks), Usage("scores", 1, size)]


def test_folder_and_limit_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "named"))
    monkeypatch.delenv("LWAP_CACHE_GB", raising=False)
    assert DiskCache() == DiskCache(tmp_path / "named", int(LIMIT_GB * 1e9))
    for text, expected in (("0.5", 500_000_000), (" 2 ", 2 * 10**9), ("0", 0), (" ", 5 * 10**9)):
        monkeypatch.setenv("LWAP_CACHE_GB", text)
        assert limit_from_environment() == DiskCache().limit_bytes == expected


@pytest.mark.parametrize("text", ["five", "-1", "nan", "inf", "1e400", "0,5", "5 GB"])
def test_a_wrong_limit_is_an_error_that_shows_it(monkeypatch, text):
    monkeypatch.setenv("LWAP_CACHE_GB", text)
    with pytest.raises(ConfigError, match=f"LWAP_CACHE_GB is '{text}'; it must be a number of"):
        DiskCache()


def test_a_limit_given_by_hand_is_checked():
    assert checked_gigabytes(0.25) == 250_000_000
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"limit is {value:g} GB; it must be 0 or more"):
            checked_gigabytes(value)
