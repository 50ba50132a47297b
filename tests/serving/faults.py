"""A logits processor that breaks the engine on demand, as a faulty kernel or plugin would."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor


class Bomb(LogitsProcessor):  # type: ignore[misc]
    """Raises in the engine's step for a request with `vllm_xargs: {"bomb": 1}`."""

    def __init__(self, *_: Any) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        for _, params, *_ in batch_update.added if batch_update else ():
            if (params.extra_args or {}).get("bomb"):
                raise RuntimeError("the bomb went off")

    def apply(self, logits: Any) -> Any:
        return logits
