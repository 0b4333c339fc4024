"""What each table and figure is made of: the evaluations behind it, as specifications that can be looked up or computed."""

from dataclasses import dataclass, field
from pathlib import Path

from artifact.experiment import CLASSES, Profile, identity, model_identity, model_receipt_path, read_receipt, results_folder
from artifact.methods import label as label

ADAPTIVE = ("mmc", "mmc-rand", "mmc-hm", "emc")  # losses attacked with the paper's adaptive objectives (App. B.4)


@dataclass(frozen=True)
class Evaluation:
    """One attack on one model: its identity is the model's and every setting's, its receipt one small JSON file."""

    model: str
    attack: str  # "clean", or a function of mmclib.attacks
    images: int
    targeted: bool = False
    settings: dict = field(default_factory=dict)

    def identity(self, profile: Profile) -> str:
        return identity("evaluation", model=model_identity(profile, self.model), attack=self.attack, images=self.images,
                        targeted=self.targeted, settings=self.settings, seed=profile.seed)

    def path(self, profile: Profile) -> Path:
        goal = "targeted-" if self.targeted else ""
        return results_folder(profile) / "evaluations" / self.model / f"{self.attack}-{goal}{self.identity(profile)}.json"

    def models(self) -> list[str]:
        """Every model that it uses: its own, and the targets of a transfer."""
        return [self.model, *self.settings.get("targets", ())]

    def gradients(self) -> float:
        """Gradients of one image that it takes at most, for estimates of time."""
        steps = self.settings.get("steps", 1) * self.settings.get("restarts", 1)
        if self.attack == "carlini_wagner":  # searches abort early
            steps *= self.settings["binary_search_steps"] / 3
        elif self.attack == "spsa":  # forward passes only
            steps *= self.settings["evaluations"] / 3
        elif self.attack == "multi_targeted":  # most images fall to one of the first classes
            steps *= self.settings["classes"] / 2
        elif self.attack == "autoattack":  # some 100 + 900 + 1,800 gradients and 5,000 forward passes, on the survivors
            steps = 2000
        elif self.attack in ("scores", "diagnosis"):
            steps *= 3
        elif self.attack == "indicators":  # every step of each path, and the attack without bounds, which succeeds early
            steps += 50
        elif self.attack == "stability":
            steps = self.settings["points"] / 3
        elif self.attack == "matched":  # each image survives at one epsilon at most; few do
            steps = self.settings["budget"] / 4
        elif self.attack == "plane":  # all images forward once, a few attacked
            return self.images / 3 + 3 * steps * self.settings["inputs"]
        return self.images * steps


def same_checkpoints(profile: Profile, receipt: dict) -> bool:
    """Was an evaluation made of the very weights that the models' receipts name now? True where a model has no receipt to ask."""
    used = {receipt["model"]: receipt["checkpoint_sha256"], **receipt.get("target_sha256", {})}
    return all(read_receipt(path)["results"]["checkpoint_sha256"] == digest
               for model, digest in used.items() if (path := model_receipt_path(profile, model)).exists())


def objective(profile: Profile, model: str, targeted: bool) -> str:
    """The paper's choice: L_Ada^{tar,1} and L_Ada^{un,1} on MMC, cross-entropy elsewhere (Sec. 4.2, App. B.4)."""
    if profile.models[model].loss not in ADAPTIVE:
        return "cross_entropy"
    return "targeted_1" if targeted else "untargeted_1"


def _pgd(profile: Profile, model: str, targeted: bool, steps: int, epsilon: float, **changes) -> Evaluation:
    plan = profile.white_box
    settings = {"epsilon": epsilon, "steps": steps, "step_size": plan.step_size, "restarts": plan.restarts,
                "objective": objective(profile, model, targeted), **changes}
    return Evaluation(model, "pgd", plan.images, targeted, settings)


def table_1(profile: Profile, model: str) -> dict[str, Evaluation]:
    """The columns of Table 1 by the names of the paper's CSV, `_8` and `_16` standing for the first and second epsilon."""
    cells = {"clean": Evaluation(model, "clean", profile.white_box.images)}
    for name, epsilon in zip(("8", "16"), profile.white_box.epsilons, strict=True):
        for place, steps in zip(("10", "50"), profile.white_box.steps, strict=True):
            cells[f"pgd{place}_tar_{name}"] = _pgd(profile, model, True, steps, epsilon)
            cells[f"pgd{place}_un_{name}"] = _pgd(profile, model, False, steps, epsilon)
    return cells


def objectives(profile: Profile, model: str) -> dict[str, Evaluation]:
    """The longer untargeted PGD at the first epsilon under each objective: which one the claim of robustness rests on."""
    steps, epsilon = profile.white_box.steps[1], profile.white_box.epsilons[0]
    return {name: _pgd(profile, model, False, steps, epsilon, objective=name)
            for name in ("cross_entropy", "untargeted_1", "untargeted_2")}


def convergence(profile: Profile, model: str) -> dict[int, Evaluation]:
    """PGD with more steps at the first epsilon (Sec. 4.3: "the accuracy converges compared to PGD-50")."""
    plan = profile.white_box
    if model not in plan.convergence_models:
        return {}
    return {steps: _pgd(profile, model, False, steps, plan.epsilons[0]) for steps in [*plan.steps, *plan.convergence_steps]}


def curve(profile: Profile, model: str) -> dict[float, Evaluation]:
    """Accuracy against epsilon under the margin objective, which needs no help from the softmax."""
    return {epsilon: _pgd(profile, model, False, profile.white_box.steps[0], epsilon, objective="untargeted_2")
            for epsilon in profile.white_box.curve_epsilons}


def white_box(profile: Profile, model: str) -> list[Evaluation]:
    """Everything that 03_white_box evaluates of one model, each evaluation once."""
    specs = [spec for part in (table_1, objectives, convergence, curve) for spec in part(profile, model).values()]
    if profile.carlini_wagner and model in profile.carlini_wagner.models:
        specs += carlini_wagner(profile, model).values()
    if profile.plane and profile.plane_beside() == model:  # the same method with two features, for Fig. 3b
        specs.append(plane(profile))
    return once(profile, specs)


def once(profile: Profile, specs: list[Evaluation]) -> list[Evaluation]:
    """The evaluations, each once, in their order."""
    return list({spec.identity(profile): spec for spec in specs}.values())


def num_classes(profile: Profile, model: str) -> int:
    return CLASSES[profile.dataset(model)]


# Table 2, Table 3 and Fig. 4 of the paper.

def carlini_wagner(profile: Profile, model: str) -> dict[str, Evaluation]:
    """Table 2, part I (Sec. 4.3): mean minimal l_2 distortion under C&W with the attack's own margin, stronger than App. B.4's."""
    plan = profile.carlini_wagner
    settings = plan.model_dump(exclude={"models", "images"})
    return {name: Evaluation(model, "carlini_wagner", plan.images, goal, settings) for name, goal in (("tar", True), ("un", False))}


def spsa(profile: Profile, model: str) -> dict[str, Evaluation]:
    """Table 2, part II (Sec. 4.4)."""
    return {f"{name}_{place}": _spsa(profile, model, targeted, epsilon, profile.spsa.evaluations)
            for place, epsilon in zip(("8", "16"), profile.spsa.epsilons, strict=True)
            for name, targeted in (("tar", True), ("un", False))}


def table_3(profile: Profile) -> dict[int, Evaluation]:
    """Table 3: SPSA with larger batches on one model at the first epsilon, untargeted."""
    plan = profile.spsa
    return {count: _spsa(profile, plan.table_3_model, False, plan.epsilons[0], count) for count in plan.table_3_evaluations}


def _spsa(profile, model, targeted, epsilon, evaluations) -> Evaluation:
    plan = profile.spsa
    settings = {"epsilon": epsilon, "evaluations": evaluations, "steps": plan.steps, "learning_rate": plan.learning_rate,
                "delta": plan.delta, "objective": objective(profile, model, targeted)}
    return Evaluation(model, "spsa", plan.images, targeted, settings)


def transformations(profile: Profile, model: str) -> dict[str, list[Evaluation]]:
    """Table 2, part III (Sec. 4.5): several draws of each, whose mean accuracy is the cell."""
    plan = profile.transformations
    return {
        "noise": [
            Evaluation(model, "gaussian_noise", plan.images, settings={"sigma": plan.sigma, "draw": draw}) for draw in range(plan.draws)
        ],
        "rotation": [
            Evaluation(model, "rotation", plan.images, settings={"degrees": plan.degrees, "draw": draw}) for draw in range(plan.draws)
        ],
    }


def transfer(profile: Profile, substitute: str) -> dict[tuple[str, float], Evaluation]:
    """One row of each panel of Fig. 4: crafted on `substitute`, tried on every model; the paper's objective for the substitute."""
    plan, cells = profile.transfer, {}
    for attack, extra in (("pgd", {}), ("mim", {"decay": plan.decay})):
        for epsilon in plan.epsilons:
            settings = {"epsilon": epsilon, "steps": plan.steps, "step_size": plan.step_size,
                        "objective": objective(profile, substitute, False), **extra,
                        "targets": {target: model_identity(profile, target) for target in plan.models}}
            cells[attack, epsilon] = Evaluation(substitute, f"transfer_{attack}", plan.images, settings=settings)
    return cells


def black_box_models(profile: Profile) -> list[str]:
    """The models that 04_black_box is about, each once."""
    sections = [section.models for section in (profile.transfer, profile.spsa) if section]
    return list(dict.fromkeys(model for models in sections for model in models))


def black_box(profile: Profile, model: str) -> list[Evaluation]:
    """Everything that 04_black_box evaluates of one model."""
    specs = list(transfer(profile, model).values()) if profile.transfer and model in profile.transfer.models else []
    if profile.spsa and model in profile.spsa.models:
        specs += spsa(profile, model).values()
    if profile.spsa and model == profile.spsa.table_3_model:
        specs += table_3(profile).values()
    return once(profile, specs)


def general_purpose(profile: Profile, model: str) -> list[Evaluation]:
    """Everything that 05_general_purpose evaluates of one model."""
    if not (profile.transformations and model in profile.transformations.models):
        return []
    return [spec for draws in transformations(profile, model).values() for spec in draws]


def plane(profile: Profile) -> Evaluation:
    """Fig. 3b: the path of two inputs' features under each objective."""
    plan = profile.plane
    return Evaluation(plan.model, "plane", plan.features, settings=plan.model_dump(exclude={"model", "features"}))
