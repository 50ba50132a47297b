"""`tools/audit.py` on the real series: the faces, the record, the waiver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.audit import auditdoc, records, tested
from portkit.audit.records import Found, GeneratorRecord, Records, UnitRecord
from portkit.audit.verdict import Level, Verdict
from portkit.commands import audit
from portkit.cuda import toolkits
from portkit.errors import BadFile, Exit
from portkit.face import console
from portkit.kernels import manifest as kernelmanifest
from portkit.kernels import results as kernelresults
from portkit.patches import header, patchfile, series
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(
    tmp_path: Path, obtain_tag: Callable[[str], Source], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the series and its pin; nothing can be compiled for it."""
    obtain_tag("v0.14.1")
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    shutil.copy(ROOT / "upstream_pin.txt", tmp_path)
    monkeypatch.setattr(toolkits, "first", lambda: None)
    return tmp_path


def run(root: Path, *arguments: str) -> int:
    return console.run(lambda given: audit.main(given, root), arguments)


def test_level_1_of_the_series(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(repository, "--level", "1", "--json") == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert (said["command"], said["tag"]) == ("audit", "v0.14.1")
    assert len(said["patches"]) == len(series.load(ROOT).upstream) >= 26
    levels = [patch["level"] for patch in said["patches"]]
    assert levels.count(1) >= 12
    assert set(levels) == {1, 5}


def test_one_patch_by_the_end_of_its_name(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "--patch", "core/math.hpp") == Exit.OK
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "1  identical     csrc/core/math.hpp"
    assert out[-1].startswith("1 patches: 1 identical (")
    assert run(repository, "--patch", "generate_kernels.py") == Exit.BAD_INPUT
    assert "may be kernels/csrc/moe/" in capsys.readouterr().err
    assert run(repository, "--patch", "nothing.cu") == Exit.BAD_INPUT
    assert "no patch is called nothing.cu" in capsys.readouterr().err


def test_without_nvcc_and_record_it_says_so_and_does_not_fail(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / records.FILE).unlink(missing_ok=True)
    assert run(repository, "--patch", "merge_attn_states.cu") == Exit.OK
    out = capsys.readouterr().out
    assert out.startswith("5  not decided")
    assert "there is no nvcc here" in out


def test_a_fault_fails_the_audit_until_it_is_waived(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = repository / "patch_series/runtime/vllm/utils/network_utils.py.patch"
    text = file.read_bytes()
    assert b'+    if sys.platform == "win32":' in text
    file.write_bytes(text.replace(b'+    if sys.platform == "win32":', b"+    if True:"))
    assert run(repository, "--patch", "network_utils.py") == Exit.WAITING
    assert capsys.readouterr().out.startswith("4  unproved")
    waiver = b"Audit-Waiver: an example of a reason\nReviewed-by: A <a@example.org>\nArchs:"
    file.write_bytes(file.read_bytes().replace(b"Archs:", waiver, 1))
    assert run(repository, "--patch", "network_utils.py") == Exit.OK
    assert "waived: an example of a reason" in capsys.readouterr().out


def test_a_waiver_needs_a_reason_and_a_reviewer() -> None:
    patch = (ROOT / "patch_series/kernels/csrc/core/math.hpp.patch").read_bytes()
    raw = patchfile.parse_patch("math.hpp.patch", patch).header
    assert header.validate(header.parse(raw)) == []
    bare = header.validate(header.parse(raw + b"Audit-Waiver: harmless\n"))
    assert "gives no reason" in bare[-1][1]
    alone = header.validate(header.parse(raw + b"Audit-Waiver: only a message differs\n"))
    assert "needs a Reviewed-by field" in alone[-1][1]


def test_a_gpu_result_counts_for_what_it_was_made_with(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    shutil.copytree(ROOT / "kernel_tests", tmp_path / "kernel_tests", ignore=lambda *_: ["results"])
    manifest = kernelmanifest.load(tmp_path)
    name, kernel = next(iter(manifest.kernels.items()))
    patches = {patch.name: patch for patch in series.load(tmp_path).upstream}
    patch = patches[kernel.patches[0]]
    case = kernelresults.Case(case="x", outcome="passed", seconds=1.0)
    done = kernelresults.Result(
        tag="v0.14.1", date="2026-11-23", seed=1, against="build",
        gpu=kernelresults.Gpu(
            name="H100", capability="9.0", driver="580", cuda="13.0", torch="2.11.0", python="3.12"
        ),
        kernels={
            one: kernelresults.KernelResult(
                sources=kernelresults.sources_key(tmp_path, manifest.kernels[one], "v0.14.1"),
                tests=kernelresults.tests_key(tmp_path, manifest.kernels[one]),
                cases=(case,),
            )
            for one in manifest.claimed[patch.name]
        },
    )  # fmt: skip
    kernelresults.write(tmp_path / "kernel_tests/results/h100.json", done)
    assert name in tested.results(tmp_path, "v0.14.1")(patch)
    assert "passed on H100, CUDA 13.0" in tested.results(tmp_path, "v0.14.1")(patch)
    assert tested.results(tmp_path, "v0.16.0")(patch) == ""
    file = tmp_path / "patch_series" / patch.name
    file.write_bytes(file.read_bytes() + b" another line\n")
    assert tested.results(tmp_path, "v0.14.1")(patch) == ""


UNIT = UnitRecord(
    unit="csrc/a.cu",
    upstream="u",
    patched="p",
    flags="f",
    compilers=("nvcc 13.0.88",),
    archs={"12.0": Found(functions=2, kernels=1, unused=0)},
)


def test_records_are_read_as_written_and_merged(tmp_path: Path) -> None:
    (tmp_path / "patch_series").mkdir()
    assert records.read(tmp_path) == Records()
    more = UNIT.model_copy(
        update={"archs": {"9.0": Found(functions=2, kernels=1, unused=0, host=True)}}
    )
    generator = GeneratorRecord(
        path="g.py", upstream="u", patched="p", arch_lists=("7.5",), kernels=3, combinations=9
    )
    made = Records(units=records.merged([UNIT, more]), generators=(generator,))
    records.write(tmp_path, made)
    read = records.read(tmp_path)
    assert read == made
    assert list(read.units[0].archs) == ["9.0", "12.0"]
    assert read.unit(UNIT.key, "12.0") is not None
    assert read.unit(("csrc/a.cu", "u", "another", "f"), "12.0") is None
    assert read.unit(UNIT.key, "8.0") is None


def test_a_damaged_record_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "patch_series").mkdir()
    (tmp_path / records.FILE).write_text('{"units": [{"unit": 1}]}')
    with pytest.raises(
        BadFile, match=r"evidence\.json: is not what the audit writes: units\.0"
    ) as e:
        records.read(tmp_path)
    assert "--record" in e.value.hint


def test_the_document_has_a_row_per_patch(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    file = tmp_path / auditdoc.FILE
    shutil.copy(ROOT / auditdoc.FILE, file)
    verdicts = [
        Verdict("a.patch", "a|b.cu", Level.IDENTICAL, "the same 3 tokens", rocm="identical"),
        Verdict("c.patch", "c.py", Level.UNPROVED, "", "`x` became `y`", waiver="a reason"),
    ]
    auditdoc.write(tmp_path, "v1", verdicts)
    auditdoc.write(tmp_path, "v2", verdicts)
    text = file.read_text(encoding="utf-8")
    assert "vLLM v2, 2 patches: 1 identical, 1 unproved." in text
    assert r"| `a\|b.cu` | 1 identical | the same 3 tokens | identical |" in text
    assert "| `c.py` | 4 unproved | `x` became `y`; waived: a reason |  |" in text
    assert "vLLM v1" not in text
    file.write_text("nothing\n")
    with pytest.raises(BadFile, match="needs one line"):
        auditdoc.write(tmp_path, "v1", verdicts)
