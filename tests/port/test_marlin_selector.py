"""The generated Marlin kernels and their selector mean what upstream's mean."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

GPTQ = "csrc/quantization/gptq_marlin"
MOE = "csrc/moe/marlin_moe_wna16"
SOURCE = {GPTQ: "gptq_marlin.cu", MOE: "ops.cu"}
FOLDERS = [GPTQ, MOE]
# Parsing a template anew for each of some thousand kernels takes most of a run; once is enough.
RUNNER = """
import functools, jinja2, runpy, sys
jinja2.Template = functools.cache(jinja2.Template)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ARCH_LISTS = ["7.5", "8.0", "8.9", "7.5,8.0,8.6", "7.5,8.0,8.6,8.7,8.9,9.0,10.0,12.0"]


def run_generator(
    tree: pathlib.Path, folder: str, archs: str, out: pathlib.Path, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the generator of a tree in a copy of its folder, optionally with another ``PATH``."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("generate_kernels.py", SOURCE[folder]):
        shutil.copy(tree / folder / name, out / name)
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    script = str(out / "generate_kernels.py")
    return subprocess.run(
        [sys.executable, "-c", RUNNER, script, archs],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


def generated(tree: pathlib.Path, folder: str, archs: str, out: pathlib.Path) -> pathlib.Path:
    done = run_generator(tree, folder, archs, out)
    assert done.returncode == 0, done.stderr
    return out


def kernels(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("sm*_kernel_*.cu"))}


@dataclasses.dataclass(frozen=True)
class Pair:
    """The generated folders of both trees."""

    upstream: pathlib.Path
    patched: pathlib.Path


def generate_pair(
    pristine: pathlib.Path, patched: pathlib.Path, folder: str, archs: str, tmp: pathlib.Path
) -> Pair:
    return Pair(
        generated(pristine, folder, archs, tmp / "upstream"),
        generated(patched, folder, archs, tmp / "patched"),
    )


@pytest.mark.parametrize("archs", ARCH_LISTS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_generated_kernels_are_upstreams(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    tmp_path: pathlib.Path,
    folder: str,
    archs: str,
) -> None:
    pair = generate_pair(pristine_tree, patched_tree, folder, archs, tmp_path)
    assert kernels(pair.upstream)
    assert kernels(pair.patched) == kernels(pair.upstream)


@pytest.mark.parametrize("folder", FOLDERS)
def test_selector_branches_are_flat(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path, folder: str
) -> None:
    """MSVC counts each ``else if`` as one more nested block, and allows 128."""
    pair = generate_pair(pristine_tree, patched_tree, folder, "8.6", tmp_path)
    upstream = (pair.upstream / "kernel_selector.h").read_text()
    patched = (pair.patched / "kernel_selector.h").read_text()
    assert len(re.findall(r"\belse\b", upstream)) > 128
    assert not re.findall(r"\belse\b", patched)
    assert len(re.findall(r"\bif \(", patched)) == len(re.findall(r"\bif \(", upstream))


@pytest.mark.parametrize("folder", FOLDERS)
def test_generator_needs_no_rm(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path, folder: str
) -> None:
    """Old kernels go, and a first run finds none, on a system that has no ``rm``."""
    nowhere = str(tmp_path / "nowhere")
    failed = run_generator(pristine_tree, folder, "8.6", tmp_path / "upstream", nowhere)
    assert "FileNotFoundError" in failed.stderr
    out = tmp_path / "patched"
    for _ in range(2):
        done = run_generator(patched_tree, folder, "8.6", out, nowhere)
        assert done.returncode == 0, done.stderr
        assert not (out / "sm89_kernel_of_another_run.cu").exists()
        (out / "sm89_kernel_of_another_run.cu").write_text("stale\n")


HARNESS = r"""
#include <cstdio>
#include <initializer_list>

namespace vllm {
struct ScalarType {
  int value;
  constexpr bool operator==(ScalarType const& other) const { return value == other.value; }
  constexpr int id() const { return value; }
  int size_bits() const { return 8; }
};
enum Names { %(enum)s };
%(constants)s
}  // namespace vllm

struct NotBuilt {};
#define TORCH_CHECK(condition, ...) \
  if (!(condition)) { throw NotBuilt{}; }

using MarlinFuncPtr = int (*)();
int MarlinDefault() { return -1; }
template <int a, int b, int c, int s, int threads, int m, int n, int k, bool m8, int stages,
          int group, bool zp>
int Marlin() {
  return a + 2 * b;
}

namespace upstream {
%(upstream)s
}
namespace patched {
%(patched)s
}

template <typename F>
MarlinFuncPtr choose(F f, bool* refused) {
  try {
    *refused = false;
    return f();
  } catch (NotBuilt const&) {
    *refused = true;
    return nullptr;
  }
}

int main() {
  long total = 0, found = 0, refusals = 0, different = 0;
  bool act = false, has_zp = false;
  %(loops)s {
    auto ask = [&](auto get) {
      return get(a_type, b_type, c_type, s_type, thread_m_blocks, thread_n_blocks,
                 thread_k_blocks, m_block_size_8, act, has_zp, group_blocks, threads,
                 is_zp_float, stages);
    };
    bool refused_before, refused_now;
    auto before = choose([&] { return ask(upstream::get_marlin_kernel); }, &refused_before);
    auto now = choose([&] { return ask(patched::get_marlin_kernel); }, &refused_now);
    total++;
    found += before && before != &MarlinDefault;
    refusals += refused_before;
    different += before != now || refused_before != refused_now;
  }
  std::printf("%%ld %%ld %%ld %%ld\n", total, found, refusals, different);
}
"""


def selector_function(folder: pathlib.Path, source: str) -> str:
    """``get_marlin_kernel`` of the real source, with the real generated selector inside."""
    text = (folder / source).read_text(encoding="utf-8")
    match = re.search(r"^MarlinFuncPtr get_marlin_kernel\(.*?^}$", text, re.M | re.S)
    assert match is not None
    selector = f'#include "{(folder / "kernel_selector.h").as_posix()}"'
    return re.sub(r'#include "kernel_selector.h"', lambda _: selector, match[0])


def harness(pair: Pair, source: str) -> str:
    """A program that asks both selectors for every combination of the values they know.

    The activation type takes one value more, which neither knows."""
    selector = (pair.upstream / "kernel_selector.h").read_text()
    known: dict[str, set[str]] = collections.defaultdict(set)
    for name, value in re.findall(r"(\w+) == ([\w:-]+)", selector):
        known[name].add(value)
    types = sorted({value for values in known.values() for value in values if "::" in value})
    known["a_type"] |= {"vllm::kFE4M3fn", "vllm::kUnknown"}
    names = sorted({*types, *known["a_type"], "vllm::kFloat16"})
    loops = []
    for name, values in sorted(known.items()):
        kind = "vllm::ScalarType" if name.endswith("_type") else "int"
        listed = ", ".join(sorted(values))
        loops.append(f"for ({kind} {name} : {{{listed}}})")
    short = [name.removeprefix("vllm::") for name in names]
    return HARNESS % {
        "enum": ", ".join(f"n_{name}" for name in short),
        "constants": "\n".join(f"constexpr ScalarType {name}{{n_{name}}};" for name in short),
        "upstream": selector_function(pair.upstream, source),
        "patched": selector_function(pair.patched, source),
        "loops": "\n  ".join(loops),
    }


@pytest.mark.parametrize("archs", ["7.5", "7.5,8.9"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_selector_picks_upstreams_kernel(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    tmp_path: pathlib.Path,
    folder: str,
    archs: str,
) -> None:
    """For each combination: the same kernel, none in both, or refused in both."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    pair = generate_pair(pristine_tree, patched_tree, folder, archs, tmp_path)
    program = tmp_path / "compare"
    code = tmp_path / "compare.cpp"
    code.write_text(harness(pair, SOURCE[folder]))
    command = [compiler, "-std=c++17", "-Og", "-o", str(program), str(code)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    counts = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    total, found, refusals, different = map(int, counts.stdout.split())
    branches = (pair.upstream / "kernel_selector.h").read_text().count("kernel = ")
    assert found == branches < total
    assert (refusals > 0) == ("8.9" not in archs)
    assert different == 0
