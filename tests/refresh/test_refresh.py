"""tools/refresh.py as a person uses it: each turn on a small upstream, the whole on vLLM."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from small import Repository, repository, tree_of

from portkit.change import durable
from portkit.change.journal import Journal
from portkit.commands import apply
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.patches.apply import apply_change
from portkit.port import porting
from portkit.port.conflictfile import leftovers
from portkit.upstream.git import Store
from portkit.upstream.source import CACHE_VARIABLE, Source

ROOT = Path(__file__).resolve().parents[2]

# A small upstream: v1.1.0 shifts lines, v1.2.0 rewrites a patched line and deletes a patched
# file, v1.3.0 splits a patched file among two others.

CONF = """\
import os


def start(count):
    first = prepare(count)
    child = os.fork()
    report(child, first)
    return child


def fallback():
    return os.fork()
"""
FORK = "    child = os.fork()\n"
SPAWN = "    child = spawn(count) if WINDOWS else os.fork()\n"
REWRITTEN = "    child, pipe = launch_all([count, first])\n"
SETTLED = "    child, pipe = spawn_all(count, first) if WINDOWS else launch_all([count, first])\n"
REQUIRES = "numba == 0.61.2\ntorch==2.9.1\nuvloop==0.21.0\n"
ONLY_POSIX = 'uvloop==0.21.0; sys_platform != "win32"\n'
DROPPED = "void dropped_kernel(float* values) {\n  __builtin_expensive_hint(values);\n}\n"
SPLIT = """\
void split_kernel(float* values, long count) {
  const uint blocks_of_split = divide(count, 256);
  launch_split<<<blocks_of_split, 256>>>(values);
}
"""
MANY = "".join(f"int other_{n} = compute_other({n});\n" for n in range(40))

V1_0: dict[str, str] = {
    "setup.py": "import sys\n\nsetup()\n",
    "vllm/conf.py": CONF,
    "requirements/cuda.txt": REQUIRES,
    "csrc/dropped.cu": DROPPED,
    "csrc/split.cu": SPLIT,
}
OURS: dict[str, str | None] = {
    "setup.py": V1_0["setup.py"].replace("setup()", "setup(windows=sys.platform)"),
    "vllm/conf.py": CONF.replace(FORK, SPAWN),
    "requirements/cuda.txt": REQUIRES.replace("uvloop==0.21.0\n", ONLY_POSIX),
    "csrc/dropped.cu": DROPPED.replace("__builtin_expensive_hint", "MSVC_HINT"),
    "csrc/split.cu": SPLIT.replace("uint blocks", "unsigned blocks"),
}
V1_1 = V1_0 | {
    "vllm/conf.py": '"""Starting."""\n\n' + CONF,
    "requirements/cuda.txt": REQUIRES.replace("2.9.1", "2.10.0"),
}
V1_2 = {path: text for path, text in V1_1.items() if path != "csrc/dropped.cu"} | {
    "vllm/conf.py": V1_1["vllm/conf.py"].replace(FORK, REWRITTEN),
}
V1_3 = {path: text for path, text in V1_1.items() if path != "csrc/split.cu"} | {
    "csrc/one.cu": MANY + SPLIT,
    "csrc/two.cu": MANY.replace("other", "another") + SPLIT,
}
RELEASES = {"v1.0.0": V1_0, "v1.1.0": V1_1, "v1.2.0": V1_2, "v1.3.0": V1_3}

# fixtures

CONF_PATCH = "runtime/vllm/conf.py.patch"
SPLIT_PATCH = "kernels/csrc/split.cu.patch"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "ca che"))
    return repository(tmp_path, RELEASES, OURS)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed since the last call, errors included; never a traceback."""

    def read() -> str:
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.out + captured.err

    return read


def state(root: Path) -> dict[str, bytes | None]:
    """Everything of a repository that belongs to its owner, and the waiting refresh."""
    found = tree_of(root, ".port")
    return {path: data for path, data in found.items() if not path.startswith("work/reports/v")}


def owned(root: Path) -> dict[str, bytes | None]:
    """The series, the pin and its reference."""
    return tree_of(root, ".port", "work", "tools")


def settle(repository: Repository, text: str = SETTLED) -> None:
    """Replace the one conflict in vllm/conf.py by `text`."""
    file = repository.work("vllm/conf.py")
    before, _, rest = file.read_bytes().partition(b"<<<<<<< ")
    after = rest.partition(b">>>>>>> ")[2].partition(b"\n")[2]
    file.write_bytes(before + text.encode() + after)


# carrying


def test_a_clean_carry_switches_the_series_and_the_pin(
    small: Repository, said: Callable[[], str]
) -> None:
    assert small.to("v1.1.0") == Exit.OK
    assert small.pin.tag == "v1.1.0"
    assert small.patched("vllm/conf.py") == '"""Starting."""\n\n' + CONF.replace(FORK, SPAWN)
    assert small.patched("requirements/cuda.txt") == (
        "numba == 0.61.2\ntorch==2.10.0\n" + ONLY_POSIX
    )
    out = said()
    assert "vLLM v1.0.0 to v1.1.0: 5 patches, 5 hunks, 1 step" in out
    assert "carried   5 patches whole" in out
    assert "the series is at v1.1.0 now (--undo puts v1.0.0 back)" in out
    report = next(line for line in out.splitlines() if line.startswith("report: "))
    assert Path(report.removeprefix("report: ")).read_bytes().startswith(b"<!")


def test_a_dry_run_writes_nothing_at_all(small: Repository, said: Callable[[], str]) -> None:
    before = tree_of(small.root)
    assert small.to("v1.1.0", "--dry-run") == Exit.OK
    assert small.to("v1.2.0", "--dry-run") == Exit.WAITING
    assert small.to("v1.3.0", "--dry-run", "--step", "--accept-drops") == Exit.WAITING
    assert tree_of(small.root) == before
    assert said().count("nothing was written\n") == 3


def test_a_dry_run_may_look_while_a_refresh_waits(small: Repository) -> None:
    small.to("v1.2.0")
    before = tree_of(small.root)
    assert small.to("v1.1.0", "--dry-run") == Exit.OK
    assert tree_of(small.root) == before


def test_a_dry_run_leaves_a_report_where_it_is_told(
    small: Repository, tmp_path: Path, said: Callable[[], str]
) -> None:
    folder = tmp_path / "a re port"
    assert small.to("v1.2.0", "--dry-run", "--report", str(folder)) == Exit.WAITING
    assert {file.name for file in folder.iterdir()} == {"report.html", "report.md"}
    assert "nothing was written but the report" in said()


def test_release_by_release_names_the_steps(small: Repository, said: Callable[[], str]) -> None:
    assert small.to("v1.3.0", "--step", "--dry-run", "--json") == Exit.WAITING
    assert json.loads(said())["result"]["run"]["tags"] == list(RELEASES)


def test_release_by_release_asks_only_what_the_last_one_leaves_open(small: Repository) -> None:
    """v1.2.0 rewrites a line and v1.3.0 puts it back: there is nothing to ask."""
    small.to("v1.3.0", "--step")
    assert not small.work("vllm/conf.py").exists()


def test_nothing_happens_where_the_series_is_already(
    small: Repository, said: Callable[[], str]
) -> None:
    before = state(small.root)
    assert small.to("v1.0.0") == Exit.OK
    assert small.to("1.0", "--json") == Exit.OK
    assert state(small.root) == before
    first, _, rest = said().partition("\n")
    assert first == "the series is at v1.0.0 already"
    assert json.loads(rest)["message"] == first


# drops and conflicts


def test_a_drop_waits_until_it_is_accepted(small: Repository, said: Callable[[], str]) -> None:
    small.to("v1.2.0")
    settle(small)
    before = owned(small.root)
    assert small.refresh("--continue") == Exit.WAITING
    assert owned(small.root) == before
    out = said()
    assert "1 patch loses a piece: confirm with --accept-drops" in out
    assert "csrc/dropped.cu is not in v1.2.0" in out
    assert small.refresh("--continue", "--accept-drops") == Exit.OK
    assert small.pin.tag == "v1.2.0"
    names = [patch.name for patch in series.load(small.root).patches]
    assert "kernels/csrc/dropped.cu.patch" not in names
    assert len(names) == len(OURS) - 1


def test_status_says_what_waits(small: Repository, said: Callable[[], str]) -> None:
    assert small.refresh("--status") == Exit.OK
    assert said() == "no refresh is under way; the series is at v1.0.0\n"
    small.to("v1.2.0")
    said()
    assert small.refresh("--status") == Exit.WAITING
    assert "waiting   work/refresh/vllm/conf.py:8\n" in (out := said())
    assert "drop      kernels/csrc/dropped.cu.patch: confirm with --accept-drops\n" in out
    settle(small)
    small.refresh("--status")
    assert "settled   work/refresh/vllm/conf.py\n" in said()
    small.work("vllm/conf.py").unlink()
    small.refresh("--status")
    assert "missing   work/refresh/vllm/conf.py\n" in said()


def test_status_as_json(small: Repository, said: Callable[[], str]) -> None:
    assert small.refresh("--status", "--json") == Exit.OK
    assert json.loads(said()) == {"schema": 1, "command": "refresh", "exit": 0, "waiting": None}
    small.to("v1.2.0", "--accept-drops")
    said()
    assert small.refresh("--status", "--json") == Exit.WAITING
    waiting = json.loads(said())["waiting"]
    assert waiting.pop("started")
    assert waiting == {
        "from": "v1.0.0",
        "tags": ["v1.0.0", "v1.2.0"],
        "files": {"work/refresh/vllm/conf.py": "waiting"},
        "conflicts": [CONF_PATCH],
        "homeless": [],
        "drops": ["kernels/csrc/dropped.cu.patch"],
        "drops_accepted": True,
        "skipped": [],
    }


def test_the_result_as_json(small: Repository, said: Callable[[], str]) -> None:
    assert small.to("v1.2.0", "--json") == Exit.WAITING
    result = json.loads(said())
    assert (result["schema"], result["command"], result["exit"]) == (1, "refresh", 1)
    assert result["files"] == ["vllm/conf.py"]
    assert Path(result["report"], "report.md").is_file()
    assert any("work/refresh/vllm/conf.py:8" in line for line in result["next"])
    assert result["result"]["run"]["tags"] == ["v1.0.0", "v1.2.0"]


def test_what_a_person_made_of_a_conflict_is_carried(small: Repository) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    assert small.refresh("--continue") == Exit.OK
    assert small.patched("vllm/conf.py") == V1_2["vllm/conf.py"].replace(REWRITTEN, SETTLED)
    assert not small.work("").exists()
    assert small.refresh("--status") == Exit.OK
    (recorded,) = (small.root / "patch_series/resolutions").iterdir()
    assert SETTLED.encode() in recorded.read_bytes()


def test_a_recorded_resolution_replays_in_another_clone(
    small: Repository, tmp_path: Path, said: Callable[[], str]
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    small.refresh("--continue")
    other = repository(tmp_path / "another", RELEASES, OURS)
    folder = "patch_series/resolutions"
    shutil.copytree(small.root / folder, other.root / folder)
    said()
    assert other.to("v1.2.0", "--accept-drops") == Exit.OK
    assert "recorded resolution" in said()
    assert other.patched("vllm/conf.py") == small.patched("vllm/conf.py")
    assert owned(other.root) == owned(small.root)


def test_edits_around_a_conflict_are_kept_as_well(small: Repository) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    file = small.work("vllm/conf.py")
    file.write_bytes(file.read_bytes().replace(b"import os\n", b"import os\nimport sys\n"))
    assert small.refresh("--continue") == Exit.OK
    assert "import os\nimport sys\n" in small.patched("vllm/conf.py")


def test_taking_upstreams_side_everywhere_drops_the_patch(small: Repository) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small, REWRITTEN)
    assert small.refresh("--continue") == Exit.OK
    assert series.load(small.root).find(CONF_PATCH) is None


@pytest.mark.parametrize("left", ["<<<<<<< ours\n", ">>>>>>> theirs\n", "=======\n"])
def test_a_marker_that_is_left_is_named_by_file_and_line(
    small: Repository, said: Callable[[], str], left: str
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small, SETTLED + left)
    before = state(small.root)
    said()
    assert small.refresh("--continue") == Exit.WAITING
    assert "settle work/refresh/vllm/conf.py:9\n" in said()
    assert state(small.root) == before


def test_an_edit_that_does_not_parse_is_named_by_file_and_line(
    small: Repository, said: Callable[[], str]
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small, "    child = spawn(count\n")
    before = state(small.root)
    said()
    assert small.refresh("--continue") == Exit.BAD_INPUT
    assert said().startswith("error: work/refresh/vllm/conf.py:8: ")
    assert state(small.root) == before
    settle_again = small.work("vllm/conf.py").read_bytes().replace(b"(count\n", b"(count)\n")
    small.work("vllm/conf.py").write_bytes(settle_again)
    assert small.refresh("--continue") == Exit.OK


def test_a_file_that_was_deleted_is_written_anew(small: Repository) -> None:
    small.to("v1.2.0", "--accept-drops")
    before = state(small.root)
    small.work("vllm/conf.py").unlink()
    assert small.refresh("--continue") == Exit.WAITING
    assert state(small.root) == before


@pytest.mark.parametrize(
    "name",
    [CONF_PATCH, "vllm/conf.py", "runtime/vllm/conf.py", f"patch_series/{CONF_PATCH}",
     "patch_series\\runtime\\vllm\\conf.py.patch"],
)  # fmt: skip
def test_a_patch_can_be_given_up_by_any_of_its_names(
    small: Repository, said: Callable[[], str], name: str
) -> None:
    small.to("v1.2.0", "--accept-drops")
    assert small.refresh("--skip", name) == Exit.OK
    assert series.load(small.root).find(CONF_PATCH) is None
    assert small.patched("vllm/conf.py") == V1_2["vllm/conf.py"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vllm/none.py", "there is no patch vllm/none.py"),
        ("setup.py", "nothing of build/setup.py.patch is in conflict"),
    ],
)
def test_only_what_waits_can_be_given_up(
    small: Repository, said: Callable[[], str], name: str, message: str
) -> None:
    small.to("v1.2.0", "--accept-drops")
    before = tree_of(small.root)
    said()
    assert small.refresh("--skip", name) == Exit.BAD_INPUT
    assert said().startswith(f"error: {message}\nhint: ")
    assert tree_of(small.root, ".port") == {
        path: data for path, data in before.items() if path.split("/")[0] != ".port"
    }


def test_code_that_moved_goes_where_a_person_says(
    small: Repository, said: Callable[[], str]
) -> None:
    assert small.to("v1.3.0") == Exit.WAITING
    assert f"--move {SPLIT_PATCH} FILE" in said()
    assert small.refresh("--continue") == Exit.WAITING
    assert small.refresh("--move", SPLIT_PATCH, "csrc\\two.cu") == Exit.WAITING
    file = small.work("csrc/two.cu")
    assert file.read_text().startswith(V1_3["csrc/two.cu"] + "<<<<<<< ours")
    file.write_text(V1_3["csrc/two.cu"].replace("uint blocks", "unsigned blocks"))
    assert small.refresh("--continue") == Exit.OK
    names = [patch.name for patch in series.load(small.root).patches]
    assert "kernels/csrc/two.cu.patch" in names
    assert SPLIT_PATCH not in names
    assert "unsigned blocks" in small.patched("csrc/two.cu")
    assert not (small.root / "patch_series/resolutions").exists()


@pytest.mark.parametrize(
    ("patch", "path", "message"),
    [
        (SPLIT_PATCH, "csrc/none.cu", "there is no file csrc/none.cu in v1.3.0"),
        (SPLIT_PATCH, "../../etc/passwd", "there is no file ../../etc/passwd in v1.3.0"),
        ("setup.py", "csrc/two.cu", "nothing of build/setup.py.patch waits"),
        ("none", "csrc/two.cu", "there is no patch none"),
    ],
)
def test_a_piece_cannot_be_moved_to_nowhere(
    small: Repository, said: Callable[[], str], patch: str, path: str, message: str
) -> None:
    small.to("v1.3.0")
    before = state(small.root)
    said()
    assert small.refresh("--move", patch, path) == Exit.BAD_INPUT
    assert said().startswith(f"error: {message}\n")
    assert state(small.root) == before


def test_abort_leaves_the_series_as_it_was(small: Repository, said: Callable[[], str]) -> None:
    before = owned(small.root)
    small.to("v1.2.0")
    settle(small)
    said()
    assert small.refresh("--abort") == Exit.OK
    assert said() == "the refresh to v1.2.0 is forgotten; the series is at v1.0.0\n"
    assert owned(small.root) == before
    assert not small.work("").exists()
    assert small.refresh("--abort") == Exit.OK
    assert small.to("v1.1.0") == Exit.OK


def test_undo_puts_every_byte_back(small: Repository, said: Callable[[], str]) -> None:
    before = owned(small.root)
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    small.refresh("--continue")
    said()
    assert small.refresh("--undo") == Exit.OK
    assert said() == "undone: carry the series from v1.0.0 to v1.2.0\n"
    assert owned(small.root) == before
    assert small.refresh("--undo", "--json") == Exit.BAD_INPUT
    assert said() == "error: there is nothing to undo\n"


# what gets in the way


def test_one_refresh_at_a_time(small: Repository, said: Callable[[], str]) -> None:
    small.to("v1.2.0")
    before = state(small.root)
    said()
    assert small.to("v1.1.0") == Exit.BUSY
    assert "a refresh to v1.2.0 is under way" in said()
    assert small.refresh("--undo") == Exit.BUSY
    assert state(small.root) == before


def test_two_processes_at_once(small: Repository, said: Callable[[], str]) -> None:
    before = state(small.root)
    with Journal(small.root).lock("a slow command"):
        for call in (["--to", "v1.1.0"], ["--abort"]):
            other = _start(small.root, *call)
            assert other.wait() == Exit.BUSY
            assert b"`a slow command` is at work here" in other.communicate()[1]
    assert state(small.root) == before


def test_a_series_that_was_edited_meanwhile_is_not_written_over(
    small: Repository, said: Callable[[], str]
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    file = small.root / "patch_series" / "build/setup.py.patch"
    original = file.read_bytes()
    file.write_bytes(original.replace(b"In more words", b"In other words"))
    before = state(small.root)
    said()
    assert small.refresh("--continue") == Exit.BAD_INPUT
    changed = "patch_series/build/setup.py.patch was changed since this refresh began"
    assert said().startswith(f"error: {changed}\n")
    assert state(small.root) == before
    file.write_bytes(original)
    assert small.refresh("--continue") == Exit.OK


@pytest.mark.parametrize("key", ["tree", "patched-tree", "commit"])
def test_a_pin_that_does_not_match_is_refused(
    small: Repository, said: Callable[[], str], key: str
) -> None:
    file = small.root / pinfile.PIN_FILE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(
        f"{key}: {'0' * 40}\n" if line.startswith(f"{key}:") else line for line in lines
    ))  # fmt: skip
    before = state(small.root)
    assert small.to("v1.1.0") == Exit.INTEGRITY
    assert said().startswith("error: ")
    assert state(small.root) == before


def test_a_patch_edited_by_hand_is_refused(small: Repository, said: Callable[[], str]) -> None:
    file = small.root / "patch_series" / "build/setup.py.patch"
    file.write_bytes(file.read_bytes().replace(b"windows=sys", b"macos=sys"))
    assert small.to("v1.1.0") == Exit.INTEGRITY
    assert "the pin says" in said()


BAD: list[tuple[list[str], int, str]] = [
    (["--to", "main"], 2, "error: 'main' is not the tag of an upstream release\n"),
    (["--to", ""], 2, "error: '' is not the tag of an upstream release\n"),
    (["--to", "v1.0.0-3-gabc"], 2, "error: "),
    (["--to", "v0.9.0", "--step"], 2, "error: v0.9.0 is older than v1.0.0\n"),
    (["--to", "v1.1.0", "--upstream", "no/such"], 2, "no/such does not exist\n"),
    (["--to", "v1.1.0", "--upstream", __file__], 2, "is neither a git clone nor vLLM's source\n"),
    (["--to", "v1.1.0", "--report", __file__], 2, "is not a folder\n"),
    (["--continue"], 2, "error: no refresh is under way\n"),
    (["--skip", "setup.py"], 2, "error: no refresh is under way\n"),
    (["--move", "setup.py", "x"], 2, "error: no refresh is under way\n"),
    (["--undo"], 2, "error: there is nothing to undo\n"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD)
def test_bad_input_is_one_sentence(
    small: Repository, said: Callable[[], str], arguments: list[str], code: int, message: str
) -> None:
    if arguments[0] == "--to" and "--upstream" not in arguments:
        arguments = [*arguments, "--upstream", str(small.clone)]
    before = state(small.root)
    assert small.refresh(*arguments) == code
    out = said()
    assert message in out
    error, *hints = out.splitlines()
    assert error.startswith("error: ")
    assert len(hints) <= 1 and all(hint.startswith("hint: ") for hint in hints)
    assert state(small.root) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["--to"], ["--continue", "--abort"], ["--status", "--dry-run"], ["--skip"],
     ["--move", "a"], ["--continue", "--step"], ["--nonsense"]],
)  # fmt: skip
def test_bad_flags_say_how_it_is_used(
    small: Repository, said: Callable[[], str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        small.refresh(*arguments)
    assert caught.value.code == Exit.BAD_INPUT
    assert said().startswith("usage: refresh.py ")


def test_an_unknown_tag_is_named(
    small: Repository, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portkit.upstream.source._from_index", _no_index)
    assert small.to("v9.9.9") in (Exit.BAD_INPUT, Exit.UNAVAILABLE)
    error, *hints = said().splitlines()
    assert error.startswith("error: v9.9.9 ")
    assert len(hints) == 1


def _no_index(*_: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("upstream_pin.txt", b"tag v1.0.0\n"),
        ("upstream_pin.txt", b""),
        ("patch_series/series", b"build/none.patch\n"),
        ("patch_series/build/setup.py.patch", b"not a patch\n"),
        ("patch_series/resolutions/00.resolution", b"not a resolution\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    small: Repository, said: Callable[[], str], path: str, data: bytes
) -> None:
    (small.root / path).parent.mkdir(exist_ok=True)
    (small.root / path).write_bytes(data)
    assert small.to("v1.1.0") == Exit.BAD_INPUT
    assert said().startswith(f"error: {path}")


def test_a_damaged_state_can_be_aborted(small: Repository, said: Callable[[], str]) -> None:
    before = owned(small.root)
    small.to("v1.2.0")
    (small.root / ".port/refresh.json").write_bytes(b"{")
    said()
    for call in (["--status"], ["--continue"], ["--undo"]):
        assert small.refresh(*call) == Exit.INTEGRITY
        assert said().startswith("error: .port/refresh.json is not the state of a refresh")
    assert small.to("v1.1.0") == Exit.INTEGRITY
    said()
    assert small.refresh("--abort") == Exit.OK
    assert "removed" in said()
    assert owned(small.root) == before
    assert small.to("v1.1.0") == Exit.OK


# faults


def test_a_full_disk_leaves_all_as_it_was(
    small: Repository, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    before = state(small.root)
    write = durable.write
    for room in (0, 1, 3, 5):
        left = iter(range(room))

        def full(path: Path, data: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write(path, data)

        said()
        with monkeypatch.context() as patched:
            patched.setattr(durable, "write", full)
            assert small.refresh("--continue") == Exit.UNAVAILABLE
        assert "the disk is full" in said()
        assert state(small.root) == before
    assert small.refresh("--continue") == Exit.OK


def test_a_full_disk_while_files_are_left_to_edit(
    small: Repository, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = owned(small.root)

    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write", full)
        assert small.to("v1.2.0") == Exit.UNAVAILABLE
    assert owned(small.root) == before
    assert not small.work("vllm/conf.py").exists()
    said()
    assert small.to("v1.2.0") == Exit.WAITING


def test_killed_after_the_switch_it_is_done(
    small: Repository, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    with monkeypatch.context() as patched:
        patched.setattr("portkit.port.session.Session.end", _interrupt)
        assert small.refresh("--continue") == Exit.INTERRUPTED
    assert small.pin.tag == "v1.2.0"
    said()
    assert small.refresh("--continue") == Exit.BAD_INPUT
    assert said().startswith("error: no refresh is under way\n")
    assert small.refresh("--undo") == Exit.OK


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


_FAULTY = """\
import functools, pathlib, sys
from faults import Died, faults
from portkit.face import console
from portkit.commands import refresh
def die(*_):
    raise Died
at = int(sys.argv[2])
if at >= 0:
    faults.arm(at, die)
faults.fast = True
sys.exit(console.run(functools.partial(refresh.main, root=pathlib.Path(sys.argv[1])), sys.argv[3:]))
"""


def _start(root: Path, *arguments: str, at: int = -1) -> subprocess.Popen[bytes]:
    """Start the command; with `at` it dies at that change of the disk and every later one."""
    paths = os.pathsep.join((str(ROOT / "tools"), str(ROOT / "tests")))
    return subprocess.Popen(
        [sys.executable, "-c", _FAULTY, str(root), str(at), *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("at", [0, 2, 4, 7, 9, 12, 16, 24, 32, 40])
def test_killed_at_any_change_of_the_disk_it_is_old_or_new(
    small: Repository, said: Callable[[], str], at: int
) -> None:
    """Killed while it ends a refresh, the next call ends it or begins that call anew."""
    small.to("v1.2.0", "--accept-drops")
    settle(small)
    old = owned(small.root)
    twin = small.root.with_name("twin")
    shutil.copytree(small.root, twin)
    Repository(twin, small.clone).refresh("--continue")
    new = owned(twin)
    _start(small.root, "--continue", at=at).communicate()
    said()
    assert small.refresh("--status") in (Exit.OK, Exit.WAITING)
    assert owned(small.root) in (old, new)
    code = small.refresh("--continue")
    assert code in (Exit.OK, Exit.BAD_INPUT), said()
    assert owned(small.root) == new
    assert not small.work("vllm/conf.py").exists()


@pytest.mark.parametrize("at", [0, 3, 6, 8, 10, 12, 14])
def test_killed_while_files_are_left_to_edit_it_can_be_begun_or_continued(
    small: Repository, said: Callable[[], str], at: int
) -> None:
    before = owned(small.root)
    _start(small.root, "--to", "v1.2.0", "--upstream", str(small.clone), at=at).communicate()
    said()
    if small.refresh("--continue") == Exit.BAD_INPUT:
        assert small.to("v1.2.0") == Exit.WAITING
    assert owned(small.root) == before
    assert leftovers(small.work("vllm/conf.py").read_bytes())
    settle(small)
    assert small.refresh("--continue", "--accept-drops") == Exit.OK


# vLLM itself


@pytest.fixture
def shipped(tmp_path: Path, cache_dir: Path, obtain_tag: Callable[[str], Source]) -> Repository:
    """A copy of this repository's series."""
    del cache_dir
    obtain_tag("v0.14.1")
    root = tmp_path / "the shipped series"
    # Without the rules: what the scan finds is told by tests/scan/.
    shutil.copytree(
        ROOT / "patch_series", root / "patch_series", ignore=shutil.ignore_patterns("rules")
    )
    (root / "docs").mkdir()
    for name in ("upstream_pin.txt", "docs/patches.md"):
        shutil.copyfile(ROOT / name, root / name)
    return Repository(root, Path())


DROP = "kernels/csrc/quantization/marlin/sparse/common/base.h.patch"


@pytest.mark.upstream
def test_vllm_one_release_on(
    shipped: Repository, obtain_tag: Callable[[str], Source], said: Callable[[], str],
    store: Store,
) -> None:  # fmt: skip
    obtain_tag("v0.17.1")
    before = owned(shipped.root)
    assert shipped.refresh("--to", "v0.17.1") == Exit.WAITING
    assert f"drop      {DROP}: target deleted with its code" in said()
    assert owned(shipped.root) == before
    assert shipped.refresh("--continue", "--accept-drops") == Exit.OK
    assert shipped.pin.tag == "v0.17.1"
    patches = series.load(shipped.root).upstream
    assert len(patches) == len([p for p in before if p.endswith(".patch")]) - 1
    files = store.files(shipped.pin.tree)
    for patch in patches:
        assert apply_change(patch.change, store.read(files[patch.path].oid)) is not None
    assert shipped.refresh("--undo") == Exit.OK
    assert owned(shipped.root) == before


@pytest.mark.upstream
def test_vllm_with_a_conflict_settled_and_replayed(
    shipped: Repository, obtain_tag: Callable[[str], Source], said: Callable[[], str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    obtain_tag("v0.21.0")
    fresh = tmp_path / "fresh"
    shutil.copytree(shipped.root, fresh)
    assert shipped.refresh("--to", "v0.21.0", "--accept-drops") == Exit.WAITING
    file = shipped.work("CMakeLists.txt")
    conflicted = file.read_bytes()
    broken = conflicted.replace(b"<<<<<<< ours", b"if(UNFINISHED)\n<<<<<<< ours")
    file.write_bytes(_with_both(broken))
    said()
    assert shipped.refresh("--continue") == Exit.BAD_INPUT
    assert said().startswith("error: work/refresh/CMakeLists.txt:")
    file.write_bytes(_with_both(conflicted))
    assert shipped.refresh("--continue") == Exit.OK
    said()
    target = tmp_path / "a patched tree"
    assert console.run(partial(apply.main, root=shipped.root), [str(target)]) == Exit.OK
    assert f"tree {shipped.pin.patched_tree}" in said()
    assert (target / "CMakeLists.txt").read_bytes() == _with_both(conflicted)
    (recorded,) = (shipped.root / "patch_series/resolutions").iterdir()
    again = Repository(fresh, Path())
    (fresh / "patch_series/resolutions").mkdir()
    shutil.copyfile(recorded, fresh / "patch_series/resolutions" / recorded.name)
    assert again.refresh("--to", "v0.21.0", "--accept-drops") == Exit.OK
    assert "recorded resolution" in said()
    assert owned(fresh) == owned(shipped.root)


def _with_both(data: bytes) -> bytes:
    """Each conflict as ours followed by upstream's side."""
    while b"<<<<<<< " in data:
        before, _, rest = data.partition(b"<<<<<<< ")
        block, _, after = rest.partition(b">>>>>>> ")
        ours = block.partition(b"\n")[2].partition(b"||||||| ")[0]
        theirs = block.partition(b"=======\n")[2]
        data = before + ours + theirs + after.partition(b"\n")[2]
    return data


@pytest.mark.upstream
def test_vllm_release_by_release(
    shipped: Repository, obtain_tag: Callable[[str], Source], said: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tags = ["v0.14.1", "v0.16.0", "v0.17.1"]
    for tag in tags:
        obtain_tag(tag)
    monkeypatch.setattr(porting, "released_tags", lambda **_: tags)
    assert shipped.refresh("--to", "v0.17.1", "--step", "--accept-drops") == Exit.OK
    assert "2 steps" in said()
    assert shipped.pin.tag == "v0.17.1"


@pytest.mark.upstream
def test_vllm_killed_at_any_moment_the_series_is_old_or_new(
    shipped: Repository, obtain_tag: Callable[[str], Source], tmp_path: Path
) -> None:
    """The command as a person starts it, from a copy of the repository."""
    obtain_tag("v0.17.1")
    shutil.copytree(
        ROOT / "tools", shipped.root / "tools", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, str(shipped.root / "tools" / "refresh.py")]
    carry = [*command, "--to", "v0.17.1", "--accept-drops"]
    old = owned(shipped.root)
    begun = time.monotonic()
    done = subprocess.run(carry, check=False, capture_output=True)
    assert done.returncode == Exit.OK, done.stderr
    took = time.monotonic() - begun
    new = owned(shipped.root)
    assert old != new
    subprocess.run([*command, "--undo"], check=True, capture_output=True)
    assert owned(shipped.root) == old
    moments = random.Random(took)
    for _ in range(3):
        process = subprocess.Popen(carry, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.4, 1.0) * took)
        process.kill()
        process.wait()
        status = subprocess.run([*command, "--status"], check=True, capture_output=True)
        assert b"no refresh is under way" in status.stdout
        found = owned(shipped.root)
        assert found in (old, new)
        if found == new:
            subprocess.run([*command, "--undo"], check=True, capture_output=True)
