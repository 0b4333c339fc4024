"""A profile in miniature: every job of a long profile in minutes, before an expensive device runs the real one."""

import yaml

from artifact.experiment import ROOT, Profile, load_profile

# What is made small; sections that a profile lacks stay out, and numbers that are smaller already stay.
SMALL = {
    "white_box": {"images": 4, "steps": [2, 4], "convergence_steps": [5], "restarts": 2},
    "carlini_wagner": {"images": 2, "binary_search_steps": 2, "steps": 5},
    "spsa": {"images": 2, "steps": 2, "evaluations": 4, "table_3_evaluations": [4, 8]},
    "transformations": {"images": 4, "draws": 1},
    "transfer": {"images": 4, "steps": 2},
    "plane": {"steps": 2, "features": 20},
    "verdict": {"images": 4, "check_images": 4, "restarts": 2, "classes": 2, "steps": 2, "queries": 2, "distance_steps": 2},
}
TRAINING = {"train_images": 200, "test_images": 200, "epochs": 1, "steps": 2}


def rehearsal(profile: Profile, device: str) -> Profile:
    """The same models, tables and jobs with toy networks and a few images, as logs/<profile>-rehearsal.yaml; its numbers mean nothing.

    Its receipts, figures and checkpoints lie beside the profile's own under <profile>-rehearsal.
    """
    settings = profile.model_dump(exclude={"name", "source"}, exclude_none=True)
    settings |= {"job_gradients": 1,  # every job of the real profile, and where its work is one job, more
                 "threads": 1,  # toy networks gain nothing from more, and jobs side by side would share the cores
                 "title": f"rehearsal of {profile.name}: toy networks, a few images, numbers that mean nothing", "comparable": False,
                 "device": device, "precision": profile.precision if device == profile.device else "float32"}
    for training in settings["training"].values():
        training |= _smaller(training, TRAINING)
        if training["architecture"] == "resnet":
            training["blocks"] = 1
        if training["schedule"] == "steps":
            training["milestones"] = []
    for section in SMALL.keys() & settings.keys():
        settings[section] |= _smaller(settings[section], SMALL[section])
    if profile.verdict:
        for field in ("distances", "indicators", "matched"):  # made only where the profile asks for it
            if field in settings["verdict"]:
                settings["verdict"][field] = min(settings["verdict"][field], 4)
        settings["verdict"]["autoattack"] = profile.verdict.autoattack[:1]  # its thousands of queries do not shrink
    path = ROOT / "logs" / f"{profile.name}-rehearsal.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return load_profile(str(path))


def _smaller(section: dict, limits: dict) -> dict:
    return {key: min(section.get(key, limit), limit) if isinstance(limit, int) else limit for key, limit in limits.items()}
