"""One carry in a process of its own: what `speed.py` times, start-up included.

    python benchmarks/carry_once.py FOLDER STORE BASE_TREE TARGET_TREE REPEAT

`FOLDER` holds the patches as files.  Prints the seconds of each of REPEAT carries in this process,
and how many hunks were left in conflict.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from portkit.face.console import uncollected
from portkit.patches.patchfile import format_patch, parse_patch
from portkit.port.rebase import Snapshot, carry_series, patches_of
from portkit.upstream.git import Store


def main(folder: Path, store: Path, base: str, target: str, repeat: int) -> None:
    with Store(store) as objects, uncollected():
        for _ in range(repeat):
            start = time.perf_counter()
            names = (folder / "series").read_text("utf-8").split()
            patches = [parse_patch(name, (folder / name).read_bytes()) for name in names]
            snapshots = [Snapshot.of(objects, tag, tag) for tag in (base, target)]
            carried = carry_series(objects, patches, snapshots)
            for patch in patches_of(carried, patches):
                format_patch(patch)
            print(time.perf_counter() - start, len(carried.conflicts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
