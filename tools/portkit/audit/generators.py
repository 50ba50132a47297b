"""Kernel generators, compared by what they generate and by what the generated code decides.

Both versions are run, for lists of architectures that take every way through them.  The kernel
files must be the same bytes.  The selector may be written in another way: it is compiled with the
host compiler, beside upstream's, and both are asked for every combination of the values they know.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from portkit.audit.doubt import Doubt
from portkit.cuda.includes import Read
from portkit.errors import Unavailable
from portkit.model import Event, Events, silent

NAME = "generate_kernels.py"
SELECTOR = "kernel_selector.h"
HOSTS = ("gptq_marlin.cu", "ops.cu")  # beside a generator: the source that includes its selector
# Alone, Turing, fp8 and all others decide what is generated; together, each beside the others.
ARCH_LISTS = (
    "7.5", "8.0", "8.9", "9.0", "12.0", "7.5,8.0", "7.5,8.9", "8.0,8.6,8.7,9.0",
    "7.5,8.0,8.6,8.7,8.9,9.0,10.0,11.0,12.0",
)  # fmt: skip

# Parsing a template anew for each of some thousand kernels takes most of a run; once is enough.
_RUNNER = """
import functools, jinja2, runpy, sys
jinja2.Template = functools.cache(jinja2.Template)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_FUNCTION = re.compile(r"^MarlinFuncPtr get_marlin_kernel\(.*?^}$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class SameKernels:
    """What was compared: lists of architectures, kernel files of all, combinations asked."""

    arch_lists: int
    kernels: int
    combinations: int


@dataclass(frozen=True)
class Selection:
    """What two selectors answered: all combinations, those with a kernel, refused, different."""

    combinations: int
    found: int
    refused: int
    different: int


def is_generator(path: str) -> bool:
    return PurePosixPath(path).name == NAME


def compare(path: str, upstream: Read, patched: Read, events: Events = silent) -> SameKernels:
    """Compare two versions of the generator at `path`, read from their trees.

    Raises `Doubt` where they differ, `Unavailable` without a host compiler.
    """
    count = combinations = 0
    compared: set[tuple[bytes, bytes]] = set()
    for number, archs in enumerate(ARCH_LISTS):
        events(Event(f"generating {PurePosixPath(path).parent.name}", number, len(ARCH_LISTS)))
        with tempfile.TemporaryDirectory(prefix="portkit-generate-") as temp:
            one, other = Path(temp, "upstream"), Path(temp, "patched")
            generate(path, upstream, archs, one)
            generate(path, patched, archs, other)
            before, after = kernels(one), kernels(other)
            for name in sorted({*before, *after}):
                if before.get(name) != after.get(name):
                    raise Doubt(f"the generated {name} differs for {archs}")
            count += len(before)
            selectors = ((one / SELECTOR).read_bytes(), (other / SELECTOR).read_bytes())
            if selectors not in compared:
                compared.add(selectors)
                selection = select(one, other)
                if selection.different:
                    raise Doubt(
                        f"the selector picks another kernel for {selection.different} of "
                        f"{selection.combinations} combinations ({archs})"
                    )
                combinations += selection.combinations
    return SameKernels(len(ARCH_LISTS), count, combinations)


def generate(path: str, read: Read, archs: str, out: Path) -> None:
    """Run the generator of one tree for a list of architectures, in a copy of its folder."""
    done = run(path, read, archs, out)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Doubt(f"the generator fails for {archs}: {last}")


def run(
    path: str, read: Read, archs: str, out: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the generator, whatever comes of it; `out` gets it, its host source, what it writes."""
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).write_bytes(read(path) or b"")
    for name in HOSTS:
        source = read(str(PurePosixPath(path).with_name(name)))
        if source is not None:
            (out / "host.cu").write_bytes(source)
    return subprocess.run(
        [sys.executable, "-c", _RUNNER, str(out / NAME), archs],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def kernels(folder: Path) -> dict[str, bytes]:
    """The generated kernel files: every source but the host's."""
    return {file.name: file.read_bytes() for file in folder.glob("*.cu") if file.stem != "host"}


# the selector


def select(upstream: Path, patched: Path) -> Selection:
    """Ask the selectors in two generated folders for every combination of the values they know."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise Unavailable("there is no C++ compiler to ask the generated selectors with")
    with tempfile.TemporaryDirectory(prefix="portkit-select-") as temp:
        code, program = Path(temp, "select.cpp"), Path(temp, "select")
        code.write_text(_harness(upstream, patched), encoding="utf-8")
        command = [compiler, "-std=c++17", "-O0", "-w", "-o", str(program), str(code)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            errors = [line for line in built.stderr.splitlines() if "error" in line]
            raise Doubt(f"the generated selector does not compile: {errors[0].strip()}")
        ran = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    return Selection(*map(int, ran.stdout.split()))


_HARNESS = r"""
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


def _harness(upstream: Path, patched: Path) -> str:
    """A program that asks both selectors; each type takes one value more, which neither knows."""
    texts = [(folder / SELECTOR).read_text(encoding="utf-8") for folder in (upstream, patched)]
    known: dict[str, set[str]] = defaultdict(set)
    for name, value in itertools.chain(*(re.findall(r"(\w+) == ([\w:-]+)", t) for t in texts)):
        known[name].add(value)
    known["a_type"] |= {"vllm::kFE4M3fn", "vllm::kUnknown"}
    types = {value for values in known.values() for value in values if "::" in value}
    short = [name.removeprefix("vllm::") for name in sorted({*types, "vllm::kFloat16"})]
    return _HARNESS % {
        "enum": ", ".join(f"n_{name}" for name in short),
        "constants": "\n".join(f"constexpr ScalarType {name}{{n_{name}}};" for name in short),
        "upstream": _function(upstream),
        "patched": _function(patched),
        "loops": "\n  ".join(_loops(known)),
    }


def _loops(known: dict[str, set[str]]) -> Iterator[str]:
    for name, values in sorted(known.items()):
        kind = "vllm::ScalarType" if name.endswith("_type") else "int"
        yield f"for ({kind} {name} : {{{', '.join(sorted(values))}}})"


def _function(folder: Path) -> str:
    """`get_marlin_kernel` of the real source, with the real generated selector inside."""
    match = _FUNCTION.search((folder / "host.cu").read_text(encoding="utf-8"))
    if match is None or f'#include "{SELECTOR}"' not in match[0]:
        raise Doubt("get_marlin_kernel is not found, or does not include the selector")
    selector = f'#include "{(folder / SELECTOR).as_posix()}"'
    return match[0].replace(f'#include "{SELECTOR}"', selector)
