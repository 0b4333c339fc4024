"""What a profile may not ask is refused when it is read, in one sentence that names the key and the remedy."""

import pytest

SPSA = {"models": ["sce"], "images": 8, "epsilons": [0.1, 0.2], "table_3_model": "sce"}
FALLING = {"epsilons": [0.2, 0.1]}
VERDICT = {"models": ["sce", "mmc-10"], "images": 8}


def same_name(settings, **fields):
    settings["models"]["mmc-eq8"] = {"training": "digits", "loss": "mmc", **fields}
    settings["white_box"]["models"] = ["sce", "mmc-10", "mmc-eq8"]


def two_networks(settings):
    settings["training"]["other"] = settings["training"]["digits"] | {"epochs": 5}
    settings["models"]["mmc-10"]["training"] = "other"
    settings["verdict"] = {"models": ["sce", "mmc-10"], "images": 8}


def two_sizes(settings):
    settings["training"]["other"] = settings["training"]["digits"] | {"test_images": 100}
    settings["models"]["center"] = {"training": "other", "loss": "center"}
    settings["verdict"] = {"models": ["sce", "center"], "images": 8}


def flat(settings):
    settings["training"]["flat"] = settings["training"]["digits"] | {"feature_dim": 2}
    settings["models"]["flat"] = {"training": "flat", "loss": "center"}
    settings["plane"] = {"model": "flat", "features": 9}


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: same_name(s, scale=0.5), "white_box.models names mmc-10 and mmc-eq8, which a table would call the same"),
    (lambda s: s.update(depth={"networks": {"one": ["sce"]}}), "depth.networks"),
    (lambda s: s.update(depth={"networks": {"one": ["sce", "mmc-10"], "two": ["sce"]}}), "one has 2 and the other 1"),
    (lambda s: s.update(depth={"networks": {"one": ["sce"], "two": ["mmc-10"]}}), "depth.networks compares 'sce' with 'mmc-10'"),
    (lambda s: s.update(spsa=SPSA | {"table_3_model": "mmc-10"}), "spsa.table_3_model names 'mmc-10', which spsa.models does not"),
    (lambda s: s.update(verdict=VERDICT | {"models": ["sce"], "diagnosed": ["mmc-10"]}), "verdict.diagnosed names 'mmc-10'"),
    (lambda s: s.update(verdict=VERDICT | {"models": ["sce"], "autoattack": ["mmc-10"]}), "verdict.autoattack names 'mmc-10'"),
    (lambda s: s.update(verdict=VERDICT | {"matched": 8, "passes": 20}), "passes is 20; one step towards each wrong class takes 28"),
    (lambda s: s["models"]["sce"].update(radius=3.0), "radius is for losses with preset centers, this one is 'sce'"),
    (lambda s: s["training"]["digits"].update(widths=[8]), "widths is for architecture 'airbench' only, this one is 'small_convnet'"),
    (lambda s: s["training"]["digits"].update(other_rate=0.1), "other_rate is for optimizer 'muon' only, this one is 'sgd'"),
    (lambda s: s["training"]["digits"].update(schedule="linear"), "milestones is for schedule 'steps' only, this one is 'linear'"),
    (lambda s: s.update(band={"reproduced": 10.0, "near": 2.0}), "near must be at least reproduced = 10"),
    (lambda s: s.update(variants={"hierarchical": ["mmc-10"]}), "has no superclasses"),
    (lambda s: (s["training"].update(pairs=s["training"]["digits"] | {"dataset": "digit-pairs", "feature_dim": 128}),
                s["models"].update(pair={"training": "pairs", "loss": "sce"}),
                s.update(transfer={"models": ["sce", "pair"], "images": 8, "epsilons": [0.1, 0.2], "step_size": 0.05})), "of one data set"),
    (lambda s: s["models"].update({"mmc_10": s["models"]["mmc-10"]}), "differ in a dash alone"),
    (lambda s: s["white_box"].update(models=["sce"]), "convergence_models names 'mmc-10'"),
    (lambda s: s.update(name="another"), "unknown key 'name'"), (lambda s: s.update(source="there"), "unknown key 'source'"),
    (lambda s: s.update(spsa=SPSA | {"evaluations": 3}), "multiple"),
    (lambda s: s.update(spsa=SPSA | {"table_3_evaluations": []}), "at least 1"),
    (lambda s: s.update(verdict={"models": ["sce", "mmc-10"], "images": 8, "queries": 5}), "multiple"),
    (lambda s: (s["training"]["digits"].update(test_images=20), s.update(verdict={"models": ["sce", "mmc-10"], "images": 30})),
     "verdict.images is 30, and sce is tested on 20"),
    (lambda s: s.update(comparable=True), "comparable is true, and the profile trains on a stand-in"),
    (lambda s: (s["training"].update(pairs=s["training"]["digits"] | {"dataset": "digit-pairs", "feature_dim": 128}),
                s["models"].update(pairs={"training": "pairs", "loss": "mmc"}), s["white_box"].update(models=["sce", "pairs"])),
     "white_box.models are of digit-pairs and digits"),
    (lambda s: (s["training"].update(flat=s["training"]["digits"] | {"feature_dim": 2}),
                s["models"].update(flat={"training": "flat", "loss": "sce"}), s.update(plane={"model": "flat", "features": 9})),
     "Figure 3b shows nearest centers"),
    (lambda s: s.update(spsa=SPSA | FALLING), "spsa: epsilons must rise"),
    (lambda s: s.update(spsa=SPSA | {"epsilons": [0.1, 0.1]}), "spsa: epsilons must rise"),
    (lambda s: s.update(spsa=SPSA | {"table_3_evaluations": [64, 32]}), "spsa: table_3_evaluations must rise"),
    (lambda s: s.update(transfer={"models": ["sce"], "images": 4, "step_size": 0.05} | FALLING), "transfer: epsilons must rise"),
    (two_networks, "verdict.models compares sce with mmc-10, whose trainings 'digits' and 'other' differ"),
    (two_sizes, "verdict.models are tested on different numbers of images (test_images: sce None, center 100)"),
    (flat, "plane.model is 'flat' of loss center; Figure 3b shows nearest centers"),
])
def test_a_profile_that_would_fail_late_or_mislead_is_refused(load, change, says):
    with pytest.raises(ValueError) as refused:
        load(change)
    assert says in str(refused.value)
