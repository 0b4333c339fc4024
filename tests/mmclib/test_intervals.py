"""Intervals of a share: values worked by hand, what is impossible, and no torch behind them."""

import subprocess
import sys

import pytest

from mmclib import intervals


def test_wilson_interval_against_the_formula_worked_by_hand():
    # 8 of 10 at 95 %: the worked value of Wilson's interval is (0.4902, 0.9433)
    low, high = intervals.wilson_interval(8, 10)
    assert low == pytest.approx(0.49016, abs=1e-4) and high == pytest.approx(0.94331, abs=1e-4)
    assert intervals.wilson_interval(0, 10)[0] == 0 and intervals.wilson_interval(10, 10)[1] == 1
    with pytest.raises(ValueError, match="successes must lie"):
        intervals.wilson_interval(11, 10)


def test_clopper_and_pearsons_interval_against_its_closed_forms():
    # With no hit in n the upper end solves (1 - p)^n = 1/2 %; with all hits it is the mirror image.
    assert intervals.binomial_interval(0, 10) == pytest.approx((0.0, 1 - 0.005 ** 0.1))
    assert intervals.binomial_interval(10, 10) == pytest.approx((0.005 ** 0.1, 1.0))
    low, high = intervals.binomial_interval(8, 10, confidence=0.95)
    assert low == pytest.approx(0.4439, abs=1e-4) and high == pytest.approx(0.9748, abs=1e-4)


def test_an_interval_needs_no_torch():
    code = "import sys; from mmclib import intervals; intervals.wilson_interval(8, 10); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("confidence", [1.5, 0.0, float("nan")])
def test_every_interval_refuses_a_confidence_that_is_none(confidence):
    for ask in (lambda: intervals.mean_interval(0.0, 1.0, 5, confidence), lambda: intervals.binomial_interval(1, 2, confidence),
                lambda: intervals.wilson_interval(1, 2, confidence)):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            ask()
