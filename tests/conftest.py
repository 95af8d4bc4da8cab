"""For every test: no window, one torch thread, and minilab's array shapes checked at run time.

The annotations of `minilab` (jaxtyping) are checked by beartype in the tests only: the hook rewrites the
package when it is imported, so it must be installed before anything imports it.
"""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("MPLBACKEND", "Agg")
install_import_hook("minilab", "typecheck.checked")

import minilab  # noqa: E402, F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import torch  # noqa: E402

torch.set_num_threads(1)
