import pytest

from minilab.pacbayes import data
from minilab.pacbayes.phenomena.task import Task, rows


@pytest.fixture(scope="session")
def digits() -> Task:
    """1000 of scikit-learn's digits to train on, the other 797 to test on."""
    pytest.importorskip("sklearn")
    return rows(data.digits(test=797))
