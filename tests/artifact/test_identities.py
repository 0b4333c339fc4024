"""Receipts are found by identities: moving or renaming code must change none. Whoever changes one on purpose says so here."""

import hashlib

import pytest

from artifact import experiment, jobs

COMMITTED = {
    # demo: the four rungs that other profiles leave out
    "demo": {"models": "28be8d6b0dc0", "evaluations": "202c35dea114", "jobs": "5b44ab9d1d9a"},
    "quick": {"models": "b4af1c577b69", "evaluations": "35d58e5a2859", "jobs": "6ed8711f7d00"},
    "paper": {"models": "73d22aae1c7d", "evaluations": "9571089993db", "jobs": "3fc8e3a44581"},
}


def digest(lines) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def evaluations(profile):
    """The identity and receipt name of every evaluation that the profile plans."""
    for _, _, room in jobs.TABLES:
        for model in room.models(profile):
            for spec in room.measurements(profile, model):
                yield f"{spec.model} {spec.identity(profile)} {spec.path(profile).name}"


@pytest.mark.parametrize("name", ["demo", "quick", "paper"])
def test_identities_are_those_that_receipts_were_written_under(name):
    profile = experiment.load_profile(name)
    models = [f"{model} {experiment.model_identity(profile, model)}" for model in profile.models]
    receipts = sorted(job.receipt.name for job in jobs.plan(profile))
    assert {"models": digest(models), "evaluations": digest(sorted(set(evaluations(profile)))), "jobs": digest(receipts)} == COMMITTED[name]
