"""The engine on the double as it should be: every system, every known fault of the framework."""

import pytest

from tests.mps.double.faults import FAULTS
from tests.mps.suite import run_suite


@pytest.mark.parametrize("version", [(16, 3), (17, 4), (18, 0), (18, 1), (26, 0), (26, 2)])
def test_on_every_system(version):
    run_suite(version=version)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_known_fault_of_the_framework_shows(fault):
    run_suite(faults=[fault])


def test_no_known_fault_shows_where_all_are_present():
    run_suite(faults=FAULTS)
