"""The verdict's evaluations: a ladder of ever stronger attacks on the same images, and checks that the attacks themselves are sound."""

from artifact import items
from artifact.experiment import Profile, model_identity
from artifact.items import Evaluation
from artifact.methods import RUNGS as RUNGS

PRESET = ("mmc", "mmc-rand", "mmlda")  # losses whose logits are distances to centers of a known norm C


def rungs(profile: Profile, model: str) -> dict[str, Evaluation]:
    """The ladder of one model, weakest first; the three that Table 1's notebook makes too are on more images, the first ones shared."""
    plan, spec = profile.verdict, profile.models[model]
    epsilon, known = profile.white_box.epsilons[0], items.objectives(profile, model)
    margin = known["untargeted_2"].settings
    ladder = {"cross_entropy": known["cross_entropy"]}
    if spec.loss in PRESET:
        ladder["divided"] = _of(profile, model, "pgd", known["cross_entropy"].settings | {"divide_logits": 2 * spec.scale * spec.radius**2})
    ladder |= {
        "untargeted_1": known["untargeted_1"], "untargeted_2": known["untargeted_2"],
        "restarts": _of(profile, model, "pgd", margin | {"restarts": plan.restarts}),
        "multi_targeted": _of(profile, model, "multi_targeted", {"epsilon": epsilon, "steps": plan.steps, "classes": plan.classes}),
    }
    if model in plan.autoattack:
        last = ladder["multi_targeted"]
        left = {"after": {"attack": last.attack, "settings": last.settings}} if plan.autoattack_on == "survivors" else {}
        ladder["autoattack"] = _of(profile, model, "autoattack", {"epsilon": epsilon, **left})
    return ladder


def checks(profile: Profile, model: str) -> dict[str, Evaluation]:
    """What the self-checks need beyond the ladder (after Carlini et al., 2019, and AutoAttack's flags)."""
    plan, white_box = profile.verdict, profile.white_box
    epsilon = white_box.epsilons[0]
    margin = items.objectives(profile, model)["untargeted_2"].settings
    longer = rungs(profile, model)["multi_targeted"].settings
    guessing = {"epsilon": epsilon, "evaluations": plan.queries, "steps": 10, "learning_rate": 2 * epsilon / 10,
                "objective": "untargeted_2"}
    asked = {
        "single_step": ("pgd", margin | {"steps": 1, "step_size": epsilon, "start": "clean", "restarts": 1}),
        "unbounded": ("pgd", margin | {"epsilon": 1.0, "step_size": 0.1, "restarts": 1}),
        "longer": ("multi_targeted", longer | {"steps": 2 * plan.steps}),
        "black_box": ("spsa", guessing),
        "repeated": ("repeated", {}),
    }
    return {name: _of(profile, model, attack, settings, check_images(profile)) for name, (attack, settings) in asked.items()}


def check_images(profile: Profile) -> int:
    """How many of the verdict's images the self-checks, the diagnosis and the libraries are run on."""
    return profile.verdict.check_images or profile.verdict.images


def transfer(profile: Profile) -> dict[str, Evaluation]:
    """Margin PGD crafted on one model and tried on all: by substitute, of which each target needs one that is not itself."""
    plan, white_box = profile.verdict, profile.white_box
    settings = {
        "epsilon": white_box.epsilons[0],
        "steps": white_box.steps[1],
        "step_size": white_box.step_size,
        "objective": "untargeted_2",
        "targets": {target: model_identity(profile, target) for target in plan.models},
    }
    return {substitute: _of(profile, substitute, "transfer_pgd", settings) for substitute in plan.models[:2]}


def diagnosis(profile: Profile, model: str) -> Evaluation:
    """Logit scales, objectives against iterations, and slices of the loss surface around one image."""
    white_box = profile.white_box
    settings = {"epsilon": white_box.epsilons[0], "steps": white_box.steps[1], "step_size": white_box.step_size, "grid": 21}
    return _of(profile, model, "diagnosis", settings, check_images(profile))


def libraries(profile: Profile, model: str) -> Evaluation:
    """The field's libraries, as their users run them, on one model."""
    plan = profile.white_box
    settings = {"epsilon": plan.epsilons[0], "steps": plan.steps[1], "step_size": plan.step_size}
    return _of(profile, model, "libraries", settings, check_images(profile))


def step_time(profile: Profile, model: str, against: str) -> Evaluation:
    """What a loss costs per training step, over another's on the same network."""
    return Evaluation(
        model, "step_time", 1, settings={"against": against, "against_identity": model_identity(profile, against), "rounds": 15}
    )


def models(profile: Profile) -> list[str]:
    """The models that 07_verdict is about: the ladder's, and their other seeds."""
    return [*profile.verdict.models, *(profile.seeds.models if profile.seeds else [])]


def evaluations(profile: Profile, model: str) -> list[Evaluation]:
    """Everything that 07_verdict evaluates of one model; of another seed of a row, its ladder."""
    specs = list(rungs(profile, model).values())
    if model not in profile.verdict.models:
        return specs
    specs += checks(profile, model).values()
    sce, mmc = (profile.find(profile.verdict.models, loss) for loss in ("sce", "mmc"))
    if model == mmc and sce:
        specs.append(step_time(profile, mmc, sce))
    if model in (substitutes := transfer(profile)):
        specs.append(substitutes[model])
    if model in profile.verdict.diagnosed:
        specs.append(diagnosis(profile, model))
        if model == mmc:  # the one that other libraries misjudge
            specs.append(libraries(profile, model))
    return specs


def _of(profile, model, attack, settings, images=None) -> Evaluation:
    return Evaluation(model, attack, images or profile.verdict.images, settings=settings)
