"""What 05_general_purpose measures: Table 2-III."""

from artifact.measurements.measurement import Measurement
from artifact.profiles import Profile


def transformations(profile: Profile, model: str) -> dict[str, list[Measurement]]:
    """Table 2, part III (Sec. 4.5): several draws of each, whose mean accuracy is the cell."""
    plan = profile.transformations
    return {
        "noise": [
            Measurement(model, "gaussian_noise", plan.images, settings={"sigma": plan.sigma, "draw": draw}) for draw in range(plan.draws)
        ],
        "rotation": [
            Measurement(model, "rotation", plan.images, settings={"degrees": plan.degrees, "draw": draw}) for draw in range(plan.draws)
        ],
    }


def models(profile: Profile) -> list[str]:
    """The models that 05_general_purpose is about."""
    return profile.transformations.models if profile.transformations else []


def measurements(profile: Profile, model: str) -> list[Measurement]:
    """Everything that 05_general_purpose measures of one model."""
    if model not in models(profile):
        return []
    return [spec for draws in transformations(profile, model).values() for spec in draws]
