"""What is concluded from what a model said on both builds, without a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kernel_tests import engine, report
from kernel_tests.engine import Said
from portkit.errors import BadFile

SAID = Said([[1, 2, 3], [2, 4]], [[-0.5, -1.0, -2.0], [-0.25, -0.75]], ["_C::rms_norm"])
SCANNED = replace(SAID, ops=["_C::rms_norm", "_C::selective_scan_fwd"])


def test_the_same_tokens_are_equal() -> None:
    found = engine.compared("mamba", SCANNED, SCANNED)
    assert found.equal
    assert (found.tokens, found.distinct, found.difference) == (5, 4, 0.0)
    assert report._engine(found) == (
        "engine, mamba: 5 greedy tokens (4 different ones) are those of upstream's build, "
        "log-probabilities 0 apart at most"
    )


def test_one_other_token_is_noticed_and_how_far_it_went() -> None:
    theirs = replace(SAID, tokens=[[1, 2, 3], [2, 5]], logprobs=[[-0.5, -1.5, -2.0], [-0.25, -1.0]])
    found = engine.compared("llama", SAID, theirs)
    assert not found.equal
    assert found.difference == 0.5
    assert "are NOT those" in report._engine(found)


def test_a_model_that_did_not_call_the_patched_kernel_proves_nothing() -> None:
    found = engine.compared("mamba", SAID, SAID)
    assert not found.equal
    assert found.message == "_C::selective_scan_fwd was not called"


def test_what_failed_is_named_for_each_build() -> None:
    lost = Said([], [], [], "no end after 240 s")
    found = engine.compared("llama", SAID, lost)
    assert not found.equal
    assert found.message == "upstream: no end after 240 s"
    assert "patched: no end" in engine.compared("llama", lost, lost).message


def test_a_process_is_read_from_its_file_or_its_log(tmp_path: Path) -> None:
    file, log = tmp_path / "said.json", tmp_path / "log"
    log.write_text(
        "[rank0]: Traceback (most recent call last):\n"
        "[rank0]: RuntimeError: shape '[8, 512]' is invalid for input of size 8704\n"
        "[rank0]:[W] Warning: destroy_process_group() was not called\n",
        "utf-8",
    )
    failure = engine.read(file, log).failure
    assert failure == "RuntimeError: shape '[8, 512]' is invalid for input of size 8704"
    log.write_text("", "utf-8")
    assert engine.read(file, log).failure == "no output"
    file.write_text(json.dumps(asdict(SAID)), "utf-8")
    assert engine.read(file, log) == SAID
    file.write_text("[]", "utf-8")
    with pytest.raises(BadFile, match=r"said\.json"):
        engine.read(file, log)
