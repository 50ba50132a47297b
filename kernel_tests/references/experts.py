"""References of the kernels that route tokens to experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Blocks:
    """Tokens by expert in blocks of one size, each expert's last one padded."""

    tokens: torch.Tensor  # (blocks * size): index into the flat choices; their count is padding
    experts: torch.Tensor  # (blocks)


def aligned(choices: torch.Tensor, experts: int, size: int) -> Blocks:
    """The blocks of `choices` (tokens, chosen experts each), experts and choices in order."""
    flat = choices.reshape(-1).cpu()
    tokens: list[int] = []
    owners: list[int] = []
    for expert in range(experts):
        mine = torch.nonzero(flat == expert).reshape(-1).tolist()
        padding = -len(mine) % size
        tokens += [*mine, *([flat.numel()] * padding)]
        owners += [expert] * ((len(mine) + padding) // size)
    return Blocks(torch.tensor(tokens, dtype=torch.int32), torch.tensor(owners, dtype=torch.int32))


def multiplied(
    a: torch.Tensor,
    weights: torch.Tensor,
    choices: torch.Tensor,
    importance: torch.Tensor | None,
) -> torch.Tensor:
    """Each token's row times the weight (k, n) of each expert it chose, as (tokens * chosen, n)."""
    a, weights = a.to(torch.float64), weights.to(torch.float64)
    result = torch.stack(
        [a[token] @ weights[expert] for token, row in enumerate(choices.tolist()) for expert in row]
    )
    if importance is not None:
        result = result * importance.reshape(-1, 1).to(torch.float64)
    return result
