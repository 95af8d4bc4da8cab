"""For every test: no window, one torch thread, and minilab's array shapes checked at run time.

The annotations of `minilab` (jaxtyping) are checked by beartype in the tests only: the hook rewrites the
package when it is imported, so it must be installed before anything imports it.
"""

import os

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("MPLBACKEND", "Agg")
install_import_hook("minilab", "typecheck.checked")

import minilab  # noqa: E402, F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import torch  # noqa: E402

from minilab.core.device import cache_dir  # noqa: E402

torch.set_num_threads(1)
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["MINILAB_CACHE"] = str(cache_dir() / worker)  # two processes would make the same data at one time


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium. One at a time: Playwright refuses a second one while the first is open."""
    from browser import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def lab(request):
    """The instructor notebook that a module of tests is about, its `LAB`."""
    from instructor import Lab

    return Lab(request.module.LAB)


@pytest.fixture(scope="module")
def solved(lab) -> dict:
    """Its variables with all solutions in place."""
    return lab.namespace()
