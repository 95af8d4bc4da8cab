"""What each of two processes computes in `test_sigreg` and `test_parallel`: in a file of its own, since they import it
anew."""

import dataclasses

import torch
import torch.distributed as dist
from lewm.test_learn import TINY, Clip, draw, fresh, settings
from torch.nn.parallel import DistributedDataParallel

from minilab.lewm.learn import learn
from minilab.lewm.sigreg import sigreg

SETTINGS = {"directions": 32, "knots": 9}
STEPS, SHARE = 4, 16  # of training, and clips of each process in each


def shared_loss(rank: int, folder: str) -> None:
    """SIGReg of the rank's half of the rows in `folder`, and its gradient with respect to a shared weight."""
    meet(rank, folder)
    weight, rows = torch.load(f"{folder}/given.pt")
    weight.requires_grad_()
    generator = torch.Generator().manual_seed(7 + rank)  # the second process's own directions must not matter
    loss = sigreg(rows.chunk(2, dim=1)[rank] @ weight, generator, group=dist.group.WORLD, **SETTINGS)
    loss.backward()
    dist.all_reduce(weight.grad)
    torch.save((loss.detach(), weight.grad / 2), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def shared_training(rank: int, folder: str, norm: str) -> None:
    """A small model after some steps with the rank's half of each batch, and its losses."""
    meet(rank, folder)

    def half(n: int, generator: torch.Generator) -> Clip:
        return Clip(*(part.chunk(2)[rank] for part in draw(2 * n, generator)))

    model = DistributedDataParallel(fresh(dataclasses.replace(TINY, head_norm=norm)))
    history = learn(model, half, settings(STEPS, batch=SHARE), group=dist.group.WORLD)
    torch.save((model.module.state_dict(), history.log.losses), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def meet(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
