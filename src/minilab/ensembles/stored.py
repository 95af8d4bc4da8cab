"""Members as files, one each, whose cards say what they depend on."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from minilab.core.weights import load_weights, save_weights
from minilab.ensembles.members import Members, numbers
from minilab.ensembles.model import Stack, stack
from minilab.nn.transformer import Transformer, TransformerConfig


def save_member(members: Members, k: int, path: Path | str, *, card: Mapping, dtype: str = "fp32") -> Path:
    """Write member k to `path`, a file as `core.weights.save_weights` makes it; return the path.

    `card` needs what, how_made and licence. What the member depends on joins it: config, hyper, run, corpus. Raises
    ValueError for a member that diverged.
    """
    if (step := members.diverged[k]) is not None:
        raise ValueError(f"member {k} diverged at step {step}; save the others, or train it again with a lower lr")
    facts = {"config": asdict(members.model.config), "hyper": asdict(members.hypers[k]), "run": numbers(members.run),
             "corpus": members.corpus, **members.unusual}
    return save_weights(members.model.member(k).state_dict(), path, card={**card, **facts}, dtype=dtype)


def load_members(paths: Sequence[Path | str], *, device: torch.device | str = "cpu") -> tuple[Stack, list[dict]]:
    """Members from their files, as one stack, and their cards.

    Raises ValueError unless all have one configuration and one corpus: an ensemble of others is none.
    """
    models, cards = [], []
    for path in paths:
        state, card = load_weights(path, device=device)
        if absent := [key for key in ("config", "corpus") if key not in card]:
            raise ValueError(f"the card of {path} lacks {' and '.join(absent)}; a member's file comes from save_member")
        for key in ("config", "corpus"):
            if cards and card[key] != cards[0][key]:
                raise ValueError(f"{path} has {key} {reprlib.repr(card[key])}, but {paths[0]} has "
                                 f"{reprlib.repr(cards[0][key])}; load members of one configuration and corpus")
        with torch.device("meta"):
            model = Transformer(TransformerConfig(**card["config"]))
        model.load_state_dict(state, assign=True)
        models.append(model)
        cards.append(card)
    return stack(models), cards
