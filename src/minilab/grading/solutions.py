"""The gap of an exercise: what stands between the solution markers, and what students get in its place."""

import re

GAP = re.compile(r"^( *)# BEGIN SOLUTION\n(.*?)^ *# END SOLUTION\n?", re.DOTALL | re.MULTILINE)


def stub(source: str) -> str:
    """A solution cell as students get it: an ellipsis in each gap."""
    return GAP.sub(r"\1...\n", source)
