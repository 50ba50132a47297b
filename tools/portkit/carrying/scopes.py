"""Whether lines stand in the function, class or namespace they stood in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from portkit.carrying.decision import Finding
from portkit.text.sides import Text, telling
from portkit.text.syntax import Scope


def same_scope(base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int]) -> Finding:
    """Whether lines `new` of theirs stand in the function or class that lines `old` stood in."""
    was, now = base.outline.chain(*old), theirs.outline.chain(*new)
    if len(was) != len(now):
        return Finding.no(f"scope differs: {_spell(was)} before, {_spell(now)} now")
    if not was:
        return Finding(True, "at file level")
    if [(s.kind, s.name) for s in was] == [(s.kind, s.name) for s in now]:
        return _among_namesakes(base, theirs, was, now)
    return _renamed(base, theirs, was, now)


def _among_namesakes(
    base: Text, theirs: Text, was: tuple[Scope, ...], now: tuple[Scope, ...]
) -> Finding:
    """Same names: right if there is no other scope of that name it could have been."""
    scope, landed = was[-1], now[-1]
    olds = _namesakes(base, was)
    news = _namesakes(theirs, now)
    if len(olds) == len(news) == 1:
        return Finding(True, f"in {_spell(now)}")
    if scope.signature == landed.signature:
        if sum(s.signature == scope.signature for s in news) == 1:
            return Finding(True, f"in {_spell(now)}, told from its namesakes by signature")
        if len(olds) == len(news) and olds.index(scope) == news.index(landed):
            return Finding(True, f"in {_spell(now)}, the same one of {len(news)} alike")
    elif not any(s.signature == scope.signature for s in news) and (
        len(olds) == len(news) and olds.index(scope) == news.index(landed)
    ):
        return Finding(True, f"in {_spell(now)}, the same one of {len(news)} overloads")
    return _most_alike(base, theirs, scope, landed, news)


def _namesakes(text: Text, chain: tuple[Scope, ...]) -> list[Scope]:
    names = [(s.kind, s.name) for s in chain]
    return [
        s
        for s in text.outline.scopes
        if (s.kind, s.name) == names[-1]
        and [(o.kind, o.name) for o in _parents(text, s)] == names[:-1]
    ]


def _parents(text: Text, scope: Scope) -> list[Scope]:
    return [
        s
        for s in text.outline.scopes
        if s != scope and s.start <= scope.start and scope.end <= s.end
    ]


def _renamed(base: Text, theirs: Text, was: tuple[Scope, ...], now: tuple[Scope, ...]) -> Finding:
    """Other names: right only if the old name is gone, the new one new, and the body alike."""
    for old, new in zip(was, now, strict=True):
        if (old.kind, old.name) == (new.kind, new.name):
            continue
        if old.kind != new.kind and {old.kind, new.kind} != {"class", "struct"}:
            return Finding.no(f"scope differs: {_spell(was)} before, {_spell(now)} now")
        if any((s.kind, s.name) == (old.kind, old.name) for s in theirs.outline.scopes):
            return Finding.no(f"lands in {new.name}, but {old.name} still exists")
        if any((s.kind, s.name) == (new.kind, new.name) for s in base.outline.scopes):
            return Finding.no(f"lands in {new.name}, which existed beside {old.name} before")
        rivals = [s for s in theirs.outline.scopes if s.kind == new.kind]
        alike = _most_alike(base, theirs, old, new, rivals)
        if not alike.holds:
            return alike
    return Finding(True, f"in {_spell(now)}, renamed from {_spell(was)}")


def _most_alike(
    base: Text, theirs: Text, old: Scope, landed: Scope, rivals: Iterable[Scope]
) -> Finding:
    """Whether `landed` continues `old`: it shares half its lines, and no rival comes near."""

    def shared(scope: Scope) -> float:
        now = Counter(line for line in theirs.lines[scope.start : scope.end] if telling(line))
        both = sum((body & now).values())
        return both / max(1, sum(body.values()))

    body = Counter(line for line in base.lines[old.start : old.end] if telling(line))
    mine = shared(landed)
    best = max((shared(s) for s in rivals if s != landed), default=0.0)
    if mine >= 0.5 and best <= 0.6 * mine:
        return Finding(True, f"in {landed.name}, which keeps {mine:.0%} of {old.name}")
    return Finding.no(f"cannot tell which {landed.kind} continues {old.name}")


def _spell(chain: tuple[Scope, ...]) -> str:
    return " › ".join(scope.name for scope in chain) or "file level"
