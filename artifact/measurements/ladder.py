"""What 07_verdict measures: a ladder of ever stronger attacks on the same images, and whether the attacks themselves are sound."""

from artifact.experiment import Profile, model_identity
from artifact.measurements import white_box
from artifact.measurements.measurement import Measurement, num_classes
from artifact.methods import rungs as rung_titles

# Optional rungs: cross-entropy and the margin of probabilities, which need logits of a scale that the softmax does not saturate at.
BY_SCALE = {"gap": {"divide_logits": "gap"}, "pma": {"objective": "probability_margin"},
            "pma_gap": {"objective": "probability_margin", "divide_logits": "gap"}}
HALVES = 4  # of the first epsilon, from it downwards, in the comparison at equal passes
GUESSES = 10  # steps of SPSA in the self-checks
KNOWN_NORM = ("mmc", "mmc-rand", "mmlda")  # losses whose logits are distances to centers of a known norm C


def titles(profile: Profile) -> list[str]:
    """The names of the rungs that the profile's ladder has, in their order: optional ones and AutoAttack where it asks for them."""
    plan = profile.verdict
    left_out = {*BY_SCALE, "malt"} - set(plan.more_rungs) | ({"autoattack"} if not plan.autoattack else set())
    return [title for name, title in rung_titles(profile).items() if name not in left_out]


def rungs(profile: Profile, model: str) -> dict[str, Measurement]:
    """The ladder of one model, in the order of what each rung adds.

    The three that Table 1's notebook makes too are on more images, the first ones shared.
    """
    plan, spec = profile.verdict, profile.models[model]
    epsilon, known = profile.white_box.epsilons[0], white_box.objectives(profile, model)
    margin = known["untargeted_2"].settings
    ladder = {"cross_entropy": known["cross_entropy"]}
    if spec.loss in KNOWN_NORM:
        ladder["divided"] = _of(profile, model, "pgd", known["cross_entropy"].settings | {"divide_logits": 2 * spec.scale * spec.radius**2})
    every = {"epsilon": epsilon, "steps": plan.steps, "classes": plan.classes}
    ladder |= {name: _of(profile, model, "pgd", known["cross_entropy"].settings | changes)
               for name, changes in BY_SCALE.items() if name in plan.more_rungs}
    ladder |= {
        "untargeted_1": known["untargeted_1"], "untargeted_2": known["untargeted_2"],
        "restarts": _of(profile, model, "pgd", margin | {"restarts": plan.restarts}),
    }
    if "malt" in plan.more_rungs:
        ladder["malt"] = _of(profile, model, "multi_targeted", every | {"classes": min(3, plan.classes), "order": "malt"})
    ladder["multi_targeted"] = _of(profile, model, "multi_targeted", every)
    if model in plan.autoattack:
        last = ladder["multi_targeted"]
        left = {"after": {"attack": last.attack, "settings": last.settings}} if plan.autoattack_on == "survivors" else {}
        ladder["autoattack"] = _of(profile, model, "autoattack", {"epsilon": epsilon, **left})
    return ladder


def checks(profile: Profile, model: str) -> dict[str, Measurement]:
    """What the self-checks need beyond the ladder (after Carlini et al., 2019, and AutoAttack's flags)."""
    plan, epsilon = profile.verdict, profile.white_box.epsilons[0]
    margin = white_box.objectives(profile, model)["untargeted_2"].settings
    longer = rungs(profile, model)["multi_targeted"].settings
    guessing = {"epsilon": epsilon, "evaluations": plan.queries, "steps": GUESSES, "learning_rate": 2 * epsilon / GUESSES,
                "objective": "untargeted_2"}
    asked = {
        "single_step": ("pgd", margin | {"steps": 1, "step_size": epsilon, "start": "clean", "restarts": 1}),
        "unbounded": ("pgd", margin | {"epsilon": 1.0, "step_size": 0.1, "restarts": 1}),
        "longer": ("multi_targeted", longer | {"steps": 2 * plan.steps, "draw": 1}),  # from other random starts
        "black_box": ("spsa", guessing),
        "repeated": ("repeated", {}),
    }
    return {name: _of(profile, model, attack, settings, check_images(profile)) for name, (attack, settings) in asked.items()}


def check_images(profile: Profile) -> int:
    """How many of the verdict's images the self-checks, the diagnosis and the libraries are run on."""
    return profile.verdict.check_images or profile.verdict.images


def transfer(profile: Profile) -> dict[str, Measurement]:
    """Margin PGD crafted on each model and tried on all, by substitute: a target's own kind tells most about it."""
    plan, pgd = profile.verdict, profile.white_box
    settings = {
        "epsilon": pgd.epsilons[0],
        "steps": pgd.steps[1],
        "step_size": pgd.step_size,
        "objective": "untargeted_2",
        "targets": {target: model_identity(profile, target) for target in plan.models},
    }
    return {substitute: _of(profile, substitute, "transfer_pgd", settings) for substitute in plan.models}


def distances(profile: Profile, model: str) -> dict[str, Measurement]:
    """The least distances of the images in l_inf and l_2, and (where boundaries are hyperplanes) the margins of their features."""
    plan = profile.verdict
    if not plan.distances or model not in plan.models:
        return {}
    found = {norm: Measurement(model, attack, plan.distances, settings={"steps": plan.distance_steps})
             for norm, attack in (("linf", "fmn"), ("l2", "ddn"))}
    return found if profile.models[model].loss == "lgm" else found | {"feature": Measurement(model, "feature_margin", plan.distances)}


def indicators(profile: Profile, model: str) -> dict[str, Measurement]:
    """Indicators of attack failure: of the model, under "model", and of each rung that is an attack of ours."""
    plan = profile.verdict
    if not plan.indicators or model not in plan.models:
        return {}
    surface = {"epsilon": profile.white_box.epsilons[0], "points": 100}
    return {"model": Measurement(model, "stability", plan.indicators, settings=surface)} | {
        name: Measurement(model, "indicators", plan.indicators, settings=spec.settings | {"of": spec.attack})
        for name, spec in rungs(profile, model).items() if spec.attack != "autoattack"}


def side_by_side(profile: Profile) -> list[str]:
    """The verdict's models of SCE and MMC, as they are and trained adversarially (untargeted): what the claims are about."""
    return [model for model in profile.verdict.models
            if (spec := profile.models[model]).loss in ("sce", "mmc") and spec.adversarial in (None, "untargeted")]


def matched(profile: Profile, model: str) -> dict[str, Measurement]:
    """The rungs of SCE and MMC, each with as many restarts or steps as the same number of passes allows, at epsilon and its halves."""
    plan = profile.verdict
    if not plan.matched or model not in side_by_side(profile):
        return {}
    epsilons = [profile.white_box.epsilons[0] / 2**power for power in range(HALVES)]
    found = {}
    for name, spec in rungs(profile, model).items():
        if name in ("restarts", "autoattack"):  # the margin has its restarts here; AutoAttack spends what it likes
            continue
        settings = {key: value for key, value in spec.settings.items() if key != "epsilon"}
        if spec.attack == "pgd":  # a restart of n steps takes n backward and n + 1 forward passes, and the first look is one
            settings["steps"] = min(settings["steps"], (plan.passes - 2) // 2)
            settings["restarts"] = max(1, (plan.passes - 1) // (2 * settings["steps"] + 1))
        else:
            looks = 2 * (num_classes(profile, model) - 1) * (settings.get("order") == "malt")
            tries = min(settings["classes"], num_classes(profile, model) - 1)
            settings["steps"] = max(1, ((plan.passes - 1 - looks) // tries - 1) // 2)
        found[name] = Measurement(model, "matched", plan.matched,
                                 settings=settings | {"of": spec.attack, "epsilons": epsilons, "budget": plan.passes})
    return found


def deeper(profile: Profile, model: str) -> list[Measurement]:
    """What the profile asks of a model beyond ladder and checks: distances (with the curve that bounds them), indicators, equal passes."""
    measured = distances(profile, model)
    bounds = white_box.curve(profile, model) if measured else {}
    return [spec for part in (measured, bounds, indicators(profile, model), matched(profile, model)) for spec in part.values()]


def diagnosis(profile: Profile, model: str) -> Measurement:
    """Logit scales, objectives against iterations, and slices of the loss surface around one image."""
    plan = profile.white_box
    settings = {"epsilon": plan.epsilons[0], "steps": plan.steps[1], "step_size": plan.step_size, "grid": 21}
    return _of(profile, model, "diagnosis", settings, check_images(profile))


def libraries(profile: Profile, model: str) -> Measurement:
    """The field's libraries, as their users run them, on one model."""
    plan = profile.white_box
    settings = {"epsilon": plan.epsilons[0], "steps": plan.steps[1], "step_size": plan.step_size}
    return _of(profile, model, "libraries", settings, check_images(profile))


def step_time(profile: Profile, model: str, against: str) -> Measurement:
    """What a loss costs per training step, over another's on the same network."""
    return Measurement(model, "step_time", 1, settings={
        "against": against, "against_identity": model_identity(profile, against), "rounds": 15,
        "batch_size": profile.network(model).batch_size})


def models(profile: Profile) -> list[str]:
    """The models that 07_verdict is about: the ladder's, and their other seeds."""
    return [*profile.verdict.models, *(profile.seeds.models if profile.seeds else [])] if profile.verdict else []


def measurements(profile: Profile, model: str) -> list[Measurement]:
    """Everything that 07_verdict measures of one model; of another seed of a row, its ladder."""
    specs = list(rungs(profile, model).values())
    if model not in profile.verdict.models:
        return specs
    specs += checks(profile, model).values()
    sce, mmc = (profile.find(profile.verdict.models, loss) for loss in ("sce", "mmc"))
    if model == mmc and sce:
        specs.append(step_time(profile, mmc, sce))
    specs.append(transfer(profile)[model])
    if model in profile.verdict.diagnosed:
        specs.append(diagnosis(profile, model))
        if model == mmc:  # the one that other libraries misjudge
            specs.append(libraries(profile, model))
    return specs + deeper(profile, model)


def _of(profile, model, attack, settings, images=None) -> Measurement:
    return Measurement(model, attack, images or profile.verdict.images, settings=settings)
