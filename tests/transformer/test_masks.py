"""Masks against attention written out over every query and key."""

import pytest
import torch

from genstack.transformer.cache import Cache
from genstack.transformer.masks import BlockCausal, Causal, Full, Padded, mask_padding

BLOCKS = torch.tensor([0, 1, 1, 2, 2, 2, 3])


def by_hand(queries, keys, values, sees):
    result = torch.zeros_like(queries)
    offset = keys.shape[2] - queries.shape[2]
    for i in range(queries.shape[2]):
        seen = [j for j in range(keys.shape[2]) if sees(i + offset, j)]
        scores = torch.einsum("bhd,bhkd->bhk", queries[:, :, i], keys[:, :, seen]) / queries.shape[-1] ** 0.5
        result[:, :, i] = torch.einsum("bhk,bhkd->bhd", scores.softmax(-1), values[:, :, seen])
    return result


@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize(
    ("mask", "sees"),
    [
        (Full(), lambda i, j: True),
        (Causal(), lambda i, j: j <= i),
        (BlockCausal(BLOCKS), lambda i, j: bool(BLOCKS[j] <= BLOCKS[i])),
    ],
    ids=["full", "causal", "blocks"],
)
def test_attention_follows_the_mask(mask, sees, length):
    queries, keys, values = torch.randn(2, 3, length, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    torch.testing.assert_close(
        mask.attend(queries, keys, values), by_hand(queries, keys, values, sees), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("mask", [Full(), Causal(), BlockCausal(BLOCKS)], ids=["full", "causal", "blocks"])
def test_bfloat16_attention_and_gradients_follow_float32(mask):
    plain = [torch.randn(2, 3, 7, 8).bfloat16().float().requires_grad_() for _ in range(3)]
    half = [each.detach().bfloat16().requires_grad_() for each in plain]
    weights = torch.randn(2, 3, 7, 8)
    expected, attended = mask.attend(*plain), mask.attend(*half)
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended.float(), expected, atol=0.03, rtol=0.03)
    gradients = torch.autograd.grad((expected * weights).sum(), plain)
    for theirs, ours in zip(gradients, torch.autograd.grad((attended * weights).sum(), half), strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize("mask", [Full(), Causal(), BlockCausal(BLOCKS)], ids=["full", "causal", "blocks"])
def test_heads_of_queries_share_keys_in_order(mask, length):
    queries, keys, values = torch.randn(2, 6, length, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4)
    own = (each[:, [0, 0, 0, 1, 1, 1]] for each in (keys, values))
    torch.testing.assert_close(mask.attend(queries, keys, values), mask.attend(queries, *own))


@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize(
    ("mask", "sees"),
    [
        (Full(), lambda i, j: True),
        (Causal(), lambda i, j: j <= i),
        (BlockCausal(BLOCKS), lambda i, j: bool(BLOCKS[j] <= BLOCKS[i])),
    ],
    ids=["full", "causal", "blocks"],
)
def test_padding_attends_only_to_itself(mask, sees, length):
    """Each image hides others; those behind the first five are never hidden."""
    hidden = torch.tensor([[True, True, False, False, False], [False, True, False, True, True]])
    queries, keys, values = torch.randn(2, 3, length, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    found = Padded(mask, hidden).attend(queries, keys, values)
    for image, row in enumerate(hidden.tolist()):
        one = [each[image : image + 1] for each in (queries, keys, values)]

        def shown(i, j, row=row):
            return sees(i, j) and (i == j or j >= 5 or not row[j])

        torch.testing.assert_close(found[image : image + 1], by_hand(*one, shown), atol=1e-6, rtol=1e-5)


def test_no_padding_keeps_the_mask():
    mask = Causal()
    assert mask_padding(mask, None) is mask


def test_cache_returns_all_tokens_from_one_allocation():
    cache, keys, values = Cache(6), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)
    cache.append(keys[:, :, :2], values[:, :, :2])
    first = cache.keys.data_ptr()
    cache.append(keys[:, :, 2:3], values[:, :, 2:3])
    all_keys, all_values = cache.append(keys[:, :, 3:], values[:, :, 3:])
    assert torch.equal(all_keys, keys) and torch.equal(all_values, values)
    assert cache.keys.data_ptr() == first
    with pytest.raises(AssertionError, match="full"):
        cache.append(keys[:, :, :1], values[:, :, :1])


def test_training_in_bfloat16_attends_to_long_sequences_in_float32(monkeypatch):
    """On a CPU, where its backward pass in bfloat16 takes far longer."""
    monkeypatch.setattr("genstack.dot_product_attention.SHORT", 4)
    made = [torch.randn(2, 3, 5, 8).bfloat16().requires_grad_() for _ in range(3)]
    found = Causal().attend(*made)
    exact = Causal().attend(*(each.float() for each in made))
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("short", [4, 512])
@torch.no_grad()
def test_without_avx512_torch_does_not_attend_in_bfloat16(monkeypatch, short):
    """It fails there if the processor has AMX."""
    own = torch.nn.functional.scaled_dot_product_attention

    def attend(queries, *rest, **options):
        assert queries.dtype == torch.float32
        return own(queries, *rest, **options)

    module = "genstack.dot_product_attention"
    for name, value in {"AVX512": False, "SHORT": short, "scaled_dot_product_attention": attend}.items():
        monkeypatch.setattr(f"{module}.{name}", value)
    made = [torch.randn(2, 3, 5, 8).bfloat16() for _ in range(3)]
    exact = own(*(each.float() for each in made))
    torch.testing.assert_close(Full().attend(*made).float(), exact, rtol=0.02, atol=0.02)
