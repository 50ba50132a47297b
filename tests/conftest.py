"""Fixtures on upstream's real source; a test that uses one is marked `upstream` by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.errors import Unavailable
from portkit.patches import series
from portkit.patches.apply import apply_change
from portkit.upstream.git import Store
from portkit.upstream.source import Cache, Source, obtain
from portkit.upstream.tree import write_checkout

ROOT = Path(__file__).resolve().parents[1]
PINNED_TAG = "v0.14.1"
UPSTREAM_FIXTURES = {"store", "obtain_tag", "pristine_tree", "patched_tree"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if UPSTREAM_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.upstream)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The user's real cache (or `$VLLM_PORT_CACHE`), so that a tag is fetched once."""
    return Cache.default().path


@pytest.fixture(scope="session")
def obtain_tag(cache_dir: Path) -> Callable[[str], Source]:
    """`obtain_tag("v0.17.1")`: the source of a tag, in the same store as `store`."""

    def get(tag: str) -> Source:
        try:
            return obtain(tag, cache=cache_dir)
        except Unavailable as error:
            pytest.fail(
                f"{error.message}; {error.hint}; or leave these tests out: -m 'not upstream'",
                pytrace=False,
            )

    return get


@pytest.fixture(scope="session")
def store(cache_dir: Path, obtain_tag: Callable[[str], Source]) -> Store:
    """The cached upstream, holding at least the pinned tag under `refs/tags/`."""
    obtain_tag(PINNED_TAG)
    return Cache(cache_dir).store


@pytest.fixture(scope="session")
def pristine_tree(
    store: Store, obtain_tag: Callable[[str], Source], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The pinned tag, unpacked into a folder of this session; do not write to it."""
    folder = tmp_path_factory.mktemp("upstream") / "pristine"
    write_checkout(store, obtain_tag(PINNED_TAG).tree, folder)
    return folder


@pytest.fixture(scope="session")
def patched_tree(
    store: Store, obtain_tag: Callable[[str], Source], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The pinned tag with every patch of `patch_series/` applied; do not write to it."""
    tree = obtain_tag(PINNED_TAG).tree
    entries = store.files(tree)
    changes: dict[str, bytes | None] = {}
    for patch in series.load(ROOT).upstream:
        change, base = patch.change, None
        if change.old_path is not None:
            old = change.old_path
            base = changes[old] if old in changes else store.read(entries[old].oid)
            changes[old] = None
        if change.new_path is not None:
            changes[change.new_path] = apply_change(change, base)
    folder = tmp_path_factory.mktemp("upstream") / "patched"
    write_checkout(store, tree, folder, changes)
    return folder
