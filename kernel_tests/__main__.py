"""`python -m kernel_tests`: build the kernels, run the cases, write what was found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

from kernel_tests import run as kernel_run  # noqa: E402
from portkit.errors import Exit  # noqa: E402
from portkit.face import console  # noqa: E402
from portkit.kernels import manifest as kernelmanifest  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Run the kernel tests; 1 when a case failed, or a mutant survived."""
    given = _parser().parse_args(arguments)
    console.settle(ROOT)
    manifest = kernelmanifest.load(ROOT)
    names = kernel_run.selected(manifest, given.kernels)
    if given.prepare is not None:
        return _prepare(given, manifest)
    if given.compile_only:
        from kernel_tests import compileonly  # noqa: PLC0415

        return compileonly.main(ROOT, manifest, names, given)
    from kernel_tests import session  # noqa: PLC0415

    return session.main(ROOT, manifest, names, given)


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "Test on this GPU whether every kernel that the series touches computes what it should.",
        prog="python -m kernel_tests",
    )
    parser.add_argument(
        "--against", choices=("build", "installed"), default="build",
        help="the patched source, built now beside upstream's, or the ops of an installed vLLM",
    )  # fmt: skip
    parser.add_argument("--archs", default="native", help="native (the default), or 9.0,…")
    parser.add_argument(
        "--kernels", default="", metavar="NAMES", help="of the manifest; default all"
    )
    parser.add_argument("--seed", type=int, help="repeat the inputs of an earlier run")
    parser.add_argument("--no-speed", action="store_true", help="leave the measuring out")
    parser.add_argument(
        "--upstream-tests", action="store_true", help="run upstream's own tests too"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="show that broken patches are noticed"
    )
    parser.add_argument(
        "--sanitize", action="store_true", help="a few cases under compute-sanitizer"
    )
    parser.add_argument(
        "--engine", action="store_true", help="vLLM's engine on tiny models, on both builds"
    )
    parser.add_argument(
        "--add", action="store_true",
        help="run only what the options above add, into the result file of an earlier run",
    )  # fmt: skip
    parser.add_argument(
        "--compile-only", action="store_true",
        help="no GPU: compile every patched unit, for all the toolkit's archs",
    )  # fmt: skip
    parser.add_argument(
        "--recorded", action="store_true",
        help="with --compile-only: compile only what ci/results does not have with these contents",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true", help="with --compile-only: write what was found there"
    )
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS",
        help="with --compile-only: begin no unit later than this, but those that changed since "
        "they were recorded; what is left is listed and no failure",
    )  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report")
    parser.add_argument(
        "--results", type=Path, metavar="FILE",
        help="where the result file goes (default: kernel_tests/results)",
    )  # fmt: skip
    parser.add_argument(
        "--prepare", type=Path, metavar="DIR",
        help="write the source for a machine without network, and stop",
    )  # fmt: skip
    parser.add_argument("--trees", type=Path, metavar="DIR", help="source that --prepare wrote")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep objects and libraries here")
    parser.add_argument("--jobs", type=int, metavar="N", help="compilers at a time")
    parser.set_defaults(libraries=None)
    console.add_json(parser)
    return parser


def _prepare(given: argparse.Namespace, manifest: kernelmanifest.Manifest) -> int:
    from kernel_tests import trees  # noqa: PLC0415

    archs = kernel_run.archs_of(given.archs)
    with console.progress() as events:
        made = trees.prepare(ROOT, given.prepare, manifest, archs, events=events)
    if given.json:
        console.print_json(
            "kernel-tests", {"folder": str(given.prepare), "tag": made.tag, "archs": [*made.archs]}
        )
    else:
        print(f"{given.prepare}: vLLM {made.tag}, upstream's and patched, for {', '.join(archs)}")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(console.run(main))
