"""Receipts are found by identities: moving or renaming code must change none. Whoever changes one on purpose says so here."""

import hashlib

import pytest

from artifact import experiment, jobs

COMMITTED = {
    # demo: its verdict is about four models, with distances, indicators and equal passes
    "demo": {"models": "28be8d6b0dc0", "evaluations": "ea15e0863509", "jobs": "26e98b001faf"},
    "quick": {"models": "b4af1c577b69", "evaluations": "be6a21e7562f", "jobs": "d5d6693c4bf4"},
    "paper": {"models": "73d22aae1c7d", "evaluations": "97a2f626dd79", "jobs": "f3949db50504"},
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
