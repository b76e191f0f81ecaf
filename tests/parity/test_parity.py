"""Every stored output of the published implementation, within its bounds."""

from parity.bounds import violations
from parity.cases import Case
from parity.runners import run_and_measure


def test_case(case: Case, precision: str):
    results = run_and_measure(case, precision)
    assert results
    assert not violations(results)
