"""The worlds of the chapter, from a dot in two rooms to a robot's hand."""

from minilab.lewm.worlds.base import WORLDS, Policy, World, distances, world_named

__all__ = ["WORLDS", "Policy", "World", "distances", "world_named"]
