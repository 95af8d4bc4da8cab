"""The episodes that ship with minilab, so that the live chapter needs no search.

python -m minilab.dmpc.ship_data
"""

from dataclasses import replace
from pathlib import Path

from minilab.core.files import package_data
from minilab.dmpc.collect import CPU, collect
from minilab.dmpc.data import Episodes, load_episodes, save_episodes
from minilab.dmpc.envs import HALF_CHEETAH

ASSET = "dmpc/halfcheetah-diverse.safetensors"
SIZES = replace(CPU, episodes=96)  # as many as 0.9 MiB hold


def ship(out: Path) -> Path:
    """Make the set and write it to `out`."""
    return save_episodes(collect(HALF_CHEETAH, "diverse", SIZES), out, how_made="python -m minilab.dmpc.ship_data",
                         what="episodes of HalfCheetah-v5: three in five by the policies of one search for speed, "
                              "the others by policies that go backward, slowly, or briskly, pitch, rise, and hop")


def shipped_episodes() -> Episodes:
    """96 episodes of 200 steps of the diverse tier, as they come with minilab."""
    return load_episodes(ASSET, HALF_CHEETAH)


if __name__ == "__main__":
    print(ship(package_data("assets") / ASSET))
