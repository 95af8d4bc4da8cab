"""The packages that the training corpus is made of, their licenses, and the pages that are left out."""

import re

# Debian package -> license of its text. Wanted: many pages written by hand, few generated tables.
DEBIAN = {
    "python3.11-doc": "PSF-2.0",
    "linux-doc-6.1": "GPL-2.0-only",
    "python-sqlalchemy-doc": "MIT",
    "python-pandas-doc": "BSD-3-Clause",
    "python-sklearn-doc": "BSD-3-Clause",
    "python-sympy-doc": "BSD-3-Clause",
    "python-statsmodels-doc": "BSD-3-Clause",
    "python-celery-doc": "BSD-3-Clause",
    "python-skimage-doc": "BSD-3-Clause",
    "python-astropy-doc": "BSD-3-Clause",
    "python-dask-doc": "BSD-3-Clause",
    "python-xarray-doc": "Apache-2.0",
    "cmake-doc": "BSD-3-Clause",
    "llvm-14-doc": "Apache-2.0 WITH LLVM-exception",
    "clang-14-doc": "Apache-2.0 WITH LLVM-exception",
    "python-setuptools-doc": "MIT",
    "sphinx-doc": "BSD-2-Clause",
    "python-pytest-doc": "MIT",
    "cython-doc": "Apache-2.0",
    "python-tornado-doc": "Apache-2.0",
    "python-flask-doc": "BSD-3-Clause",
    "python-aiohttp-doc": "Apache-2.0",
    "python-cryptography-doc": "Apache-2.0 OR BSD-3-Clause",
    "twisted-doc": "MIT",
    "nova-doc": "Apache-2.0",
    "neutron-doc": "Apache-2.0",
    "cinder-doc": "Apache-2.0",
    "swift-doc": "Apache-2.0",
    "keystone-doc": "Apache-2.0",
    "glance-doc": "Apache-2.0",
    "ironic-doc": "Apache-2.0",
    "heat-doc": "Apache-2.0",
    "python-simpy-doc": "MIT",
    "python-mpmath-doc": "BSD-3-Clause",
    "python-tables-doc": "BSD-3-Clause",
    "python-kombu-doc": "BSD-3-Clause",
    "python-distributed-doc": "BSD-3-Clause",
    "python-attr-doc": "MIT",
    "python-werkzeug-doc": "BSD-3-Clause",
}
# The same for packages that hold web pages or pod instead: license, and which files.
PAGES = {
    "postgresql-doc-15": ("PostgreSQL", r"html/"),
    "python-django-doc": ("BSD-3-Clause", r"html/(intro|topics|ref|howto|faq|misc)"),
    "sqlite3-doc": ("blessing (public domain)", r"sqlite3/[^/]*html"),
    "apache2-doc": ("Apache-2.0", r"manual/en/"),
    "rust-doc": (
        "MIT OR Apache-2.0",
        r"html/(book|reference|nomicon|rust-by-example|edition-guide|embedded-book|rustc|"
        r"rustdoc|unstable-book|cargo)/|html/std/(\w+/)?(index|keyword|primitive)[^/]*$",
    ),
    "perl-doc": ("Artistic-1.0-Perl OR GPL-1.0-or-later", r"\.pod$"),
    "nodejs-doc": ("MIT", r"api/(?!all\b)"),
    "swi-prolog-doc": ("BSD-2-Clause", r"Manual/"),
    "python-scrapy-doc": ("BSD-3-Clause", r"html/(intro|topics|faq)"),
    "python-scipy-doc": ("BSD-3-Clause", r"html/(tutorial|dev)/"),
    "zsh-doc": ("MIT-like (Zsh)", r"html"),
    "erlang-doc": (
        "Apache-2.0",
        r"erlang-doc/doc/|_(chapter|guide|intro|overview|ug)[^/]*$|lib/(stdlib|kernel)-",
    ),
}
SKIPPED = re.compile(
    r"translations/|/generated/|/auto_examples/|change_?log|(?:^|/)changes|release_?notes|releases?/|"
    r"(?:^|/)(?:history|news|contributors|authors|thanks|licen[cs]e|copyright)\b|whats_?new/v|"
    r"autosummary|sphinxext/|/print\.html|/genindex|/search\.html|/toc\.html|perl\d+delta|_modules/|/perltoc|"
    r"(?:first|second|2018)-edition|keyword_index|doc_index",
    re.IGNORECASE,
)
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|Unlicense|CC0|zlib)\b", re.IGNORECASE
)
COPYLEFT = re.compile(r"GPL|General Public|\bMPL\b|Mozilla|Proprietary|Commercial|EUPL|CeCILL", re.IGNORECASE)
HELD_OUT = {
    "python3.11-doc": 0.25
}  # share of documents for validation, higher where the shipped slice comes from
