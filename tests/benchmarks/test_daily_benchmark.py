"""The daily benchmark times work that is really done: every tool ends with the patched files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from world import BASE, OURS, TAG, world

from benchmarks import daily
from portkit.patches import series
from portkit.port.rebase import Snapshot
from portkit.upstream.git import Store


@pytest.mark.parametrize("tool", daily.STAGES)
def test_every_push_applies_the_patches_and_every_pop_takes_them_off(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tool.split(",", maxsplit=1)[0]
    if program != "portkit" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))
    made = world(tmp_path, tmp_path / "cache")
    with Store(made.clone / ".git") as store:
        base = Snapshot.of(store, TAG, made.pin.tree)
        patches = series.load(made.root).upstream
        work = daily.Work("small", store, base, made.pin, patches)
        folder = tmp_path / "scratch"
        folder.mkdir()
        _, stage = daily.STAGES[tool]
        ((pop, push),) = stage(work, folder)
        files = folder / "work/tree" if tool == "portkit" else folder
        for action, wanted in [(pop, BASE), (push, OURS), (pop, BASE), (push, OURS)]:
            action()
            for path, data in OURS.items():
                place = files / path
                now = wanted.get(path) if wanted is BASE else data
                assert (place.read_bytes() if place.is_file() else None) == now, path
