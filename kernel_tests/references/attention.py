"""References of the attention kernels."""

from __future__ import annotations

import torch


def merge_states(
    prefix: torch.Tensor,
    prefix_lse: torch.Tensor,
    suffix: torch.Tensor,
    suffix_lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over the union of two sets of keys, from that over each (arXiv 2501.01005, 2.2).

    `prefix` and `suffix` are (tokens, heads, size), the log-sum-exp (heads, tokens) in base e.  An
    infinite log-sum-exp of either sign means that the part saw no key.  Where both are so, the
    output is the prefix's and its log-sum-exp is -inf.  Returns the output and its log-sum-exp.
    """
    empty = torch.tensor(float("-inf"), dtype=torch.float64, device=prefix.device)
    lse_p, lse_s = (
        torch.where(torch.isinf(lse), empty, lse.to(torch.float64))
        for lse in (prefix_lse, suffix_lse)
    )
    lse = torch.logaddexp(lse_p, lse_s)
    none = torch.isinf(lse)
    safe = torch.where(none, torch.zeros_like(lse), lse)
    weight_p = torch.where(none, torch.ones_like(lse), torch.exp(lse_p - safe))
    weight_s = torch.exp(lse_s - safe)
    output = prefix.to(torch.float64) * weight_p.T.unsqueeze(-1) + suffix.to(
        torch.float64
    ) * weight_s.T.unsqueeze(-1)
    return output, lse


def rotated(
    value: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, neox: bool
) -> torch.Tensor:
    """Rotary embedding of the last dimension's first 2 * cos.shape[-1] elements; the rest stays.

    NeoX pairs element i with i + half, GPT-J 2i with 2i + 1.  `cos` and `sin` broadcast over
    the dimensions before the last.
    """
    value, cos, sin = (one.to(torch.float64) for one in (value, cos, sin))
    size = 2 * cos.shape[-1]
    turned = value.clone()
    head = value[..., :size]
    if neox:
        x, y = head.chunk(2, dim=-1)
    else:
        x, y = head[..., 0::2], head[..., 1::2]
    new_x, new_y = x * cos - y * sin, y * cos + x * sin
    if neox:
        turned[..., :size] = torch.cat((new_x, new_y), dim=-1)
    else:
        turned[..., 0:size:2], turned[..., 1:size:2] = new_x, new_y
    return turned


def qk_norm_rope(
    qkv: torch.Tensor,
    heads: tuple[int, int, int],
    head_size: int,
    epsilon: float,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    positions: torch.Tensor,
    *,
    neox: bool,
) -> torch.Tensor:
    """RMS norm of each query and key head, then rotary embedding; values stay as they are.

    `qkv` is (tokens, (q + k + v heads) * size); a row of `cos_sin` is the cosines, then the sines
    of a position.
    """
    tokens = qkv.shape[0]
    whole = qkv.to(torch.float64).reshape(tokens, sum(heads), head_size)
    cos, sin = cos_sin.to(torch.float64)[positions].unsqueeze(1).chunk(2, dim=-1)
    parts = []
    for part, weight in zip(whole.split(heads, dim=1)[:2], (q_weight, k_weight), strict=True):
        norm = torch.rsqrt(part.square().mean(dim=-1, keepdim=True) + epsilon)
        parts.append(rotated(part * norm * weight.to(torch.float64), cos, sin, neox=neox))
    parts.append(whole[:, heads[0] + heads[1] :])
    return torch.cat(parts, dim=1).reshape(tokens, -1)
