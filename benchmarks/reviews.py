"""`reviewed.toml`: what a person said of each place where a tool put a change.

The unit of review is one edit of the new tag's file, known by its text, the ten lines above and
below it, and the functions around it.  It says the same at every tag where all that is the same and
unique in the file, so that what did not change is not asked again.  What nobody reviewed is
`pending` and counts as unknown, never as right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import tomli

from benchmarks.task import Attempt, HunkId, Landing, Task, Verdict
from portkit.errors import BadFile
from portkit.model import Edit, Hunk
from portkit.patches.apply import diffs, hunks_from_edits
from portkit.text.sides import Text

REVIEWED = Path(__file__).with_name("reviewed.toml")
AROUND = 10  # lines above and below an edit that must be the same


class Opinion(Enum):
    """What a person said."""

    RIGHT = "right"
    WRONG = "wrong"
    PENDING = "pending"


@dataclass(frozen=True)
class Review:
    """One entry: the landing `key`, where it was first seen (`shows`), and the opinion."""

    key: str
    shows: str
    opinion: Opinion
    note: str


@dataclass(frozen=True)
class Place:
    """An edit of a file of the new tag, with all that a reviewer's opinion depends on."""

    tag: str
    theirs: Text
    edit: Edit

    @property
    def key(self) -> str:
        edit, lines = self.edit, self.theirs.lines
        above = lines[max(0, edit.start - AROUND) : edit.start]
        below = lines[edit.end : edit.end + AROUND]
        around = (*above, *lines[edit.start : edit.end], *below)
        scopes = [
            f"{s.name} {s.signature}" for s in self.theirs.outline.chain(edit.start, edit.end)
        ]
        unique = len(self.theirs.find(around)) == 1
        words = [self.theirs.path, *scopes, "" if unique else f"{self.tag} {edit.start}"]
        digest = hashlib.sha256(json.dumps(words).encode())
        for part in (above, lines[edit.start : edit.end], edit.lines, below):
            digest.update(b"\0%d\0" % len(part) + b"".join(part))
        return digest.hexdigest()[:20]

    @property
    def shows(self) -> str:
        said = next((line for line in self.edit.lines if line.strip()), b"(deletion)").strip()
        text = said.decode("utf-8", "replace")
        return f"{self.theirs.path}:{self.edit.start + 1} at {self.tag}: {text[:60]}"


def drop_key(task: Task, path: str, hunk: Hunk) -> str:
    """The key of a dropped hunk: what it was, and the tag it was dropped at."""
    digest = hashlib.sha256(f"drop {task.target.tag} {path}\0".encode() + b"".join(hunk.lines))
    return digest.hexdigest()[:20]


@dataclass(frozen=True)
class Judgement:
    """Hunks of one attempt by place; `unknown` waits for a review."""

    right: int = 0
    misplaced: int = 0
    unknown: int = 0
    drops_unknown: int = 0

    def __add__(self, other: Judgement) -> Judgement:
        return Judgement(
            self.right + other.right,
            self.misplaced + other.misplaced,
            self.unknown + other.unknown,
            self.drops_unknown + other.drops_unknown,
        )


class Reviews:
    """The reviews by key."""

    def __init__(self, known: Mapping[str, Review]) -> None:
        self._known = dict(known)

    @classmethod
    def load(cls, path: Path = REVIEWED) -> Reviews:
        """Raises `BadFile` for an entry that is none."""
        if not path.exists():
            return cls({})
        try:
            entries = tomli.loads(path.read_text("utf-8")).get("review", [])
            reviews = [
                Review(e["key"], e["shows"], Opinion(e["opinion"]), e.get("note", ""))
                for e in entries
            ]
        except (tomli.TOMLDecodeError, KeyError, ValueError) as error:
            raise BadFile(path.name, None, f"not a list of reviews: {error}") from None
        return cls({review.key: review for review in reviews})

    def save(self, path: Path = REVIEWED) -> None:
        head = "# What a person said of each landing; written by benchmarks/review.py.\n"
        entries = sorted(self._known.values(), key=lambda r: (r.shows, r.key))
        path.write_text(head + "".join(map(_entry, entries)), "utf-8", newline="\n")

    def __iter__(self) -> Iterator[Review]:
        return iter(self._known.values())

    def opinion(self, key: str) -> Opinion:
        review = self._known.get(key)
        return Opinion.PENDING if review is None else review.opinion

    def ask(self, key: str, shows: str) -> None:
        """Note a landing that nobody has reviewed."""
        self._known.setdefault(key, Review(key, shows, Opinion.PENDING, ""))

    def answer(self, key: str, opinion: Opinion, note: str) -> None:
        self._known[key] = replace(self._known[key], opinion=opinion, note=note)

    def judge(self, task: Task, attempt: Attempt) -> Judgement:
        """Judge every landing and drop of an attempt."""
        found = Judgement()
        for landing, edits in zip(attempt.landings, edits_of(task, attempt.landings), strict=True):
            found += self._landing(task, landing, edits)
        drops = dropped(task, attempt)
        pending = sum(self.opinion(key) is Opinion.PENDING for key in drops)
        wrong = sum(self.opinion(key) is Opinion.WRONG for key in drops)
        return found + Judgement(misplaced=wrong, drops_unknown=pending)

    def _landing(self, task: Task, landing: Landing, edits: list[Edit]) -> Judgement:
        theirs = Text(landing.path, task.theirs(landing.path) or b"")
        opinions: list[Opinion] = []
        for cluster in _clusters(theirs, edits):
            said = {
                Opinion.RIGHT
                if _unchanged(task, theirs, landing, edit)
                else self.opinion(Place(task.target.tag, theirs, edit).key)
                for edit in cluster
            }
            opinions.append(_worst(said))
        hunks = len(landing.hunks)
        misplaced = min(hunks, opinions.count(Opinion.WRONG))
        unknown = min(hunks - misplaced, opinions.count(Opinion.PENDING))
        return Judgement(hunks - misplaced - unknown, misplaced, unknown)


def _worst(opinions: set[Opinion]) -> Opinion:
    for opinion in (Opinion.WRONG, Opinion.PENDING):
        if opinion in opinions:
            return opinion
    return Opinion.RIGHT


def edits_of(task: Task, landings: Iterable[Landing]) -> list[list[Edit]]:
    """What each landing changed in the new tag's file."""
    return diffs([(task.theirs(one.path) or b"", one.result) for one in landings])


def _clusters(theirs: Text, edits: list[Edit]) -> list[list[Edit]]:
    """The edits as a diff would gather them in hunks."""
    hunks = hunks_from_edits(theirs.lines, edits)
    return [
        [e for e in edits if h.old_index <= e.start and e.end <= h.old_index + h.old_count]
        for h in hunks
    ]


def _unchanged(task: Task, theirs: Text, landing: Landing, edit: Edit) -> bool:
    """Whether upstream left the file alone and the edit is the patch's own: right by definition."""
    if task.base.files.get(landing.path) != task.target.files[landing.path]:
        return False
    patch = next((p for p in task.patches if p.path == landing.path), None)
    return patch is not None and edit in diffs([(theirs.data, task.ours(patch))])[0]


def places(task: Task, attempt: Attempt) -> list[Place]:
    """The places of an attempt that depend on a review."""
    found: list[Place] = []
    for landing, edits in zip(attempt.landings, edits_of(task, attempt.landings), strict=True):
        theirs = Text(landing.path, task.theirs(landing.path) or b"")
        found += [
            Place(task.target.tag, theirs, edit)
            for edit in edits
            if not _unchanged(task, theirs, landing, edit)
        ]
    return found


def dropped(task: Task, attempt: Attempt) -> dict[str, HunkId]:
    """The dropped hunks by key."""
    paths = {patch.name: patch for patch in task.patches}
    return {
        drop_key(task, paths[h.patch].path, paths[h.patch].change.hunks[h.number - 1]): h
        for h, verdict in attempt.verdicts.items()
        if verdict is Verdict.DROPPED
    }


def _entry(review: Review) -> str:
    return (
        f"\n[[review]]\nkey = {json.dumps(review.key)}\nshows = {json.dumps(review.shows)}\n"
        f"opinion = {json.dumps(review.opinion.value)}\nnote = {json.dumps(review.note)}\n"
    )
