"""One table of methods, objectives and rungs: what each is called, in plain text, HTML, LaTeX and mathtext, and how it is drawn."""

import html as _html
import re
from dataclasses import dataclass

from artifact.profiles import CLASSES, Profile


@dataclass(frozen=True)
class Method:
    """A loss: its name (with the model's fields in braces), colour and marker; or an objective, which has no marker."""

    name: str
    colour: str
    marker: str = ""


# Okabe and Ito's palette, which colour-blind readers can tell apart; names as the paper prints them.
METHODS = {
    "sce": Method("SCE", "#0072B2", "o"),
    "center": Method("Center loss", "#CC79A7", "v"),
    "mmlda": Method("MMLDA", "#009E73", "s"),
    "lgm": Method("L-GM", "#E69F00", "D"),
    "mmc-rand": Method("MMC-{radius:g} (rand)", "#56B4E9", "^"),
    "mmc": Method("MMC-{radius:g}", "#D55E00", "P"),
    "mmc-hm": Method("HM ({radii[0]:g}, {radii[1]:g})", "#8C6D31", "*"),
    "emc": Method("EMC-{radius:g}, α = {alpha:g}", "#7B4B94", "h"),
}
LARGE_RADIUS = Method("MMC-{radius:g}", "#000000", "X")  # MMC-100 stands beside MMC-10 in the paper's Fig. 4
OBJECTIVES = {
    "cross_entropy": Method("cross-entropy", "#808080"),
    "untargeted_1": Method("L_Ada^{un,1}", "#56B4E9"),
    "untargeted_2": Method("L_Ada^{un,2} (margin)", "#D55E00"),
    "targeted_1": Method("L_Ada^{tar,1}", "#B2182B"),
    "targeted_2": Method("L_Ada^{tar,2}", "#7B4B94"),
    "worst": Method("worst case", "#000000"),
}
RUNGS = {  # of the ladder: what each adds to the one before
    "cross_entropy": "PGD, cross-entropy",
    "divided": "logits divided by 2C²",
    "gap": "logits divided by their own gap",
    "pma": "margin of probabilities (PMA)",
    "pma_gap": "PMA, logits divided by their gap",
    "untargeted_1": "L_Ada^{un,1} (the paper's)",
    "untargeted_2": "margin, L_Ada^{un,2}",
    "restarts": "margin, restarts",
    "malt": "margin, 3 classes in MALT's order",
    "multi_targeted": "margin, every wrong class",
    "autoattack": "AutoAttack (standard)",
}


def rungs(profile: Profile) -> dict[str, str]:
    """The rungs' titles; which classes are tried, of a data set with more of them than the profile's attacks go through."""
    plan = profile.verdict
    classes = max((CLASSES[profile.dataset(model)] for model in plan.models), default=0) if plan else 0
    if plan is None or plan.classes >= classes - 1:
        return RUNGS
    return RUNGS | {"multi_targeted": f"margin, {plan.classes} of {classes - 1} wrong classes"}


GOALS = {"untargeted": "un", "targeted": "tar"}
DASHES = {None: "-", "targeted": "--", "untargeted": ":"}  # by adversarial training


def base(profile: Profile, model: str) -> str:
    """The name of a model's loss with its settings, without adversarial training or seed: "MMC-10, Huber"."""
    spec = profile.models[model]
    name = METHODS[spec.loss].name.format(**spec.model_dump())
    extras = [{"absolute": "absolute", "huber": "Huber"}[spec.form]] if spec.form else []
    extras += ["rotated"] if spec.rotate else []
    extras += [f"against the {spec.inner}"] if spec.inner else []
    extras += ["2 features"] if profile.training[spec.training].feature_dim == 2 else []
    return ", ".join([name, *extras])


def _drawn(profile: Profile, model: str) -> str:
    """base(), and the seed where it is not the first."""
    seed = profile.models[model].seed
    return base(profile, model) + (f", seed {seed}" if seed else "")


def label(profile: Profile, model: str) -> str:
    """A model's name from its fields, with the steps that it was really trained with: "AT_un10 (MMC-10)"."""
    spec = profile.models[model]
    if not spec.adversarial:
        return _drawn(profile, model)
    goal = f"AT_{GOALS[spec.adversarial]}"
    steps, _, noisy = profile.crafting(model)
    return f"{goal}, N-FGSM ({_drawn(profile, model)})" if noisy else f"{goal}{steps} ({_drawn(profile, model)})"


def paper_label(profile: Profile, model: str) -> str:
    """The paper's row for the same method: its adversarial training always takes 10 steps, and its seed is not said."""
    spec = profile.models[model]
    return f"AT_{GOALS[spec.adversarial]}10 ({base(profile, model)})" if spec.adversarial else base(profile, model)


def short(profile: Profile, model: str) -> str:
    """A name for narrow places: adversarial training is only "AT"."""
    return ("AT " if profile.models[model].adversarial else "") + _drawn(profile, model)


def shorts(profile: Profile, models) -> dict[str, str]:
    """The short names of several models by key; the full one where two would have the same."""
    names = {model: short(profile, model) for model in models}
    return {model: name if list(names.values()).count(name) == 1 else label(profile, model) for model, name in names.items()}


def look(profile: Profile, model: str) -> dict:
    """Colour, marker, dash and label of a model for `plot`, the same in every figure."""
    spec = profile.models[model]
    method = LARGE_RADIUS if spec.loss == "mmc" and spec.radius >= 100 else METHODS[spec.loss]
    return {"color": method.colour, "marker": method.marker, "linestyle": DASHES[spec.adversarial],
            "label": mathtext(label(profile, model))}


# The few symbols that names and sentences hold in plain text: AT_un10, L_Ada^{un,1}, L_MMC, C_MM, l_2.
_SYMBOL = re.compile(r"(?<![A-Za-z_])(AT|L|C|l)_\{?([A-Za-z0-9]+)\}?(?:\^\{([^}]*)\})?")
_LATEX = {"ε": r"$\varepsilon$", "σ": r"$\sigma$", "δ": r"$\delta$", "α": r"$\alpha$", "µ": r"$\mu$", "≤": r"$\leq$", "≥": r"$\geq$",
          "→": r"$\rightarrow$", "±": r"$\pm$", "°": r"$^\circ$", "²": "$^2$", "–": "--", "−": "$-$", "·": r"$\cdot$",
          "μ": r"$\mu$", "Δ": r"$\Delta$", "√": r"$\surd$", "×": r"$\times$", "‖": r"$\Vert$", "ᵀ": r"$^\top$",
          "\u0303": r"\textasciitilde{}", "“": "``", "”": "''", "\n": r"\newline "}
_ESCAPED = str.maketrans({"%": r"\%", "&": r"\&", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
                          "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": "$<$", ">": "$>$", **_LATEX})


def symbols_html(text: str) -> str:
    """Text with its symbols as HTML, nothing escaped: Markdown holds it too."""
    def anew(match):
        return f"{match[1]}<sub>{match[2]}</sub>" + (f"<sup>{match[3]}</sup>" if match[3] else "")
    return _SYMBOL.sub(anew, text)


def html(text: str) -> str:
    """Text escaped for HTML, its symbols with <sub> and <sup>, a new line where it has one."""
    return symbols_html(_html.escape(text, quote=False)).replace("\n", "<br>")


def _math(match) -> str:
    letter = r"\ell" if match[1] == "l" else r"\mathrm{AT}" if match[1] == "AT" else match[1]
    return f"${letter}_{{\\mathrm{{{match[2]}}}}}" + (f"^{{\\mathrm{{{match[3]}}}}}$" if match[3] else "$")


def mathtext(text: str) -> str:
    """Text for matplotlib, its symbols as mathtext."""
    return _SYMBOL.sub(_math, text)


def latex(text: str) -> str:
    """Text for pdflatex: symbols in math mode, everything else escaped, no character beyond ASCII."""
    parts, end = [], 0
    for match in _SYMBOL.finditer(text):
        parts += [text[end:match.start()].translate(_ESCAPED), _math(match)]
        end = match.end()
    return "".join([*parts, text[end:].translate(_ESCAPED)])
