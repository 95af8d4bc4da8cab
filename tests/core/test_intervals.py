import pytest
from scipy import stats

from minilab.core.intervals import wilson


@pytest.mark.parametrize("right, n", [(0, 10), (3, 10), (250, 1000), (10, 10)])
def test_interval_is_wilsons(right, n):
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-4)
