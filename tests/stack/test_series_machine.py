"""Random sequences of commands and edits never lose a byte, and undo always returns.

Real files and the real command line, beside a model of a few dictionaries: upstream's files, what
each patch makes of its file, how many patches are applied, and what the work tree should hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from desk import Desk
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from portkit.change.managed import Executable
from portkit.patches.series import GROUPS, group_of

LINES = [b"line %d\n" % number for number in range(30)]
TEXT = b"".join(LINES)
UPSTREAM: dict[str, bytes] = {
    "setup.py": TEXT,
    "CMakeLists.txt": TEXT.replace(b"\n", b"\r\n"),
    "csrc/core/math.hpp": TEXT + b"no newline",
    "csrc/späce.cu": b"\xff\x0c\n" + TEXT,
    "csrc/gone.cu": b"a\n",
    "vllm/run.py": Executable(TEXT),
    "vllm/plain.py": TEXT,
}
OURS: dict[str, bytes | None] = {
    "CMakeLists.txt": UPSTREAM["CMakeLists.txt"].replace(b"line 3\r", b"line three\r"),
    "setup.py": TEXT.replace(b"line 20\n", b"line twenty\n"),
    "csrc/gone.cu": None,
    "csrc/core/math.hpp": TEXT + b"newline now\n",
    "vllm/run.py": Executable(TEXT + b"more\n"),
    "vllm/win32.py": b"fresh\n",
}
FILES = [*UPSTREAM, "vllm/win32.py", "vllm/new one.py", "vllm/new/two.py"]


@dataclass(frozen=True)
class Model:
    """What there should be: the patches' results in order, how many are applied, the work tree."""

    made: dict[str, bytes | None]
    depth: int = 0
    left: dict[str, bytes] = field(default_factory=dict)  # by the tools
    lying: dict[str, bytes] = field(default_factory=dict)

    @property
    def applied(self) -> list[str]:
        return [*self.made][: self.depth]

    def wanted(self, path: str) -> bytes | None:
        """What the tools put into a file of the work tree."""
        return self.made[path] if path in self.applied else UPSTREAM.get(path)

    @property
    def edited(self) -> list[str]:
        paths = {*self.left, *self.lying}
        return sorted(
            path
            for path in paths
            if not same(self.lying.get(path), self.left.get(path))
            and not (path not in self.left and same(self.lying.get(path), self.wanted(path)))
        )

    def moved(self, goal: Model, touched: set[str]) -> Model | None:
        """`goal` with the files in `touched` as it wants them; None where an edit would go."""
        left, lying = dict(self.left), dict(self.lying)
        for path in touched:
            wanted = goal.wanted(path)
            if not same(lying.get(path), wanted) and not same(lying.get(path), left.get(path)):
                return None
            for files in (left, lying):
                files.pop(path, None)
                if wanted is not None:
                    files[path] = wanted
        return replace(goal, left=left, lying=lying)


Everything = dict[str, tuple[bytes, bool]]


def with_modes(files: Mapping[str, bytes]) -> dict[str, tuple[bytes, bool]]:
    return {path: (bytes(data), isinstance(data, Executable)) for path, data in files.items()}


def same(one: bytes | None, other: bytes | None) -> bool:
    return one == other and isinstance(one, Executable) == isinstance(other, Executable)


def edit(data: bytes, number: int, kind: str) -> bytes:
    """`data` with an edit of a kind at a line."""
    lines = data.splitlines(keepends=True) or [b""]
    at = number % len(lines)
    if kind == "insert":
        lines.insert(at, b"inserted %d\r\n" % number)
    elif kind == "change":
        lines[at] = b"changed \xff %d\n" % number
    elif kind == "delete" and len(lines) > 1:
        del lines[at]
    elif kind == "end":
        lines[-1] = lines[-1].rstrip(b"\n") + b" at the end"
    elif kind == "pristine":
        return TEXT
    result = b"".join(lines)
    executable = isinstance(data, Executable) != (kind == "mode")
    return Executable(result) if executable else result


@dataclass(frozen=True)
class Past:
    """What there was before a step, and the files of the work tree that the step changed."""

    model: Model
    managed: dict[str, bytes]
    changed: frozenset[str]


def changed(before: Everything, after: Everything) -> frozenset[str]:
    paths = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    return frozenset(path.removeprefix("work/tree/") for path in paths)


class Machine(RuleBasedStateMachine):
    """Commands and edits in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="a desk "))
        self.environment = os.environ.get("VLLM_PORT_CACHE")

    @initialize(pushed=st.booleans())
    def begin(self, pushed: bool) -> None:
        self.desk = Desk.make(self.folder, UPSTREAM, OURS)
        self.model = Model(dict(OURS))
        self.past: list[Past] = []
        self.future: list[Past] = []
        if pushed:
            self.push_all()

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.environment is None:
            os.environ.pop("VLLM_PORT_CACHE", None)
        else:
            os.environ["VLLM_PORT_CACHE"] = self.environment

    def do(self, goal: Model | None, *words: str) -> None:
        """Run a command that makes `goal`, or must be refused and change nothing."""
        before, managed = self.desk.everything(), self.desk.managed()
        entries = self.steps()
        said = self.desk.run(*words)
        if goal is None:
            assert said.code != 0, (words, said)
            assert "Traceback" not in said.err
            assert self.desk.everything() == before, words
            return
        assert said.code == 0, (words, said)
        if self.steps() != entries:
            self.past.append(Past(self.model, managed, changed(before, self.desk.everything())))
            self.future = []
        self.model = goal

    def steps(self) -> str:
        return self.desk.does("oplog")

    # a person

    @precondition(lambda self: self.model.lying)
    @rule(
        data=st.data(),
        number=st.integers(0, 40),
        kind=st.sampled_from(["insert", "change", "delete", "end", "mode", "pristine"]),
    )
    def write(self, data: st.DataObject, number: int, kind: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.model.lying)))
        self.put(path, edit(self.model.lying[path], number, kind))

    @rule(path=st.sampled_from(FILES), number=st.integers(0, 3))
    def write_new(self, path: str, number: int) -> None:
        self.put(path, b"something new %d\n" % number)

    def put(self, path: str, data: bytes) -> None:
        self.desk.write(path, data)
        self.model = replace(self.model, lying={**self.model.lying, path: data})

    @precondition(lambda self: self.model.lying)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.model.lying)))
        self.desk.write(path, None)
        lying = {one: what for one, what in self.model.lying.items() if one != path}
        self.model = replace(self.model, lying=lying)

    # the stack

    def go(self, depth: int, *words: str) -> None:
        model = self.model
        low, high = sorted((depth, model.depth))
        touched = {*[*model.made][low:high]}
        self.do(model.moved(replace(model, depth=depth), touched), *words)

    @rule(number=st.integers(1, 4))
    def push(self, number: int) -> None:
        depth = self.model.depth + number
        if depth > len(self.model.made):
            self.do(None, "push", str(number))
        else:
            self.go(depth, "push", str(number))

    @rule(number=st.integers(1, 4))
    def pop(self, number: int) -> None:
        if number > self.model.depth:
            self.do(None, "pop", str(number))
        else:
            self.go(self.model.depth - number, "pop", str(number))

    @rule()
    def push_all(self) -> None:
        self.go(len(self.model.made), "push", "-a")

    @precondition(lambda self: self.model.made)
    @rule(data=st.data())
    def goto(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from([*self.model.made]))
        self.go([*self.model.made].index(path) + 1, "goto", path)

    # editing

    @rule(path=st.sampled_from([*UPSTREAM]))
    def edit(self, path: str) -> None:
        model = self.model
        words = ("edit", "--no-editor", path)
        if path in model.made:
            if model.made[path] is None:
                self.do(None, *words)
            else:
                self.go(max(model.depth, [*model.made].index(path) + 1), *words)
        elif path in model.lying:
            self.do(model, *words)
        else:
            self.do(model.moved(model, {path}), *words)

    @rule()
    def refresh(self) -> None:
        model = self.model
        self.take(model.edited, "refresh")

    @precondition(lambda self: self.model.edited)
    @rule(data=st.data())
    def refresh_one(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.model.edited))
        self.take([path], "refresh", path)

    def take(self, paths: list[str], *words: str) -> None:
        model = self.model
        if any(" " in path or (path in model.made and path not in model.applied) for path in paths):
            self.do(None, *words)
            return
        made = dict(model.made)
        fresh: list[str] = []
        for path in paths:
            new = model.lying.get(path)
            if path not in made:
                fresh.append(path)
            elif same(new, UPSTREAM.get(path)):
                del made[path]
            else:
                made[path] = new
        for path in fresh:
            made = inserted(made, path, model.lying.get(path))
        names = {*model.applied, *fresh} & {*made}
        depth = max((at for at, path in enumerate(made, 1) if path in names), default=0)
        goal = replace(model, made=made, depth=depth)
        touched = {*goal.applied} ^ {*model.applied} | set(paths)
        self.do(model.moved(goal, touched), *words)

    @precondition(lambda self: self.model.edited)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.model.edited))
        goal = replace(self.model, left=dict(self.model.left), lying=dict(self.model.lying))
        for files in (goal.left, goal.lying):
            files.pop(path, None)
            if (wanted := goal.wanted(path)) is not None:
                files[path] = wanted
        self.do(goal, "revert", path)

    @precondition(lambda self: self.model.made)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        model = self.model
        path = data.draw(st.sampled_from([*model.made]))
        made = {one: what for one, what in model.made.items() if one != path}
        applied = {*model.applied} - {path}
        depth = max((at for at, one in enumerate(made, 1) if one in applied), default=0)
        touched = {path} if path in model.applied else set()
        self.do(model.moved(replace(model, made=made, depth=depth), touched), "drop", path)

    @precondition(lambda self: len(self.model.made) > 1)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        model = self.model
        path = data.draw(st.sampled_from([*model.made]))
        rest = [one for one in model.made if one != path]
        other = data.draw(st.sampled_from(rest))
        at = rest.index(other)
        made = {one: model.made[one] for one in [*rest[:at], path, *rest[at:]]}
        depth = max((at for at, one in enumerate(made, 1) if one in model.applied), default=0)
        goal = replace(model, made=made, depth=depth)
        touched = {*goal.applied} ^ {*model.applied}
        self.do(model.moved(goal, touched), "reorder", path, "--before", other)

    # the log

    @rule()
    def undo(self) -> None:
        if self.past:
            self.flip("undo", self.past, self.future)
        else:
            self.do(None, "undo")

    @precondition(lambda self: self.future)
    @rule()
    def redo(self) -> None:
        self.flip("redo", self.future, self.past)

    def flip(self, word: str, those: list[Past], others: list[Past]) -> None:
        """Go to the last of `those`, byte for byte, or be refused because of an edit since."""
        now, managed = self.desk.everything(), self.desk.managed()
        said = self.desk.run(word)
        if said.code:
            assert "changed since" in said.err, said
            assert self.model.edited, said
            assert self.desk.everything() == now
            return
        past = those.pop()
        others.append(Past(self.model, managed, past.changed))
        assert self.desk.managed() == past.managed
        lying = dict(self.model.lying)
        for path in past.changed:  # an edit that the step only took note of lies there still
            lying.pop(path, None)
            if path in past.model.lying:
                lying[path] = past.model.lying[path]
        self.model = replace(past.model, lying=lying)

    @invariant()
    def the_files_are_those_of_the_model(self) -> None:
        if not hasattr(self, "desk"):
            return
        assert with_modes(self.desk.lying()) == with_modes(self.model.lying)
        assert self.desk.order() == [*self.model.made]
        patched = {**UPSTREAM, **self.model.made}
        wanted = {path: data for path, data in patched.items() if data is not None}
        assert with_modes(self.desk.patched()) == with_modes(wanted)
        status = self.desk.does("status")
        assert f" {self.model.depth} of {len(self.model.made)} patches" in status
        for path in self.model.edited:
            assert f"work/tree/{path}  (" in status


def inserted(
    made: dict[str, bytes | None], path: str, data: bytes | None
) -> dict[str, bytes | None]:
    """The patches with a new one behind the last of its group and those before it."""
    rank = GROUPS.index(group_of(path))
    order = [*made]
    before = [at for at, one in enumerate(order, 1) if GROUPS.index(group_of(one)) <= rank]
    order.insert(before[-1] if before else 0, path)
    return {one: data if one == path else made[one] for one in order}


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
