"""What 03_white_box measures: Table 1, the same PGD by objective, by steps and by epsilon, Table 2-I and Fig. 3b."""

from artifact.measurements.measurement import Measurement, objective, once
from artifact.profiles import Profile


def table_1(profile: Profile, model: str) -> dict[str, Measurement]:
    """The columns of Table 1 by the names of the paper's CSV, `_8` and `_16` standing for the first and second epsilon."""
    cells = {"clean": Measurement(model, "clean", profile.white_box.images)}
    for name, epsilon in zip(("8", "16"), profile.white_box.epsilons, strict=True):
        for place, steps in zip(("10", "50"), profile.white_box.steps, strict=True):
            cells[f"pgd{place}_tar_{name}"] = _pgd(profile, model, True, steps, epsilon)
            cells[f"pgd{place}_un_{name}"] = _pgd(profile, model, False, steps, epsilon)
    return cells


def _pgd(profile: Profile, model: str, targeted: bool, steps: int, epsilon: float, **changes) -> Measurement:
    plan = profile.white_box
    settings = {"epsilon": epsilon, "steps": steps, "step_size": plan.step_size, "restarts": plan.restarts,
                "objective": objective(profile, model, targeted), **changes}
    return Measurement(model, "pgd", plan.images, targeted, settings)


def objectives(profile: Profile, model: str) -> dict[str, Measurement]:
    """The longer untargeted PGD at the first epsilon under each objective: which one the claim of robustness rests on."""
    steps, epsilon = profile.white_box.steps[1], profile.white_box.epsilons[0]
    return {name: _pgd(profile, model, False, steps, epsilon, objective=name)
            for name in ("cross_entropy", "untargeted_1", "untargeted_2")}


def convergence(profile: Profile, model: str) -> dict[int, Measurement]:
    """PGD with more steps at the first epsilon (Sec. 4.3: "the accuracy converges compared to PGD-50")."""
    plan = profile.white_box
    if model not in plan.convergence_models:
        return {}
    return {steps: _pgd(profile, model, False, steps, plan.epsilons[0]) for steps in [*plan.steps, *plan.convergence_steps]}


def curve(profile: Profile, model: str) -> dict[float, Measurement]:
    """Accuracy against epsilon under the margin objective, which needs no help from the softmax: one short attack, not the worst case."""
    return {epsilon: _pgd(profile, model, False, profile.white_box.steps[0], epsilon, objective="untargeted_2")
            for epsilon in profile.white_box.curve_epsilons}


def carlini_wagner(profile: Profile, model: str) -> dict[str, Measurement]:
    """Table 2, part I (Sec. 4.3): mean minimal l_2 distortion under C&W with the attack's own margin, stronger than App. B.4's."""
    plan = profile.carlini_wagner
    settings = plan.model_dump(exclude={"models", "images"})
    return {name: Measurement(model, "carlini_wagner", plan.images, goal, settings) for name, goal in (("tar", True), ("un", False))}


def plane(profile: Profile) -> Measurement:
    """Fig. 3b: the path of the features of a few inputs, right before the attack, under each objective."""
    plan = profile.plane
    settings = plan.model_dump(exclude={"model", "features"}) | {"of": "images classified rightly"}
    return Measurement(plan.model, "plane", plan.features, settings=settings)


def models(profile: Profile) -> list[str]:
    """The models that 03_white_box is about."""
    return profile.white_box.models


def measurements(profile: Profile, model: str) -> list[Measurement]:
    """Everything that 03_white_box measures of one model, each measurement once."""
    specs = [spec for part in (table_1, objectives, convergence, curve) for spec in part(profile, model).values()]
    if profile.carlini_wagner and model in profile.carlini_wagner.models:
        specs += carlini_wagner(profile, model).values()
    if profile.plane and profile.plane_beside() == model:  # the same method with two features, for Fig. 3b
        specs.append(plane(profile))
    return once(profile, specs)
