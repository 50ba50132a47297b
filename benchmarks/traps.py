"""Small upstreams made to mislead: each has one place where the change belongs, and a lookalike.

A trap is a patch on an old tree and a new tree.  `right` is the new tree as a careful engineer
would leave it (`also_right` where the order of two additions means nothing); `None` where nobody
can tell, so that only a conflict is honest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from textwrap import dedent

Files = Mapping[str, str]


class Expect(Enum):
    """What is asked of a tool that must never misplace."""

    CARRIED = "a careful engineer carries it without a question"
    SAFE = "right, or a conflict"
    NOT_CARRIED = "a conflict, or a drop"


@dataclass(frozen=True)
class Trap:
    """One case: `ours` are the patched files, `theirs` the whole new tree, `why` the reason."""

    name: str
    why: str
    expect: Expect
    base: Files
    ours: Files
    theirs: Files
    right: Files | None
    also_right: Files | None = None


TRAPS: list[Trap] = []


def put(text: str, old: str, new: str, nth: int = 0) -> str:
    """`text` with the `nth` occurrence of `old` replaced; it is a mistake if there is none."""
    pieces = text.split(old)
    if len(pieces) < nth + 2:
        raise AssertionError(f"{old!r} occurs {len(pieces) - 1} times")
    return old.join(pieces[: nth + 1]) + new + old.join(pieces[nth + 1 :])


def _trap(  # noqa: PLR0917
    name: str,
    why: str,
    expect: Expect,
    path: str,
    base: str,
    ours: str,
    theirs: str,
    right: str | None,
    also_right: str | None = None,
) -> None:
    """A trap in one file, whose patch changes and upstream keeps the path."""
    wanted, also = (None if text is None else {path: text} for text in (right, also_right))
    TRAPS.append(Trap(name, why, expect, {path: base}, {path: ours}, {path: theirs}, wanted, also))


# C++ and CUDA

_HEAD = dedent("""\
    #include <torch/all.h>

    #include "dispatch_utils.h"

    namespace vllm {

""")
_TAIL = dedent("""\

    void check_device(const torch::Tensor& tensor) {
      TORCH_CHECK(tensor.is_cuda(), "tensor must be on a CUDA device");
    }

    }  // namespace vllm
""")
_OLD = "  uint blocks = (count + 255) / 256;\n"
_NEW = "  unsigned int blocks = (count + 255) / 256;\n"


def _kernel(name: str, parameters: str = "torch::Tensor& out, int64_t count") -> str:
    return (
        f"void {name}({parameters}) {{\n"
        "  TORCH_CHECK(out.is_contiguous());\n"
        "  const at::cuda::OptionalCUDAGuard guard(device_of(out));\n"
        "  const cudaStream_t stream = at::cuda::getCurrentCUDAStream();\n"
        f"{_OLD}"
        "  dim3 grid(blocks);\n"
        "  dim3 block(256);\n"
        "  launch<<<grid, block, 0, stream>>>(out.data_ptr(), count);\n"
        "}\n"
    )


_ONE = _HEAD + _kernel("scale_fp8") + _TAIL
_ONE_OURS = put(_ONE, _OLD, _NEW)

_theirs = _HEAD + _kernel("scale_int8") + "\n" + _kernel("scale_fp8") + _TAIL
_trap(
    "lookalike above",
    "upstream adds a function with the same body above the patched one",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

_theirs = _HEAD + _kernel("scale_fp8") + "\n" + _kernel("scale_int8") + _TAIL
_trap(
    "lookalike below",
    "upstream adds a function with the same body below the patched one",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_edited = _kernel("scale_fp8").replace("255) / 256", "511) / 512").replace("(256)", "(512)")
_theirs = _HEAD + _kernel("scale_int8") + "\n" + _edited + _TAIL
_trap(
    "lookalike above, original edited",
    "the lookalike keeps the very line that upstream edited in the patched function",
    Expect.SAFE,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, "uint blocks = (count + 511)", "unsigned int blocks = (count + 511)"),
)

_wider = _kernel("scale_fp8", "torch::Tensor& out, int64_t count, double eps")
_theirs = _HEAD + _kernel("scale_int8") + "\n" + _wider + _TAIL
_trap(
    "lookalike above, signature changed",
    "by its text the lookalike is the patched function with one line edited",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

_half = _kernel("scale_fp8", "torch::Tensor& out, int64_t count, torch::Tensor const& scale")
_theirs = _HEAD + _half + "\n" + _kernel("scale_fp8") + _TAIL
_trap(
    "overload added",
    "the name of the function no longer tells which one is meant, its parameters do",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

# The twin has exactly as many lines as stood above the patched function.
_apart = _HEAD + _kernel("scale_fp8") + "\n" + _kernel("scale_bf16") + _TAIL
_theirs = _HEAD + _kernel("scale_bf16") + "\n" + _kernel("scale_fp8") + _TAIL
_trap(
    "moved below its twin, same line numbers",
    "the twin now stands at exactly the lines and under the context of the hunk",
    Expect.SAFE,
    "csrc/scale.cu",
    _apart,
    put(_apart, _OLD, _NEW),
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

_theirs = _HEAD + _kernel("scale_legacy") + "\n" + _kernel("scale_tensor") + _TAIL
_trap(
    "renamed, with a second candidate",
    "the patched function has gone, and two new ones have its body",
    Expect.NOT_CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    None,
)

_wrapper = (
    "void scale_fp8(torch::Tensor& out) {\n"
    "  const int64_t count = out.numel();\n"
    f"{_OLD}"
    "  dim3 grid(blocks);\n"
    "  scale_tensor(out, count, grid);\n"
    "}\n"
)
_theirs = _HEAD + _kernel("scale_tensor") + "\n" + _wrapper + _TAIL
_trap(
    "renamed, the old name kept by a wrapper",
    "the body moved to a new name and the old name has a lookalike line",
    Expect.SAFE,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_theirs = _HEAD + _kernel("scale_tensor") + _TAIL
_trap(
    "renamed alone",
    "the function has another name, nothing else could be meant",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_theirs = _HEAD + _kernel("scale_bf16") + _TAIL
_trap(
    "patched twin deleted",
    "upstream deletes the patched function, its twin stays",
    Expect.NOT_CARRIED,
    "csrc/scale.cu",
    _apart,
    put(_apart, _OLD, _NEW),
    _theirs,
    None,
)

_theirs = _HEAD + _kernel("scale_int8").replace(_OLD, _NEW) + "\n" + _kernel("scale_fp8") + _TAIL
_trap(
    "upstreamed in the twin only",
    "the patch's own line stands in a new twin, the patched function still needs it",
    Expect.CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_theirs = put(_apart, _OLD, _NEW, 1)
_theirs = put(_theirs, "  dim3 block(256);\n", "  dim3 block(blocks < 64 ? 128 : 256);\n")
_trap(
    "upstreamed in the old twin only",
    "upstream cures the neighbour by the patch's own line, and edits beside the patched one",
    Expect.CARRIED,
    "csrc/scale.cu",
    _apart,
    put(_apart, _OLD, _NEW),
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_plain = _kernel("scale_fp8")
_theirs = f"{_HEAD}#ifdef USE_ROCM\n{_plain}#else\n{_plain}#endif\n{_TAIL}"
_trap(
    "duplicated for ROCm",
    "the function now has a copy in the other branch of the preprocessor",
    Expect.SAFE,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

_rocm = _kernel("scale_fp8").replace("256)", "512)")
_base = f"{_HEAD}#ifdef USE_ROCM\n{_rocm}#else\n{_plain}#endif\n{_TAIL}"
_theirs = f"{_HEAD}#ifndef USE_ROCM\n{_plain}#else\n{_rocm}#endif\n{_TAIL}"
_trap(
    "preprocessor branches swapped",
    "both branches define the function, and upstream turned the condition around",
    Expect.SAFE,
    "csrc/scale.cu",
    _base,
    put(_base, _OLD, _NEW, 1),
    _theirs,
    put(_theirs, _OLD, _NEW),
)

_guarded = f"{_HEAD}#if CUDA_VERSION >= 12000\n{_plain}#endif\n{_TAIL}"
_theirs = f"{_HEAD}#if CUDA_VERSION >= 13000\n{_plain}#elif CUDA_VERSION >= 12000\n{_plain}#endif\n"
_trap(
    "a newer CUDA's branch above",
    "a copy for the next toolkit stands where the patched one stood",
    Expect.SAFE,
    "csrc/scale.cu",
    _guarded,
    put(_guarded, _OLD, _NEW),
    _theirs + _TAIL,
    put(_theirs + _TAIL, _OLD, _NEW, 1),
)

_switch = dedent("""\
    void run(int bits, Args& args) {
      switch (bits) {
        case 4:
          check(args);
          bind(args);
          prepare(args);
          launch<32>(args);
          finish(args);
          break;
        case 8:
          check(args);
          bind(args);
          prepare(args);
          launch<32>(args);
          finish(args);
          break;
        default:
          throw std::runtime_error("unsupported");
      }
    }
""")
_six = """\
    case 6:
      check(args);
      bind(args);
      prepare(args);
      launch<32>(args);
      finish(args);
      break;
"""
_eight = _six.replace("6", "8")
_four = _six.replace("6", "4")
_ours = put(_switch, "launch<32>(args)", "launch_32(args)", 1)
_theirs = put(_switch, "    case 8:\n", _six + "    case 8:\n")
_trap(
    "case inserted above",
    "the same lines stand in one more case of the same function",
    Expect.CARRIED,
    "csrc/run.cpp",
    _switch,
    _ours,
    _theirs,
    put(_theirs, "launch<32>(args)", "launch_32(args)", 2),
)

_theirs = put(_switch, _eight, "")
_trap(
    "patched case deleted",
    "only the other case is left, and it is word for word the same",
    Expect.NOT_CARRIED,
    "csrc/run.cpp",
    _switch,
    _ours,
    _theirs,
    None,
)

_theirs = put(_switch, _four, "")
_trap(
    "other case deleted",
    "the twin above has gone, the patched case has moved up to its lines",
    Expect.CARRIED,
    "csrc/run.cpp",
    _switch,
    _ours,
    _theirs,
    put(_theirs, "launch<32>(args)", "launch_32(args)"),
)

_theirs = put(put(put(_switch, "4:", "@"), "8:", "4:"), "@", "8:")
_trap(
    "cases swapped",
    "every line keeps its number and its text but the labels",
    Expect.SAFE,
    "csrc/run.cpp",
    _switch,
    _ours,
    _theirs,
    put(_theirs, "launch<32>(args)", "launch_32(args)"),
)

_unrolled = dedent("""\
    __device__ float sum(const float* a) {
      float acc = 0.f;
      acc += load(a);
      acc += load(a);
      acc += load(a);
      acc += load(a);
      return acc;
    }
""")
_trap(
    "unrolled loop, one more",
    "one of four equal lines is patched, upstream has five",
    Expect.NOT_CARRIED,
    "csrc/sum.cuh",
    _unrolled,
    put(_unrolled, "acc += load(a)", "acc += load_once(a)", 1),
    put(_unrolled, "  acc += load(a);\n", "  acc += load(a);\n  acc += load(a);\n"),
    None,
)

_pair = dedent("""\
    void flush(Queue& queue) {
      queue.close();
      sync(queue);
      sync(queue);
      queue.open();
    }
""")
_theirs = put(_pair, "  sync(queue);\n", "")
_trap(
    "between two equal lines, one deleted",
    "the insertion stood between them, nobody can tell on which side of the last one it belongs",
    Expect.NOT_CARRIED,
    "csrc/flush.cpp",
    _pair,
    put(_pair, "  sync(queue);\n", "  sync(queue);\n  mark(queue);\n"),
    _theirs,
    None,
)

_branch = dedent("""\
    void dispatch(const Args& args, bool fast) {
      if (fast) {
        auto config = fast_config(args);
        config.stages = 4;

        args.check();
        launch(config, args);
        args.sync();

        report("fast");
      } else {
        auto config = slow_config(args);
        config.stages = 2;

        args.check();
        launch(config, args);
        args.sync();

        report("slow");
      }
    }
""")
_swapped = _branch.replace("fast", "@").replace("slow", "fast").replace("@", "slow")
_swapped = _swapped.replace("bool slow", "bool fast").replace("if (slow)", "if (!fast)")
_swapped = _swapped.replace("= 4", "= @").replace("= 2", "= 4").replace("= @", "= 2")
_trap(
    "if and else swapped",
    "upstream negates the condition and swaps the branches, both have the patched line",
    Expect.SAFE,
    "csrc/dispatch.cpp",
    _branch,
    put(_branch, "launch(config, args)", "launch_now(config, args)"),
    _swapped,
    put(_swapped, "launch(config, args)", "launch_now(config, args)", 1),
)

_macro = (
    "#define LAUNCH_HALF(NAME, GRID)      \\\n"
    "  {                                  \\\n"
    "    check(GRID);                     \\\n"
    "    auto stream = current_stream();  \\\n"
    "    uint size = GRID;                \\\n"
    "    NAME<<<size, 256, 0, stream>>>() \\\n"
    "  }\n"
)
_macros = "#pragma once\n\n" + _macro + "\nvoid done();\n"
_theirs = put(_macros, _macro, _macro.replace("HALF", "BYTE") + "\n" + _macro)
_trap(
    "macro twin above",
    "upstream adds a macro with the same body above the patched macro",
    Expect.CARRIED,
    "csrc/launch.h",
    _macros,
    put(_macros, "uint size = GRID;    ", "unsigned size = GRID;"),
    _theirs,
    put(_theirs, "uint size = GRID;    ", "unsigned size = GRID;", 1),
)

_braces = dedent("""\
    void walk(Tree& tree) {
      for (auto& a : tree) {
        for (auto& b : a) {
          if (b) {
            visit(b);
          }

        }

      }

    }
""")
_nest = """\
  for (auto& a : other(tree)) {
    for (auto& b : a) {
      if (b) {
        visit(b);
      }

    }

  }

"""
_ours = put(_braces, "      }\n\n    }\n\n", "      }\n\n    }\n    flush();\n\n")
_theirs = put(_braces, "  for (auto& a : tree)", _nest + "  for (auto& a : tree)")
_trap(
    "context of braces and blank lines",
    "nothing near the insertion says anything, and upstream adds the same braces above",
    Expect.SAFE,
    "csrc/walk.cpp",
    _braces,
    _ours,
    _theirs,
    put(_theirs, "      }\n\n    }\n\n", "      }\n\n    }\n    flush();\n\n", 1),
)

_moved = _HEAD + _kernel("scale_fp8") + _TAIL
_helper = (
    "// Was in scale_fp8:\n"
    "/*\n"
    "  const cudaStream_t stream = at::cuda::getCurrentCUDAStream();\n"
    f"{_OLD}"
    "  dim3 grid(blocks);\n"
    "*/\n"
    "void scale_fp8(torch::Tensor& out, int64_t count) {\n"
    "  launch_scaled(out, count);\n"
    "}\n"
    "\n"
    "static void launch_scaled(torch::Tensor& out, int64_t count) {\n"
    "  TORCH_CHECK(count > 0);\n"
    "  const cudaStream_t stream = at::cuda::getCurrentCUDAStream();\n"
    f"{_OLD}"
    "  dim3 grid(blocks);\n"
    "  launch<<<grid, 256, 0, stream>>>(out.data_ptr(), count);\n"
    "}\n"
)
_theirs = _HEAD + _helper + _TAIL
_trap(
    "moved, the old lines left in a comment",
    "the code went to a new helper, a comment keeps its text and context",
    Expect.SAFE,
    "csrc/scale.cu",
    _moved,
    put(_moved, _OLD, _NEW),
    _theirs,
    put(_theirs, _OLD, _NEW, 1),
)

_theirs = put(_ONE, _OLD, "  // " + _OLD.lstrip() + "  auto blocks = grid_of(count);\n")
_trap(
    "patched line commented out",
    "the line is left as a comment, other code stands in its place",
    Expect.NOT_CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    None,
)

_theirs = f"{_HEAD}#if 0  // to be removed\n{_plain}#endif\n\n"
_theirs += put(_plain, _OLD, "  auto blocks = grid_of(count);\n") + _TAIL
_trap(
    "old code kept under #if 0",
    "the old function is left in text that no compiler reads, the new one is cured otherwise",
    Expect.NOT_CARRIED,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    None,
)

_theirs = put(_branch, "    launch(config, args);\n", "", 0)
_trap(
    "patched line deleted from one branch",
    "upstream drops the line in the patched branch, the other branch still has it",
    Expect.NOT_CARRIED,
    "csrc/dispatch.cpp",
    _branch,
    put(_branch, "launch(config, args)", "launch_now(config, args)"),
    _theirs,
    None,
)

_theirs = put(_kernel("scale_fp8"), _OLD, _OLD + "  uint tail = (count + 255) / 256;\n")
_theirs = _HEAD + _theirs + _TAIL
_trap(
    "patched line doubled",
    "upstream adds nearly the same line below it",
    Expect.SAFE,
    "csrc/scale.cu",
    _ONE,
    _ONE_OURS,
    _theirs,
    put(_theirs, _OLD, _NEW),
)

# Several files

_path = "csrc/scale.cu"
_theirs = _HEAD + _edited + _TAIL
_right = put(_theirs, "uint blocks", "unsigned int blocks")
TRAPS.append(
    Trap(
        "copy with a near-identical name",
        "a new file is the old one to the byte, the patched file was edited",
        Expect.SAFE,
        {_path: _ONE},
        {_path: _ONE_OURS},
        {_path: _theirs, "csrc/scale_v2.cu": _ONE},
        {_path: _right, "csrc/scale_v2.cu": _ONE},
    )
)
TRAPS.append(
    Trap(
        "split into two files with the same function",
        "both new files hold the patched function",
        Expect.NOT_CARRIED,
        {_path: _ONE, "csrc/other.cu": _HEAD},
        {_path: _ONE_OURS},
        {
            "csrc/scale_sm80.cu": _ONE.replace("namespace vllm", "namespace sm80"),
            "csrc/scale_sm90.cu": _ONE.replace("namespace vllm", "namespace sm90"),
            "csrc/other.cu": _HEAD,
        },
        None,
    )
)
_left = _HEAD + _kernel("scale_int8") + _TAIL
_two = _HEAD + _kernel("scale_fp8") + "\n" + _kernel("scale_int8") + _TAIL
TRAPS.append(
    Trap(
        "moved to another file, the twin stays",
        "the patched function went to another file and left its twin behind",
        Expect.SAFE,
        {_path: _two, "csrc/fp8.cu": _HEAD + _TAIL},
        {_path: put(_two, _OLD, _NEW)},
        {_path: _left, "csrc/fp8.cu": _ONE},
        {_path: _left, "csrc/fp8.cu": _ONE_OURS},
    )
)
TRAPS.append(
    Trap(
        "renamed file",
        "the file moved to another folder unchanged",
        Expect.CARRIED,
        {_path: _ONE},
        {_path: _ONE_OURS},
        {"csrc/libtorch_stable/scale.cu": _ONE},
        {"csrc/libtorch_stable/scale.cu": _ONE_OURS},
    )
)

# Python


def _method(body: str = "fcntl.flock(self.file, fcntl.LOCK_EX)") -> str:
    return (
        "    def lock(self) -> None:\n"
        "        if self.held:\n"
        "            return\n"
        "        self.file = open(self.path, 'wb')\n"
        f"        {body}\n"
        "        self.held = True\n"
        "\n"
        "    def unlock(self) -> None:\n"
        "        self.file.close()\n"
        "        self.held = False\n"
    )


_LOCK, _LOCKED = "fcntl.flock(self.file, fcntl.LOCK_EX)", "lock_exclusively(self.file)"
_IMPORTS = "import fcntl\nimport os\n\n\n"
_class = "class Capturer:\n" + _method()
_base = _IMPORTS + _class
_theirs = _IMPORTS + "class Recorder:\n" + _method() + "\n\n" + _class
_trap(
    "twin class with the same method",
    "a class with the same methods stands above the patched one",
    Expect.CARRIED,
    "vllm/capturer.py",
    _base,
    put(_base, _LOCK, _LOCKED),
    _theirs,
    put(_theirs, _LOCK, _LOCKED, 1),
)

_theirs = (
    _IMPORTS
    + "class BaseCapturer:\n"
    + _method()
    + "\n\nclass Capturer(BaseCapturer):\n"
    + "    def lock(self) -> None:\n        super().lock()\n        self.count += 1\n"
)
_trap(
    "method moved into a base class",
    "the body now belongs to another class, and the old class still has the name",
    Expect.SAFE,
    "vllm/capturer.py",
    _base,
    put(_base, _LOCK, _LOCKED),
    _theirs,
    put(_theirs, _LOCK, _LOCKED),
)

_setter = dedent("""\
    class Worker:
        @property
        def device(self) -> str:
            name = self.names[0]
            name = name.strip()
            self.seen += 1
            self.check(name)
            return name

        @device.setter
        def device(self, value: str) -> None:
            name = self.names[0]
            name = name.strip()
            self.seen += 1
            self.check(name)
            self.names[0] = value
""")
_first, _second = _setter.split("\n    @device.setter")
_theirs = put(_setter, "class Worker:\n", "class Worker:\n    names: list[str]\n\n")
_theirs = put(_theirs, "        return name\n", "        return name or ''\n")
_trap(
    "getter and setter alike",
    "two methods of one name and class have the same lines",
    Expect.CARRIED,
    "vllm/worker.py",
    _setter,
    put(_setter, "self.check(name)", "self.check(name.lower())", 1),
    _theirs,
    put(_theirs, "self.check(name)", "self.check(name.lower())", 1),
)

_serve = dedent('''\
    import socket


    def serve(host, port):
        """Listen until stopped."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        return sock
''')
_REUSE, _GUARD = "socket.SO_REUSEPORT, 1)", "getattr(socket, 'SO_REUSEPORT', 4), 1)"
_theirs = dedent('''\
    import socket


    def serve(host, port):
        """Listen until stopped.

        It used to say

        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        return sock
        """
        with guard(port):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            return sock
''')
_trap(
    "old lines quoted in a docstring",
    "the docstring has the old lines at the old indentation, the code was indented",
    Expect.SAFE,
    "vllm/serve.py",
    _serve,
    put(_serve, _REUSE, _GUARD),
    _theirs,
    put(_theirs, _REUSE, _GUARD, 1),
)

_theirs = dedent('''\
    import socket


    def serve(host, port):
        """Listen until stopped."""
        with guard(port):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            return sock
''')
_trap(
    "indented into a with",
    "every line of the function has moved four columns",
    Expect.CARRIED,
    "vllm/serve.py",
    _serve,
    put(_serve, _REUSE, _GUARD),
    _theirs,
    put(_theirs, _REUSE, _GUARD),
)

_probe = dedent("""\


    def probe(host, port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        return sock
""")
_theirs = put(_theirs, "import socket\n", "import socket\n" + _probe)
_trap(
    "indented into a with, twin above",
    "a new function has the old lines at the old indentation",
    Expect.SAFE,
    "vllm/serve.py",
    _serve,
    put(_serve, _REUSE, _GUARD),
    _theirs,
    put(_theirs, _REUSE, _GUARD, 1),
)

_loop = dedent("""\
    def collect(requests, outputs):
        ready = []
        for request in requests:
            item = request.take()
            item.touch()
            item.count += 1
            item.check()
            ready.append(item)
        for output in outputs:
            output.flush()
        return ready
""")
_more = """\
    for request in sorted(requests):
        item = request.take()
        item.touch()
        item.count += 1
        item.check()
        ready.append(item)
"""
_theirs = put(_loop, "    for request in requests:", _more + "    for request in requests:")
_trap(
    "loop twin above in the same function",
    "no name tells the loops apart, only the line that opens them",
    Expect.SAFE,
    "vllm/collect.py",
    _loop,
    put(_loop, "item.check()", "item.check(strict=False)"),
    _theirs,
    put(_theirs, "item.check()", "item.check(strict=False)", 1),
)

_lists = dedent("""\
    CUDA_SOURCES = [
        "cache.cu",
        "attention.cu",
        "layernorm.cu",
        "sampler.cu",
    ]


    def main():
        build(CUDA_SOURCES)
""")
_hip = dedent("""\
    HIP_SOURCES = [
        "cache.cu",
        "attention.cu",
        "layernorm.cu",
        "sampler.cu",
    ]

""")
_ITEM, _ITEMS = '    "sampler.cu",\n]', '    "sampler.cu",\n    "windows.cu",\n]'
_trap(
    "end of a list, twin list above",
    "a list at file level has no name for a scope, and its twin ends with the same items",
    Expect.CARRIED,
    "build_sources.py",
    _lists,
    put(_lists, _ITEM, _ITEMS),
    _hip + _lists,
    put(_hip + _lists, _ITEM, _ITEMS, 1),
)

_theirs = put(_hip + _lists, '    "sampler.cu",\n]', '    "sampler.cu",\n    "topk.cu",\n]', 1)
_trap(
    "end of a list, upstream added too",
    "the twin list still ends as the patched one ended",
    Expect.SAFE,
    "build_sources.py",
    _lists,
    put(_lists, _ITEM, _ITEMS),
    _theirs,
    put(_theirs, '    "topk.cu",\n', '    "topk.cu",\n    "windows.cu",\n'),
    put(_theirs, '    "topk.cu",\n', '    "windows.cu",\n    "topk.cu",\n'),
)

_dict = dedent("""\
    setup(
        name="vllm",
        ext_modules=modules,
        extras_require={
            "bench": ["pandas", "datasets"],
            "audio": ["librosa", "soundfile"],
            "video": [],
        },
        cmdclass=commands,
    )
""")
_rocm_dict = dedent("""\
    ROCM = dict(
        extras_require={
            "bench": ["pandas", "datasets"],
            "audio": ["librosa", "soundfile"],
            "video": [],
        },
        cmdclass=commands,
    )

""")
_KEY, _KEYS = '        "video": [],\n', '        "video": [],\n        "winloop": ["winloop"],\n'
_trap(
    "dictionary entries of setup.py",
    "the same dictionary stands in another call above, with the same lines on both sides",
    Expect.CARRIED,
    "setup.py",
    _dict,
    put(_dict, _KEY, _KEYS),
    _rocm_dict + _dict,
    put(_rocm_dict + _dict, _KEY, _KEYS, 1),
)

_platform = dedent("""\
    def backend(platform):
        if platform.is_cuda():
            name = pick()
            name.touch()
            name.count += 1
            name.validate()
            return name
        elif platform.is_rocm():
            name = pick()
            name.touch()
            name.count += 1
            name.validate()
            return name
        raise ValueError(platform)
""")
_theirs = dedent("""\
    def backend(platform):
        if platform.is_rocm():
            name = pick()
            name.touch()
            name.count += 1
            name.validate()
            return name
        elif platform.is_cuda():
            name = pick()
            name.touch()
            name.count += 1
            name.validate()
            return name
        raise ValueError(platform)
""")
_trap(
    "elif order swapped",
    "the branches are word for word the same, the conditions changed places",
    Expect.SAFE,
    "vllm/backend.py",
    _platform,
    put(_platform, "name.validate()", "name.validate(windows=True)"),
    _theirs,
    put(_theirs, "name.validate()", "name.validate(windows=True)", 1),
)

_start = "import os\nimport zmq\n\n\ndef run():\n    return zmq.Context()\n"
_theirs = put(_start, "import os\n", "from __future__ import annotations\n\nimport os\n")
_trap(
    "insertion at the start of the file",
    "upstream adds lines that must stay first",
    Expect.SAFE,
    "vllm/run.py",
    _start,
    "import asyncio\n" + _start,
    _theirs,
    put(_theirs, "import os\n", "import asyncio\nimport os\n"),
)

_main = "\n\ndef main():\n    run()\n"
_extra = "\n\ndef windows_main():\n    run()\n"
_theirs = _start + _main
_trap(
    "insertion at the end of the file",
    "upstream appends a function at the very spot where the patch appends its own",
    Expect.SAFE,
    "vllm/run.py",
    _start,
    _start + _extra,
    _theirs,
    _theirs + _extra,
    _start + _extra + _main,
)

_cut = dedent("""\
    def first():
        import fcntl

        fcntl.flock(1, 2)


    def second(path):
        os.umask(0o77)
        touch(path)
        os.sync()
        return path
""")
_twin = "def touch_all(paths):\n    os.umask(0o77)\n    touch(path)\n    os.sync()\n\n\n"
_theirs = put(_cut, "def second", _twin + "def second")
_trap(
    "a deletion, the line added above",
    "the patch only deletes a line, upstream adds the same one in another function",
    Expect.CARRIED,
    "vllm/cut.py",
    _cut,
    put(_cut, "    os.sync()\n", ""),
    _theirs,
    put(_theirs, "    os.sync()\n", "", 1),
)

_tries = dedent("""\
    def connect(url):
        try:
            client = make(url)
            client.name = url
            client.touch()
            client.start()
            return client
        except TimeoutError:
            client = make(url)
            client.name = url
            client.touch()
            client.start()
            return client
""")
_theirs = put(
    _tries,
    "    except TimeoutError:",
    "    except OSError:\n        raise\n    except TimeoutError:",
)
_theirs = put(_theirs, "        client = make(url)\n", "        client = make(url, retries=3)\n")
_trap(
    "try and except alike",
    "handler and body have the same lines, upstream edits one and adds a handler between",
    Expect.CARRIED,
    "vllm/connect.py",
    _tries,
    put(_tries, "client.start()", "client.start(block=True)", 1),
    _theirs,
    put(_theirs, "client.start()", "client.start(block=True)", 1),
)

_typed = dedent("""\
    import os

    from vllm.utils import (
        as_list,
        cdiv,
        free_port,
        open_path,
    )


    def main():
        free_port()
""")
_checking = """\
from vllm.compat import (
    as_list,
    cdiv,
    free_port,
    open_path,
)
"""
_theirs = put(_typed, "from vllm.utils", _checking + "from vllm.utils")
_NAME, _NAMES = "\n    open_path,\n", "\n    is_windows,\n    open_path,\n"
_trap(
    "import list, twin above",
    "another module has the same names, it does not have the new one",
    Expect.CARRIED,
    "vllm/main.py",
    _typed,
    put(_typed, _NAME, _NAMES),
    _theirs,
    put(_theirs, _NAME, _NAMES, 1),
)

# CMake and requirements

_cmake = dedent("""\
    project(vllm_extensions LANGUAGES CXX)

    if(VLLM_GPU_LANG STREQUAL "CUDA")
      enable_language(CXX)
      clear_flags()
      set(SRCS "csrc/a.cu" "csrc/b.cu")
      list(APPEND FLAGS "-O3")
      message(STATUS "Building")
    endif()

    define_extension(_C SOURCES ${SRCS})
""")
_hip = dedent("""\
    if(VLLM_GPU_LANG STREQUAL "HIP")
      enable_language(CXX)
      clear_flags()
      set(SRCS "csrc/a.cu" "csrc/b.cu")
      list(APPEND FLAGS "-O3")
      message(STATUS "Building")
    endif()

""")
_FLAG, _FLAGS = '  list(APPEND FLAGS "-O3")\n', '  list(APPEND FLAGS "/O2")\n'
_theirs = put(
    _cmake, 'if(VLLM_GPU_LANG STREQUAL "CUDA")', _hip + 'if(VLLM_GPU_LANG STREQUAL "CUDA")'
)
_trap(
    "CMake block twin above",
    "the block for another language has the same lines",
    Expect.CARRIED,
    "CMakeLists.txt",
    _cmake,
    put(_cmake, _FLAG, _FLAGS),
    _theirs,
    put(_theirs, _FLAG, _FLAGS, 1),
)

_both = put(_cmake, "define_extension", _hip + "define_extension")
_theirs = put(put(put(_both, '"CUDA"', '"@"'), '"HIP"', '"CUDA"'), '"@"', '"HIP"')
_trap(
    "CMake blocks swapped",
    "both blocks are alike but for the condition, and their order changed",
    Expect.SAFE,
    "CMakeLists.txt",
    _both,
    put(_both, _FLAG, _FLAGS),
    _theirs,
    put(_theirs, _FLAG, _FLAGS, 1),
)

_targets = dedent("""\
    set(SRCS "csrc/a.cu")
    define_extension(
      _C
      DESTINATION vllm
      LANGUAGE ${LANG}
      SOURCES ${SRCS}
      COMPILE_FLAGS ${FLAGS}
      USE_SABI 3
      WITH_SOABI)

    set(SRCS "csrc/moe.cu")
    define_extension(
      _moe_C
      DESTINATION vllm
      LANGUAGE ${LANG}
      SOURCES ${SRCS}
      COMPILE_FLAGS ${FLAGS}
      USE_SABI 3
      WITH_SOABI)
""")
_new_target = dedent("""\
    set(SRCS "csrc/marlin.cu")
    define_extension(
      _marlin_C
      DESTINATION vllm
      LANGUAGE ${LANG}
      SOURCES ${SRCS}
      COMPILE_FLAGS ${FLAGS}
      USE_SABI 3
      WITH_SOABI)

""")
_theirs = put(_targets, 'set(SRCS "csrc/a.cu")', _new_target + 'set(SRCS "csrc/a.cu")')
_LINK = "  COMPILE_FLAGS ${FLAGS}\n  LIBRARIES CUDA::cublas\n"
_trap(
    "CMake targets alike",
    "each target is defined by the same lines but its name, upstream adds one on top",
    Expect.CARRIED,
    "CMakeLists.txt",
    _targets,
    put(_targets, "  COMPILE_FLAGS ${FLAGS}\n", _LINK),
    _theirs,
    put(_theirs, "  COMPILE_FLAGS ${FLAGS}\n", _LINK, 1),
)

_needs = dedent("""\
    -r common.txt

    numba == 0.61.2
    ray[cgraph]>=2.48.0
    torch==2.9.1
    torchaudio==2.9.1
    # FlashInfer should be updated together with the Dockerfile
    flashinfer-python==0.5.3
""")
_MARKED = 'flashinfer-python==0.5.3; sys_platform != "win32"\n'
_theirs = _needs.replace("2.9.1", "2.10.0")
_bumped = "flashinfer-cubin==0.6.1\nflashinfer-python==0.6.1\n"
_theirs = put(_theirs, "flashinfer-python==0.5.3\n", _bumped)
_trap(
    "requirement bumped, a sister package above",
    "the pinned version moved, and a package of nearly the same name stands on its line",
    Expect.CARRIED,
    "requirements/cuda.txt",
    _needs,
    put(_needs, "flashinfer-python==0.5.3\n", _MARKED),
    _theirs,
    put(_theirs, "flashinfer-python==0.6.1", 'flashinfer-python==0.6.1; sys_platform != "win32"'),
)

_theirs = put(
    _needs,
    "flashinfer-python==0.5.3\n",
    'flashinfer-python==0.6.1; platform_machine == "x86_64"\n'
    'flashinfer-python==0.6.0; platform_machine == "aarch64"\n',
)
_trap(
    "requirement split by a marker",
    "upstream now has two lines for the package, each with a marker of its own",
    Expect.NOT_CARRIED,
    "requirements/cuda.txt",
    _needs,
    put(_needs, "flashinfer-python==0.5.3\n", _MARKED),
    _theirs,
    None,
)

_theirs = put(_needs, "flashinfer-python==0.5.3\n", "# flashinfer-python==0.5.3\nquack>=0.2\n")
_trap(
    "requirement commented out",
    "the package is only named in a comment, another one stands on its line",
    Expect.NOT_CARRIED,
    "requirements/cuda.txt",
    _needs,
    put(_needs, "flashinfer-python==0.5.3\n", _MARKED),
    _theirs,
    None,
)
