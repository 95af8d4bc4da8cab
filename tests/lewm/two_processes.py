"""What each of two processes computes in `test_sigreg`: in a file of its own, since they import it anew."""

import torch
import torch.distributed as dist

from minilab.lewm.sigreg import sigreg

SETTINGS = {"directions": 32, "knots": 9}


def shared_loss(rank: int, folder: str) -> None:
    """SIGReg of the rank's half of the rows in `folder`, and its gradient with respect to a shared weight."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weight, rows = torch.load(f"{folder}/given.pt")
    weight.requires_grad_()
    generator = torch.Generator().manual_seed(7 + rank)  # the second process's own directions must not matter
    loss = sigreg(rows.chunk(2, dim=1)[rank] @ weight, generator, group=dist.group.WORLD, **SETTINGS)
    loss.backward()
    dist.all_reduce(weight.grad)
    torch.save((loss.detach(), weight.grad / 2), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
