"""K language models in one program, for ensembles and sweeps.

A small model's products are too small to keep a processor busy, and each costs a call. K models of one shape take one
call for all: their weights are stacked into tensors (K, ...), and a product is a batched product. Notable:

- The network is `nn.transformer.Transformer`, not a second one. Members are folded into the batch, which becomes K·B
  rows, and only what has weights (linear maps, norms, the embedding) unfolds them. Attention has none: for it they are
  more rows. So one cache serves all members, and `Stack.folded` generates with `speculative.decoding` as any model.
- Members share nothing. Row k of a tensor is the weight of member k under the same name, and comes out as a
  `Transformer` (`Stack.member`).

Shapes: K members, B batch, T tokens, V vocabulary, D width; a linear map takes I numbers to O.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilab.nn.transformer import Block, RMSNorm, Transformer, TransformerConfig


class StackedLinear(nn.Module):
    """Member k maps its own rows by its own matrix."""

    def __init__(self, K: int, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.new_empty(K, *linear.weight.shape))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.new_empty(K, *linear.bias.shape))

    def forward(self, x: Float[Tensor, "KB T I"]) -> Float[Tensor, "KB T O"]:
        K, O, I = self.weight.shape  # noqa: E741
        rows, weight = x.reshape(K, -1, I), self.weight.transpose(1, 2)  # K BT I, K I O
        y = torch.bmm(rows, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)
        return y.view(*x.shape[:-1], O)


class StackedRMSNorm(nn.Module):
    """`RMSNorm` with a gain of each member's own."""

    def __init__(self, K: int, norm: RMSNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.new_empty(K, *norm.weight.shape))
        self.eps = norm.eps

    def forward(self, x: Float[Tensor, "KB *b D"]) -> Float[Tensor, "KB *b D"]:
        K, D = self.weight.shape
        y = F.rms_norm(x, (D,), None, self.eps).reshape(K, -1, D) * self.weight[:, None].to(x.dtype)
        return y.view(x.shape)


class StackedEmbedding(nn.Module):
    """Member k looks its tokens up in its own table."""

    def __init__(self, K: int, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = nn.Parameter(embedding.weight.new_empty(K, *embedding.weight.shape))

    def forward(self, tokens: Int[Tensor, "KB T"]) -> Float[Tensor, "KB T D"]:
        K, V, D = self.weight.shape
        first = torch.arange(0, K * V, V, device=tokens.device)  # of each member's rows in the tables one below another
        rows = tokens.reshape(K, -1) + first[:, None]  # K BT
        return F.embedding(rows.view(tokens.shape), self.weight.reshape(K * V, D))


STACKED = {nn.Linear: StackedLinear, RMSNorm: StackedRMSNorm, nn.Embedding: StackedEmbedding}


def token_losses(states: Float[Tensor, "K n D"], heads: Float[Tensor, "K V D"], targets: Int[Tensor, "K n"]
                 ) -> Float[Tensor, "K"]:
    """Mean cross-entropy in nats of each member's last states, computed in float32."""
    logits = torch.bmm(states, heads.mT).float()  # K n V
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(dim=1)


def _plain(fn: Callable) -> Callable:
    return fn


class Stack(nn.Module):
    """K decoders of one configuration. `stack` makes one of K models, `seeded` of K seeds.

    Raises ValueError for a tied head, which would decay with the matrices or stay with the embedding, but not both.
    """

    def __init__(self, config: TransformerConfig, K: int, *, dtype: torch.dtype = torch.float32, device="cpu") -> None:
        super().__init__()
        if K < 1:
            raise ValueError(f"a stack of {K} members: give at least 1")
        if config.tie_embeddings:
            raise ValueError("a stack's head is its own matrix: give a configuration with tie_embeddings=False")
        self.config, self.K = config, K
        with torch.device("meta"):
            self.folded = Transformer(config).to(dtype)  # reads K·B rows, the members one after another
        for module in list(self.folded.modules()):
            for name, child in module.named_children():
                for kind, stacked in STACKED.items():
                    if isinstance(child, kind):
                        setattr(module, name, stacked(K, child))
        self.to_empty(device=device)
        self.plain_losses()

    def compile_losses(self, *, backend: str = "inductor") -> None:
        """From now on `losses` runs its parts through `torch.compile`: seconds for a shape, however many blocks.

        A loss of another kind does so too with `part`, which takes a function and returns the one to call.
        """
        torch._dynamo.config.recompile_limit = 64  # shapes of all stacks of a process together; the default is 8
        self.part = partial(torch.compile, backend=backend, dynamic=False)

    def plain_losses(self) -> None:
        """Undo `compile_losses`."""
        self.part = _plain

    def forward(self, tokens: Int[Tensor, "K B T"]) -> Float[Tensor, "K B T V"]:
        """Logits of the next token after each of `tokens`, which each member has of its own."""
        return self.folded(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    def losses(self, windows: Int[Tensor, "K B T1"], *, read: Int[Tensor, "K B T"] | None = None) -> Float[Tensor, "K"]:
        """Mean cross-entropy in nats of each token of a window given those before it, a mean a member.

        With `read` the members read that in the place of the windows' tokens, and are to predict the windows still.
        """
        at_once = self.K if windows.is_cuda else 1  # one's logits fit a processor's cache; a GPU likes large kernels
        states, loss = self.states(windows[..., :-1] if read is None else read), self.part(token_losses)
        parts = (x.split(at_once) for x in (states, self.folded.head.weight, windows[..., 1:].flatten(1)))
        return torch.cat([loss(*some) for some in zip(*parts, strict=True)])

    def states(self, tokens: Int[Tensor, "K B T"]) -> Float[Tensor, "K BT D"]:
        """What each member's head reads."""
        net = self.folded
        cos, sin = net.rope_table()[:, : tokens.shape[2]]
        x, block = net.embed(tokens.flatten(0, 1)), self.part(Block.forward)
        for one in net.blocks:
            x = block(one, x, cos, sin, None, True, None)
        return net.norm(x).reshape(self.K, -1, x.shape[-1])

    @property
    def device(self) -> torch.device:
        return self.folded.device

    def member(self, k: int) -> Transformer:
        """A copy of member k."""
        with torch.device("meta"):
            model = Transformer(self.config)
        model.load_state_dict({name: t[k].clone() for name, t in self.folded.state_dict().items()}, assign=True)
        return model


def stack(models: Sequence[Transformer]) -> Stack:
    """Copies of models, stacked. Raises ValueError for none, or for models of different configurations."""
    configs = list({model.config: None for model in models})
    if len(configs) != 1:
        raise ValueError(f"{len(models)} models of {len(configs)} configurations; members of a stack have one: "
                         f"{configs}")
    weight = models[0].embed.weight
    result = Stack(configs[0], len(models), dtype=weight.dtype, device=weight.device)
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, t in result.folded.named_parameters():
            t.copy_(torch.stack([state[name] for state in states]))
    return result


def seeded(config: TransformerConfig, seeds: Sequence[int]) -> Stack:
    """Members as they begin: member k is what `torch.manual_seed(seeds[k]); Transformer(config)` gives on the CPU."""
    models = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.default_generator.manual_seed(seed)
            models.append(Transformer(config))
    return stack(models)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's parameters, as float32."""
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
