"""What decoding asks of a language model, and who answers: our transformer or a Hugging Face causal LM."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@runtime_checkable
class Cache(Protocol):
    """The tokens that a model has read; see `nn.transformer.KVCache`."""

    lengths: Tensor

    def end(self, more: int) -> int: ...

    def rollback(self, lengths: Tensor | int) -> None: ...

    def keep_rows(self, rows: Tensor) -> None: ...


@runtime_checkable
class ModelFacts(Protocol):
    """What a decoding knows of a model without calling it: all that it needs of a draft in another process."""

    vocab_size: int
    context: int
    start_token: int  # stands for an empty prompt
    device: torch.device


@runtime_checkable
class LanguageModel(ModelFacts, Protocol):
    """Reads B rows of T tokens behind what the cache holds and returns the logits after each, B T V."""

    def new_cache(self, batch: int, max_len: int) -> Cache: ...

    def __call__(self, tokens: Int[Tensor, "B T"], *, cache: Cache, last_only: bool = False
                 ) -> Float[Tensor, "B _ V"]: ...


@runtime_checkable
class TreeModel(LanguageModel, Protocol):
    """A language model that can also read tokens at given positions under a given mask, as tree drafting asks.

    `mask` is True where attention is allowed, over the slots of the cache up to the longest row's new end.
    `scratch` slots of a new cache lie beyond the context: branches that are forgotten after the round.
    """

    def new_cache(self, batch: int, max_len: int, *, scratch: int = 0) -> Cache: ...

    def __call__(self, tokens: Int[Tensor, "B T"], *, cache: Cache, positions: Int[Tensor, "B T"] | None = None,
                 mask: Bool[Tensor, "B T S"] | None = None, last_only: bool = False) -> Float[Tensor, "B _ V"]: ...


def check_pair(target: ModelFacts, draft: ModelFacts) -> None:
    """Raise ValueError unless a draft token means the same to the target."""
    if target.vocab_size != draft.vocab_size:
        raise ValueError(
            f"the draft speaks another vocabulary ({draft.vocab_size} tokens, the target {target.vocab_size}): "
            "speculative decoding needs a draft trained with the target's tokenizer. If only the padding of the "
            "embedding differs, wrap both with HuggingFaceModel(model, vocab_size=len(tokenizer))")


class HuggingFaceModel:
    """Any `transformers` causal LM with a dynamic KV cache, rows of different lengths included.

    Hugging Face caches have one length for all rows. Here a row's forgotten slots stay in place, hidden by
    the attention mask, and are cut off once no row needs them.
    """

    def __init__(self, model, *, vocab_size: int | None = None) -> None:
        config = model.config
        self.model = model.eval()
        self.vocab_size = vocab_size or config.vocab_size
        self.context = config.max_position_embeddings
        ids = (config.bos_token_id, config.eos_token_id, 0)
        first = next(i for i in ids if i is not None)
        self.start_token = first[0] if isinstance(first, list) else first
        self.device = model.device

    def parameters(self):
        return self.model.parameters()

    def num_parameters(self) -> int:
        return self.model.num_parameters()

    def new_cache(self, batch: int, max_len: int, *, scratch: int = 0) -> "HuggingFaceCache":
        if max_len > self.context:
            raise ValueError(f"a cache of {max_len} tokens is longer than the model's context of {self.context}")
        return HuggingFaceCache(batch, self.model.config)

    def __call__(self, tokens: Int[Tensor, "B T"], *, cache: "HuggingFaceCache",
                 positions: Int[Tensor, "B T"] | None = None, mask: Bool[Tensor, "B T S"] | None = None,
                 last_only: bool = False) -> Float[Tensor, "B _ V"]:
        if positions is None:
            positions = cache.lengths[:, None] + torch.arange(tokens.shape[1])  # B T
        cache.seen = torch.cat((cache.seen, torch.ones(tokens.shape, dtype=torch.bool)), dim=1)
        visible = cache.seen.long() if mask is None else cache.in_their_slots(mask)[:, None]
        logits = self.model(
            tokens, position_ids=positions.to(self.device), attention_mask=visible.to(self.device),
            past_key_values=cache.kv, use_cache=True, logits_to_keep=1 if last_only else 0).logits
        return logits[..., : self.vocab_size]


class HuggingFaceCache:
    """A `DynamicCache` and, for each row, which of its slots count."""

    def __init__(self, batch: int, config) -> None:
        from transformers import DynamicCache

        self.kv = DynamicCache(config=config)
        self.seen = torch.zeros(batch, 0, dtype=torch.bool)  # B S

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        return self.seen.sum(dim=1)

    def end(self, more: int) -> int:
        """The number of slots that a mask must cover when each row gets `more` tokens."""
        return int(self.lengths.max()) + more

    def in_their_slots(self, mask: Bool[Tensor, "B T S"]) -> Bool[Tensor, "B T Z"]:
        """A mask over the tokens of each row as one over the slots, hidden ones included."""
        spread = torch.zeros(*mask.shape[:2], self.seen.shape[1], dtype=torch.bool)
        for row, seen in enumerate(self.seen):
            spread[row, :, seen] = mask[row, :, : int(seen.sum())].to(spread.device)
        return spread

    def rollback(self, lengths: Tensor | int) -> None:
        """Hide the newest slots of each row down to `lengths`; free what no row sees any more."""
        target = torch.as_tensor(lengths).expand(len(self.seen))
        if (target > self.lengths).any() or (target < 0).any():
            raise ValueError(f"cannot roll back from {self.lengths.tolist()} to {target.tolist()}")
        self.seen &= self.seen.cumsum(dim=1) <= target[:, None]
        used = int(self.seen.any(dim=0).nonzero().max()) + 1 if self.seen.any() else 0
        if used < self.seen.shape[1]:
            self.kv.crop(used - self.seen.shape[1])  # minus the number of slots to drop
            self.seen = self.seen[:, :used]

    def keep_rows(self, rows: Tensor) -> None:
        self.kv.batch_select_indices(rows)
        self.seen = self.seen[rows]
