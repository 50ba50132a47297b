"""A refresh that says, for the new tag, which carried files are still upstream's on Linux."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.commands import refresh
from portkit.errors import Exit
from portkit.face import console
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]


def test_the_report_has_the_verdicts_at_the_new_tag(
    tmp_path: Path, obtain_tag: Callable[[str], Source], capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in ("v0.14.1", "v0.16.0"):
        obtain_tag(tag)
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    shutil.copy(ROOT / "upstream_pin.txt", tmp_path)
    options = ["--to", "v0.16.0", "--dry-run", "--accept-drops", "--no-scan", "--audit"]
    folder = tmp_path / "report"
    arguments = [*options, "--json", "--report", str(folder)]
    assert console.run(lambda given: refresh.main(given, tmp_path), arguments) == Exit.OK
    verdicts = json.loads(capsys.readouterr().out)["result"]["audit"]
    by_path = {one["path"]: one for one in verdicts}
    assert by_path["csrc/core/math.hpp"]["identical"]
    assert by_path["vllm/utils/network_utils.py"]["identical"]
    assert not by_path["csrc/attention/merge_attn_states.cu"]["identical"]
    assert "isinf" in by_path["csrc/attention/merge_attn_states.cu"]["evidence"]
    text = (folder / "report.md").read_text(encoding="utf-8")
    same = sum(one["identical"] for one in verdicts)
    assert f"{same} of {len(verdicts)} files are upstream's with the Windows guards folded" in text
    assert 'id="audit"' in (folder / "report.html").read_text(encoding="utf-8")
