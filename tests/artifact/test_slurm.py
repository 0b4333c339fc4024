"""A profile on a real SLURM: preempted, out of time, a node dead, and the receipts of an undisturbed run."""

import pytest

from tests import slurm


@pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))
def test_slurm_ends_with_the_receipts_of_this_machine(tmp_path):
    told = []
    here, there = slurm.proof(tmp_path, told.append)
    assert len(here) > 5 and here == there
    said = "\n".join(told)
    assert "see CUDA_VISIBLE_DEVICES 0 and 1" in said or "see CUDA_VISIBLE_DEVICES 1 and 0" in said
    assert "has no time left: TIMEOUT" in said and "is dead, with job" in said
