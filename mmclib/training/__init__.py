"""Training as in Sec. 4.1 and with a CPU's recipe: fit() for standard and adversarial training, resumable to the bit."""

from mmclib.training.recipe import AdversarialTraining, Recipe
from mmclib.training.trainer import TrainingResult, fit

__all__ = ["AdversarialTraining", "Recipe", "TrainingResult", "fit"]
