"""Portability rules as data: `patch_series/rules/<area>/*.yml`, each file a list of rules.

A rule finds places by one of `match` (an ast-grep rule on the syntax tree), `words` (identifiers)
or `regex` (on the `view` of the file it asks for), or it names the `detector` that reports it.
docs/scan.md describes every field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from portkit.errors import BadFile
from portkit.patches.header import SUMMARY_WIDTH
from portkit.scan.model import Finding, Language, Stage, Tier

FOLDER = "patch_series/rules"

# The one in C is eight times as fast, where PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Snippet = str | dict[str, str]  # the text of one file, or several files by path


class Rewrite(BaseModel):
    """A mechanical fix: `to` replaces what the rule matched (`$NAME`: what the match captured).

    `title` is the first line of a new patch's description, else the rule's title is.  Where `to`
    is a mapping, it gives the replacement of each matched text.  `include` is an `#include` line
    that the file then needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("", max_length=SUMMARY_WIDTH)
    to: str | dict[str, str]
    include: str = ""

    def text_for(self, matched: str) -> str:
        """The replacement of a matched text, before captures are filled in."""
        return self.to if isinstance(self.to, str) else self.to.get(matched, matched)


class Rule(BaseModel):
    """One rule; see docs/scan.md for the fields as a rule's author reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str
    language: Language
    tier: Tier
    stage: Stage
    why: str
    fix: str
    error: str = ""
    match: dict[str, Any] | None = None
    words: tuple[str, ...] = ()
    regex: str | None = None
    detector: str | None = None
    view: Literal["code", "strings", "text"] = "code"  # what `regex` sees, see `code.Code`
    literals: tuple[str, ...] = ()  # a file without any of these cannot hold a match
    unless: str | None = None  # a file that matches this pattern is left out
    files: tuple[str, ...] = ()  # globs; only these files
    unless_build: str | None = None  # only where the main CMakeLists.txt does not match
    cxx_below: int | None = None  # only where the build's C++ standard is older
    bad: tuple[Snippet, ...] = Field(min_length=1)
    good: tuple[Snippet, ...] = Field(min_length=1)
    rewrite: Rewrite | None = None
    place: str = ""  # `file:line` of the rule itself

    @model_validator(mode="after")
    def _one_matcher(self) -> Rule:
        given = [self.match is not None, bool(self.words), self.regex is not None]
        if sum([*given, self.detector is not None]) != 1:
            raise ValueError("give exactly one of match, words, regex and detector")
        if self.match is not None and not self.literals:
            raise ValueError("match needs literals: words without which no file can match")
        for pattern in (self.regex, self.unless, self.unless_build):
            if pattern is not None:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return self

    def at(self, path: str, line: int, column: int, excerpt: str, detail: str = "") -> Finding:
        """A finding of this rule."""
        return Finding(self.id, path, line, column, excerpt, self.tier, self.stage, detail)


class Rules(Mapping[str, Rule]):
    """All rules by id; `digest` changes when any of them does."""

    def __init__(self, rules: Mapping[str, Rule], digest: str = "") -> None:
        self._rules = dict(rules)
        self.digest = digest

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    @cached_property
    def by_detector(self) -> Mapping[str, tuple[Rule, ...]]:
        """The rules that code reports, by the detector they name."""
        found: dict[str, tuple[Rule, ...]] = {}
        for rule in self.values():
            if rule.detector is not None:
                found[rule.detector] = (*found.get(rule.detector, ()), rule)
        return found


_REPEATED = re.compile(r"\{\{(\d+) times: (.*?)\}\}", re.DOTALL)


def files_of(rule: Rule, snippet: Snippet) -> dict[str, bytes]:
    """The files a snippet stands for; `{{40 times: text}}` in it is written out."""
    files = snippet if isinstance(snippet, dict) else {_PATHS[rule.language]: snippet}
    return {
        path: _REPEATED.sub(lambda m: m[2] * int(m[1]), text).encode()
        for path, text in files.items()
    }


_PATHS = {
    Language.CPP: "csrc/snippet.cu",
    Language.PYTHON: "vllm/snippet.py",
    Language.CMAKE: "CMakeLists.txt",
    Language.RUST: "rust/src/snippet.rs",
    Language.REQUIREMENTS: "requirements/cuda.txt",
    Language.TEXT: "vllm/snippet.txt",
}


def load(root: Path) -> Rules:
    """The rules of the repository at `root`; raises `BadFile` with the line of a faulty rule."""
    rules: dict[str, Rule] = {}
    digest = hashlib.sha256()
    for file in sorted((root / FOLDER).glob("*/*.yml")):
        data = file.read_bytes()
        digest.update(data)
        for rule in parse(data, file.relative_to(root).as_posix()):
            if rule.id in rules:
                where, line = rule.place.rsplit(":", 1)
                raise BadFile(where, int(line), f"rule {rule.id} is at {rules[rule.id].place} too")
            rules[rule.id] = rule
    return Rules(rules, digest.hexdigest())


def parse(data: bytes, where: str) -> Iterator[Rule]:
    """The rules of one file; raises `BadFile`."""
    try:
        loader = _LOADER(data)
        node = loader.get_single_node()
        values: list[Any] = [] if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise BadFile(where, line, f"not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadFile(where, None, f"not YAML: {error}") from None
    if not isinstance(node, yaml.SequenceNode):
        raise BadFile(where, 1, "a rule file is a list of rules")
    for part, value in zip(node.value, values, strict=True):
        line = part.start_mark.line + 1
        if not isinstance(value, dict):
            raise BadFile(where, line, "a rule is a mapping of fields")
        try:
            yield Rule(**{**value, "place": f"{where}:{line}"})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or str(value.get("id", "rule"))
            message = first["msg"].removeprefix("Value error, ")
            raise BadFile(where, line, f"{field}: {message}", hint="see docs/scan.md") from None
        except TypeError as error:
            raise BadFile(where, line, str(error)) from None
