"""The cache: what it stores, how it is cut, and that logits with it equal logits without it."""

from __future__ import annotations

import pytest
import torch
from toy_decoders import toy_llama

from groundup.inference import KeyValueCache, cache_for
from groundup.inference.generate import next_logits
from groundup.models.llama import Llama, LlamaOptions


@pytest.fixture
def llama() -> Llama:
    return toy_llama()


def test_sizes_are_read_off_the_model(llama: Llama) -> None:
    cache = cache_for(llama, 3, 20)
    assert cache.keys_LBHSK.shape == (2, 3, 2, 20, 8)
    assert (cache.batch, cache.context, cache.length) == (3, 20, 0)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("chunks", [[17], [1] * 17, [9, 1, 1, 6], [1, 16]])
def test_cached_logits_equal_uncached(window: int | None, chunks: list[int]) -> None:
    options = LlamaOptions(
        vocabulary=61, context=48, width=32, layers=2, heads=4, key_value_heads=2, head_size=8, hidden=64,
        sliding_window=window,
    )  # fmt: skip
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(5))
    tokens = torch.randint(0, 61, (3, 17), generator=torch.Generator().manual_seed(1))
    cache = cache_for(model, 3, 17)
    start = 0
    for size in chunks:
        logits = next_logits(model, tokens[:, start : start + size], cache)
        start += size
        torch.testing.assert_close(logits, model(tokens[:, :start])[:, -1].detach(), rtol=1e-5, atol=1e-5)
    assert cache.length == 17


def test_crop_goes_on_from_an_earlier_point(llama: Llama) -> None:
    tokens = torch.randint(0, 61, (1, 20), generator=torch.Generator().manual_seed(2))
    cache = cache_for(llama, 1, 20)
    next_logits(llama, tokens[:, :15], cache)
    cache.crop(6)
    other = torch.cat([tokens[:, :6], tokens[:, 15:]], dim=1)
    logits = next_logits(llama, other[:, 6:], cache)
    torch.testing.assert_close(logits, llama(other)[:, -1].detach(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="cannot crop 11"):
        cache.crop(12)


def test_keep_drops_and_orders_rows(llama: Llama) -> None:
    tokens = torch.randint(0, 61, (4, 12), generator=torch.Generator().manual_seed(3))
    cache = cache_for(llama, 4, 12)
    next_logits(llama, tokens[:, :10], cache)
    cache.keep([3, 1])
    logits = next_logits(llama, tokens[[3, 1], 10:], cache)
    torch.testing.assert_close(logits, llama(tokens[[3, 1]])[:, -1].detach(), rtol=1e-5, atol=1e-5)


def test_a_full_cache_refuses_instead_of_sliding() -> None:
    cache = KeyValueCache(layers=1, batch=1, key_value_heads=1, head_size=2, context=3)
    new = torch.zeros(1, 1, 2, 2)
    cache.update(0, new, new)
    cache.advance(2)
    with pytest.raises(ValueError, match="4 positions do not fit a cache of 3"):
        cache.update(0, new, new)


def test_modes_and_gradients_are_left_alone() -> None:
    class Noisy(Llama):
        def hidden(self, *arguments: object, **named: object) -> torch.Tensor:  # type: ignore[override]
            assert not self.training and not torch.is_grad_enabled()
            return super().hidden(*arguments, **named)  # type: ignore[arg-type]

    options = LlamaOptions(
        vocabulary=9, context=8, width=8, layers=2, heads=1, key_value_heads=1, head_size=8, hidden=8
    )
    model = Noisy(options)
    model.train()
    model.layers[0].eval()  # a frozen part stays as it was
    next_logits(model, torch.zeros(1, 2, dtype=torch.int64), cache_for(model, 1, 4))
    assert model.training and model.layers[1].training and not model.layers[0].training
    assert torch.is_grad_enabled()
