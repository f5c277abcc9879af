"""The faults of `tests/faults.py` still fit the code; that script says whether tests notice."""

import pytest

from tests.faults import FAULTS, ROOT, broken


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_one_line_of_code_that_is_there(fault):
    changed = broken(fault, ROOT)
    compile(changed, fault.file, "exec")
    assert (ROOT / fault.near).exists()


def test_there_are_thirty():
    assert len({fault.name for fault in FAULTS}) == 30
