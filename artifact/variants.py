"""What Tables 4 and 5 and the paper's open variants (App. B) are made of: evaluations, as in artifact.items."""

from artifact import items
from artifact.experiment import CLASSES, Profile
from artifact.items import Evaluation

GROUPS = ("elastic", "hierarchical", "forms", "radius")


def table_4(profile: Profile, model: str) -> dict[str, Evaluation]:
    """Clean accuracy, the shorter PGD, SPSA and C&W on a data set of 100 classes; then the margin, which the paper has not."""
    cells = {column: spec for column, spec in items.table_1(profile, model).items() if not column.startswith("pgd50")}
    if profile.spsa:
        cells |= {f"spsa_{column}": spec for column, spec in items.spsa(profile, model).items()}
    if profile.carlini_wagner:
        cells |= {f"cw_{goal}": spec for goal, spec in items.carlini_wagner(profile, model).items()}
    return cells | {"margin": items.objectives(profile, model)["untargeted_2"]}


def table_5(profile: Profile, model: str) -> dict[str, Evaluation]:
    """Table 1's columns, and the margin."""
    return {**items.table_1(profile, model), "margin": items.objectives(profile, model)["untargeted_2"]}


def variant(profile: Profile, model: str) -> dict[str, Evaluation]:
    """Clean accuracy, the right superclass, the paper's adaptive attack and the margin."""
    by_objective = items.objectives(profile, model)
    cells = {"clean": items.table_1(profile, model)["clean"]}
    if CLASSES[profile.dataset(model)] == 100:
        cells["superclass"] = Evaluation(model, "superclass", profile.white_box.images)
    return cells | {name: by_objective[name] for name in ("untargeted_1", "untargeted_2")}


def uncertainty(profile: Profile, model: str) -> Evaluation:
    """Scores of clean and attacked images; the attacked ones under the paper's objective and under the margin."""
    plan = profile.white_box
    return Evaluation(model, "scores", plan.images, settings={
        "epsilon": plan.epsilons[0], "steps": plan.steps[0], "step_size": plan.step_size,
        "objectives": list(dict.fromkeys([items.objective(profile, model, False), "untargeted_2"]))})


def groups(profile: Profile) -> dict[str, list[str]]:
    """The profile's variants by what they vary."""
    return {name: getattr(profile.variants, name) for name in GROUPS if getattr(profile.variants, name)} if profile.variants else {}


def models(profile: Profile) -> list[str]:
    """The models that 06_cifar100 is about, each once."""
    named = list(profile.cifar100.models) if profile.cifar100 else []
    named += [model for group in (profile.depth.networks.values() if profile.depth else []) for model in group]
    named += [model for group in groups(profile).values() for model in group]
    return list(dict.fromkeys([*named, *(profile.variants.uncertainty if profile.variants else [])]))


def evaluations(profile: Profile, model: str) -> list[Evaluation]:
    """Everything that 06_cifar100 evaluates of one model, each evaluation once."""
    specs = []
    if profile.cifar100 and model in profile.cifar100.models:
        specs += table_4(profile, model).values()
    if profile.depth and any(model in group for group in profile.depth.networks.values()):
        specs += table_5(profile, model).values()
    if any(model in group for group in groups(profile).values()):
        specs += variant(profile, model).values()
    if profile.variants and model in profile.variants.uncertainty:
        specs.append(uncertainty(profile, model))
    return items.once(profile, specs)
