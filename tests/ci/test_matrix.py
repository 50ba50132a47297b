"""The CI matrix: what exists is derived from the pin, and a patch gets the cells it concerns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.ci import cells as matrix
from portkit.ci import plan as planfile
from portkit.ci.cells import KINDS, Kind, Upstream
from portkit.ci.plan import Plan
from portkit.commands import matrix as command
from portkit.errors import BadFile
from portkit.patches import series
from portkit.upstream.git import Store
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planfile.read(ROOT)


@pytest.fixture(scope="module")
def at(store: Store, obtain_tag: Callable[[str], Source]) -> Callable[[str], Upstream]:
    def get(tag: str) -> Upstream:
        tree = obtain_tag(tag).tree
        return matrix.upstream(tag, lambda path: store.read(f"{tree}:{path}"))

    return get


def test_blackwell_needs_cuda_12_8_and_the_rest_exists(
    plan: Plan, at: Callable[[str], Upstream]
) -> None:
    pairs, gaps = matrix.combinations(plan, at("v0.14.1"))
    assert [(gap.toolkit, gap.arch) for gap in gaps] == [("12.6", "12.0")]
    assert "upstream's list for CUDA 12.6" in gaps[0].reason
    assert len(pairs) == 17


def test_cuda_13_takes_no_volta(plan: Plan, at: Callable[[str], Upstream]) -> None:
    volta = plan.model_copy(update={"architectures": ["7.0"]})
    pairs, _ = matrix.combinations(volta, at("v0.14.1"))
    assert pairs == [("12.6", "7.0"), ("12.8", "7.0")]


def test_toolkits_that_torch_has_no_build_for_are_gaps(
    plan: Plan, at: Callable[[str], Upstream]
) -> None:
    lacking = plan.model_copy(update={"torch": {"2.9": ["12.8", "13.0"]}})
    pairs, gaps = matrix.combinations(lacking, at("v0.14.1"))
    assert {toolkit for toolkit, _ in pairs} == {"12.8", "13.0"}
    assert {gap.reason for gap in gaps} == {"torch 2.9.1 has no build for CUDA 12.6"}


def test_a_pin_with_an_unknown_torch_is_refused_by_name(
    plan: Plan, at: Callable[[str], Upstream]
) -> None:
    with pytest.raises(BadFile, match=r"says nothing of torch 2\.9, which vLLM v0\.14\.1"):
        matrix.combinations(plan.model_copy(update={"torch": {}}), at("v0.14.1"))


@pytest.mark.parametrize("tag", ["v0.14.1", "v0.17.1"])
def test_cells_have_distinct_names_and_a_python_of_the_pin(
    plan: Plan, at: Callable[[str], Upstream], tag: str
) -> None:
    upstream = at(tag)
    for kind in KINDS:
        cells = matrix.cells(plan, upstream, kind)
        assert cells
        assert len({cell.name for cell in cells}) == len(cells)
        assert all(upstream.pythons.contains(cell.python) for cell in cells)


def test_pythons_that_the_pin_does_not_take_are_left_out(
    plan: Plan, at: Callable[[str], Upstream]
) -> None:
    asked = plan.model_copy(update={"pythons": ["3.9", "3.10", "3.14"]})
    found = {cell.python for cell in matrix.cells(asked, at("v0.14.1"), "check")}
    assert found == {"3.10"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["patch_series/kernels/csrc/core/math.hpp.patch"], "all"),
        (["patch_series/kernels/csrc/quantization/gptq_allspark/allspark_qgemm_w8a16.cu.patch"],
         ["8.0", "8.6", "8.9"]),
        (["patch_series/runtime/vllm/utils/network_utils.py.patch", "docs/patches.md"], []),
        (["tools/portkit/patches/apply.py"], "all"),
        (["upstream_pin.txt", "README.md"], "all"),
        (["patch_series/kernels/csrc/gone.cu.patch"], "all"),
        (["README.md", "launcher/server.py", "tests/serving/test_running.py"], []),
        (["ci/results/compile-linux-13.0-9.0.json", "patch_series/evidence.json"], []),
        (["kernel_tests/compiling.py"], "all"),
    ],
)  # fmt: skip
def test_a_change_gets_the_architectures_it_concerns(
    plan: Plan, changed: list[str], expected: list[str] | str
) -> None:
    patches = {f"patch_series/{patch.name}": patch for patch in series.load(ROOT).patches}
    found = matrix.concerned(plan, changed, patches)
    assert found == (plan.architectures if expected == "all" else expected)


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_what_a_workflow_reads(
    kind: Kind, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--kind", kind, "--json"], ROOT) == 0
    line = capsys.readouterr().out
    cells = json.loads(line)["include"]
    assert line.count("\n") == 1
    assert all(cell["kind"] == kind and cell["runner"] and cell["name"] for cell in cells)
    assert all(("arch" in cell) == (kind != "check") for cell in cells)


def test_output_appends_a_line_for_each_kind(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "outputs"
    file.write_text("before=1\n")
    assert command.main(["--output", str(file)], ROOT) == 0
    first, *lines = file.read_text().splitlines()
    assert first == "before=1"
    assert [line.partition("=")[0] for line in lines] == list(KINDS)
    assert all(json.loads(line.partition("=")[2])["include"] for line in lines)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"12.0"]', '"12.0", "12.0"]', "architectures: Value error, 12.0 is listed twice"),
        ('release = "12.6.3"', 'release = "12.6"', "toolkits.12.6.release"),
        ('toolkit = "13.0"', 'toolkit = "13.5"', "gpu.toolkit: 13.5 is none of the toolkits"),
        ("[gpu]", "[gpu", "is not TOML"),
        ("architectures =", "architecture =", "architecture"),
    ],
)
def test_a_wrong_plan_is_named_by_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (ROOT / planfile.PLAN_FILE).read_text()
    assert old in text
    (tmp_path / "ci").mkdir()
    (tmp_path / planfile.PLAN_FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(BadFile, match=r"ci/matrix\.toml: ") as raised:
        planfile.read(tmp_path)
    assert message in raised.value.message
