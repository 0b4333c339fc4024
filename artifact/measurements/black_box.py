"""What 04_black_box measures: Fig. 4, Table 2-II and Table 3."""

from artifact.experiment import model_identity
from artifact.measurements.measurement import Measurement, objective, once
from artifact.profiles import Profile


def transfer(profile: Profile, substitute: str) -> dict[tuple[str, float], Measurement]:
    """One row of each panel of Fig. 4: crafted on `substitute`, tried on every model; the paper's objective for the substitute."""
    plan, cells = profile.transfer, {}
    for attack, extra in (("pgd", {}), ("mim", {"decay": plan.decay})):
        for epsilon in plan.epsilons:
            settings = {"epsilon": epsilon, "steps": plan.steps, "step_size": plan.step_size,
                        "objective": objective(profile, substitute, False), **extra,
                        "targets": {target: model_identity(profile, target) for target in plan.models}}
            cells[attack, epsilon] = Measurement(substitute, f"transfer_{attack}", plan.images, settings=settings)
    return cells


def spsa(profile: Profile, model: str) -> dict[str, Measurement]:
    """Table 2, part II (Sec. 4.4)."""
    return {f"{name}_{place}": _spsa(profile, model, targeted, epsilon, profile.spsa.evaluations)
            for place, epsilon in zip(("8", "16"), profile.spsa.epsilons, strict=True)
            for name, targeted in (("tar", True), ("un", False))}


def table_3(profile: Profile) -> dict[int, Measurement]:
    """Table 3: SPSA with larger batches on one model at the first epsilon, untargeted."""
    plan = profile.spsa
    return {count: _spsa(profile, plan.table_3_model, False, plan.epsilons[0], count) for count in plan.table_3_evaluations}


def _spsa(profile, model, targeted, epsilon, evaluations) -> Measurement:
    plan = profile.spsa
    settings = {"epsilon": epsilon, "evaluations": evaluations, "steps": plan.steps, "learning_rate": plan.learning_rate,
                "delta": plan.delta, "objective": objective(profile, model, targeted)}
    return Measurement(model, "spsa", plan.images, targeted, settings)


def models(profile: Profile) -> list[str]:
    """The models that 04_black_box is about, each once."""
    sections = [section.models for section in (profile.transfer, profile.spsa) if section]
    return list(dict.fromkeys(model for models in sections for model in models))


def measurements(profile: Profile, model: str) -> list[Measurement]:
    """Everything that 04_black_box measures of one model."""
    specs = list(transfer(profile, model).values()) if profile.transfer and model in profile.transfer.models else []
    if profile.spsa and model in profile.spsa.models:
        specs += spsa(profile, model).values()
    if profile.spsa and model == profile.spsa.table_3_model:
        specs += table_3(profile).values()
    return once(profile, specs)
