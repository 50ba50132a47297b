"""Reference of Mamba's selective scan: the recurrence, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    *,
    d: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    softplus: bool = False,
    state: torch.Tensor | None = None,
    keep_every: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """One sequence.  state(t) = exp(delta a) state(t-1) + delta b u; y = c state + d u.

    `u`, `delta`, `z` are (dim, length); `a` (dim, states); `b`, `c` (groups, states, length).
    Returns y, gated by SiLU of z if there is one, the last state, and the states after each
    `keep_every` steps.
    """
    u, delta, a, b, c = (one.to(torch.float64) for one in (u, delta, a, b, c))
    dim, length = u.shape
    if delta_bias is not None:
        delta = delta + delta_bias.to(torch.float64)[:, None]
    if softplus:
        delta = F.softplus(delta)
    b, c = (one.repeat_interleave(dim // one.shape[0], 0) for one in (b, c))
    now = torch.zeros_like(a) if state is None else state.to(torch.float64)
    decay = torch.exp(delta[:, None] * a[..., None])
    drive = delta[:, None] * b * u[:, None]
    y = torch.empty_like(u)
    kept = []
    for step in range(length):
        now = decay[..., step] * now + drive[..., step]
        y[:, step] = (now * c[..., step]).sum(dim=1)
        if keep_every and (step + 1) % keep_every == 0:
            kept.append(now)
    if d is not None:
        y = y + d.to(torch.float64)[:, None] * u
    if z is not None:
        y = y * F.silu(z.to(torch.float64))
    return y, now, kept
