"""The references against each other and against torch, on the CPU; they need torch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from kernel_tests.numeric import E4M3, nearest_e4m3, steps_apart  # noqa: E402
from kernel_tests.references import attention, experts, marlin, quantisation, scan  # noqa: E402
from kernel_tests.references import weights as formats  # noqa: E402


def test_e4m3_is_torchs_and_saturates() -> None:
    values = torch.randn(20_000, dtype=torch.float64) * 100
    inside = values.clamp(-448, 448)
    assert torch.equal(
        nearest_e4m3(values).view(torch.uint8) & 0x7F,
        inside.to(torch.float32).to(E4M3).view(torch.uint8) & 0x7F,
    )
    ends = nearest_e4m3(torch.tensor([1e9, -1e9, float("inf")], dtype=torch.float64))
    assert ends.to(torch.float32).tolist() == [448.0, -448.0, 448.0]
    ties = nearest_e4m3(torch.tensor([1.0625, 1.1875, 2.0**-10], dtype=torch.float64))
    assert ties.to(torch.float32).tolist() == [1.0, 1.25, 0.0]


def test_steps_count_across_zero() -> None:
    codes = torch.tensor([0x81, 0x80, 0x00, 0x01], dtype=torch.uint8).view(E4M3)
    assert steps_apart(codes, codes.roll(1))[1:].tolist() == [1, 0, 1]


def test_merging_states_is_attention_over_all_keys() -> None:
    tokens, heads, size, keys = 3, 2, 8, 10
    q, k = torch.randn(tokens, heads, size), torch.randn(keys, heads, size)
    v = torch.randn(keys, heads, size)
    scores = torch.einsum("thd,khd->htk", q, k).double()

    def part(chosen: slice) -> tuple[Any, Any]:
        mine = scores[:, :, chosen]
        out = torch.einsum("htk,khd->thd", mine.softmax(-1), v[chosen].double())
        return out, mine.logsumexp(-1)

    first, second, whole = part(slice(0, 4)), part(slice(4, None)), part(slice(None))
    out, lse = attention.merge_states(*first, *second)
    assert torch.allclose(out, whole[0])
    assert torch.allclose(lse, whole[1])


def test_a_scan_in_two_parts_is_the_whole() -> None:
    dim, states, length = 4, 3, 20
    u, delta = torch.randn(dim, length), torch.rand(dim, length)
    a, b, c = (
        -torch.rand(dim, states),
        torch.randn(1, states, length),
        torch.randn(1, states, length),
    )
    whole, last, kept = scan.selective_scan(u, delta, a, b, c, keep_every=8)
    first = scan.selective_scan(u[:, :8], delta[:, :8], a, b[..., :8], c[..., :8])
    rest = scan.selective_scan(u[:, 8:], delta[:, 8:], a, b[..., 8:], c[..., 8:], state=first[1])
    assert torch.allclose(whole, torch.cat((first[0], rest[0]), 1))
    assert torch.allclose(last, rest[1])
    assert torch.allclose(kept[0], first[1])
    assert len(kept) == 2


def test_rotation_keeps_length_and_undoes() -> None:
    value, angle = torch.randn(5, 8), torch.rand(5, 3)
    for neox in (True, False):
        turned = attention.rotated(value, angle.cos(), angle.sin(), neox=neox)
        assert torch.allclose(turned.norm(dim=-1), value.double().norm(dim=-1))
        back = attention.rotated(turned, angle.cos(), -angle.sin(), neox=neox)
        assert torch.allclose(back, value.double(), atol=1e-6)
        assert torch.equal(turned[:, 6:], value[:, 6:].double())


@pytest.mark.parametrize("bits", [4, 8])
def test_packings_lose_nothing(bits: int) -> None:
    codes = torch.randint(0, 1 << bits, (64, 128))
    order = formats.AWQ_ORDER if bits == 4 else None
    packed = formats.packed_columns(codes, bits, order)
    assert torch.equal(formats.unpacked_columns(packed, bits, order), codes)
    for small in (False, True):
        stored = formats.unpacked_columns(marlin.weights(codes, bits, small_a=small), bits)
        assert torch.equal(stored.reshape(-1).sort().values, codes.reshape(-1).sort().values)


def test_scalar_types_have_upstreams_numbers() -> None:
    assert marlin.U4B8.id == 4 << 8 | 8 << 17 | 1 << 50
    assert marlin.FE2M1.id == 2 | 1 << 8 | 1 << 16 | 1 << 49


def test_blocks_hold_every_choice_once() -> None:
    choices = torch.tensor([[0, 2], [2, 1], [2, 0]])
    blocks = experts.aligned(choices, 4, 2)
    assert blocks.experts.tolist() == [0, 1, 2, 2]
    assert blocks.tokens.tolist() == [0, 5, 3, 6, 1, 2, 4, 6]


def test_scales_have_a_floor_and_a_limit() -> None:
    value = torch.tensor([[0.0, 0.0], [3.0, -6.0]])
    assert quantisation.dynamic_scale(value, E4M3)[0] == 1 / (448 * 512)
    limited = quantisation.dynamic_scale(value, torch.int8, limit=torch.tensor([2.0]))
    assert limited[1] == 2 / 127
