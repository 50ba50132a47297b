"""Release tags: what a person may write for one, their order, and the steps between two."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable

from packaging.version import InvalidVersion, Version

from portkit.errors import BadInput


def normalise(tag: str) -> str:
    """`tag` as upstream writes it: `0.17.1` and `v0.17.1` are `v0.17.1`, `0.17` is `v0.17.0`."""
    try:
        version = Version(tag)
    except InvalidVersion:
        version = None
    if version is None or version.local or version.epoch or version.is_devrelease:
        raise BadInput(
            f"{tag!a} is not the tag of an upstream release", hint="give one such as v0.17.1"
        )
    release = ".".join(map(str, version.release))
    padded = ".".join(map(str, (*version.release, 0, 0)[: max(3, len(version.release))]))
    return "v" + str(version).replace(release, padded, 1)


def version_of(tag: str) -> Version:
    return Version(normalise(tag))


def tags_between(older: str, newer: str, releases: Iterable[str]) -> list[str]:
    """The steps from `older` to `newer`: the tags of `releases` after `older`, then `newer`."""
    first, last = version_of(older), version_of(newer)
    if last < first:
        raise BadInput(
            f"{normalise(newer)} is older than {normalise(older)}",
            hint="steps go from an older release to a newer one",
        )
    steps = {tag for tag in map(normalise, releases) if first < Version(tag) <= last}
    if first < last:
        steps.add(normalise(newer))
    return sorted(steps, key=Version)


def released(versions: Iterable[Version]) -> list[str]:
    """The tags of `versions`, oldest first, without pre-releases."""
    return [f"v{version}" for version in sorted(versions) if not version.is_prerelease]


def nearest(version: Version, versions: Collection[Version]) -> str:
    """The releases just below and above `version`, in words; "" if there are none."""
    tags = released(versions)
    place = bisect_left([Version(tag) for tag in tags], version)
    return ", ".join(tags[max(0, place - 1) : place + 1])
