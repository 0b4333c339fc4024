"""What 06_cifar100 measures: Tables 4 and 5 and the variants that the paper leaves open (App. B)."""

from artifact.experiment import CLASSES, Profile
from artifact.measurements import black_box, white_box
from artifact.measurements.measurement import ADAPTIVE, Measurement, objective, once

GROUPS = ("elastic", "hierarchical", "forms", "inner", "radius")


def table_4(profile: Profile, model: str) -> dict[str, Measurement]:
    """Clean accuracy, the shorter PGD, SPSA and C&W on a data set of 100 classes; then the margin, which the paper has not."""
    cells = {column: spec for column, spec in white_box.table_1(profile, model).items() if not column.startswith("pgd50")}
    if profile.spsa:
        cells |= {f"spsa_{column}": spec for column, spec in black_box.spsa(profile, model).items()}
    if profile.carlini_wagner:
        cells |= {f"cw_{goal}": spec for goal, spec in white_box.carlini_wagner(profile, model).items()}
    return cells | {"margin": white_box.objectives(profile, model)["untargeted_2"]}


def table_5(profile: Profile, model: str) -> dict[str, Measurement]:
    """Table 1's columns, and the margin."""
    return {**white_box.table_1(profile, model), "margin": white_box.objectives(profile, model)["untargeted_2"]}


def variant(profile: Profile, model: str) -> dict[str, Measurement]:
    """Clean accuracy, the right superclass, the paper's adaptive attack and the margin."""
    by_objective = white_box.objectives(profile, model)
    cells = {"clean": white_box.table_1(profile, model)["clean"]}
    if CLASSES[profile.dataset(model)] == 100:
        cells["superclass"] = Measurement(model, "superclass", profile.white_box.images)
    return cells | {name: by_objective[name] for name in ("untargeted_1", "untargeted_2")}


def uncertainty(profile: Profile, model: str) -> Measurement:
    """Scores of clean and attacked images; the attacked ones under the paper's objectives and under the margin.

    L_Ada^{tar,1} draws an image to another class's center: of the paper's objectives the one that makes a wrong answer look certain.
    """
    plan, own = profile.white_box, objective(profile, model, False)
    named = [own, "untargeted_2", *(["targeted_1"] if profile.models[model].loss in ADAPTIVE else [])]
    return Measurement(model, "scores", plan.images, settings={
        "epsilon": plan.epsilons[0], "steps": plan.steps[0], "step_size": plan.step_size,
        "objectives": list(dict.fromkeys(named))})


def groups(profile: Profile) -> dict[str, list[str]]:
    """The profile's variants by what they vary."""
    return {name: getattr(profile.variants, name) for name in GROUPS if getattr(profile.variants, name)} if profile.variants else {}


def models(profile: Profile) -> list[str]:
    """The models that 06_cifar100 is about, each once."""
    named = list(profile.cifar100.models) if profile.cifar100 else []
    named += [model for group in (profile.depth.networks.values() if profile.depth else []) for model in group]
    named += [model for group in groups(profile).values() for model in group]
    return list(dict.fromkeys([*named, *(profile.variants.uncertainty if profile.variants else [])]))


def measurements(profile: Profile, model: str) -> list[Measurement]:
    """Everything that 06_cifar100 measures of one model, each measurement once."""
    specs = []
    if profile.cifar100 and model in profile.cifar100.models:
        specs += table_4(profile, model).values()
    if profile.depth and any(model in group for group in profile.depth.networks.values()):
        specs += table_5(profile, model).values()
    if any(model in group for group in groups(profile).values()):
        specs += variant(profile, model).values()
    if profile.variants and model in profile.variants.uncertainty:
        specs.append(uncertainty(profile, model))
    return once(profile, specs)
