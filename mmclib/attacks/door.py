"""The one door of all attacks: what they are given is checked and brought into one form, and the model is frozen, before any work."""

from contextlib import ExitStack, contextmanager

from mmclib import checks, counter
from mmclib.attacks.frozen import frozen, warn_if_dependent, working_type
from mmclib.attacks.ledger import Ledger
from mmclib.attacks.objectives import resolve
from mmclib.models import Classifier
from mmclib.modes import own_modes


@contextmanager
def begin(model, images, labels, *, targets=None, objective="margin", seed=0, precision="float32"):
    """Check an attack's input, freeze the model, and yield (FrozenModel, Ledger, seeds (N,)); the model is as before afterwards.

    Images of any floating type are cast to float32, or to float64 for a model in float64, and are crafted and judged there. Inside,
    nothing of the caller's modes holds: no inference mode, no gradients but those an attack asks for, no autocast, no TF32. Raises
    ValueError that names the argument, what it is and what was expected.
    """
    checks.check_model(model)
    checks.check_images(images)
    if isinstance(model, Classifier):  # whose features are asked for without its forward
        model.check_shape(images)
    checks.check_label_form(labels, count=len(images))
    if targets is not None:
        checks.check_label_form(targets, "targets", count=len(images))
    objective, device = resolve(objective, targets), images.device
    with ExitStack() as stack:
        for mode in (own_modes(device), checks.any_pixels()):
            stack.enter_context(mode)
        images, labels, targets = (_own(tensor, device) for tensor in (images, labels, targets))
        if targets is not None and bool((same := targets == labels).any()):
            first = int(same.nonzero()[0])
            raise ValueError(f"targets must differ from labels, but image {first} has both equal to {int(labels[first])}")
        seeds = counter.image_seeds(seed, len(images), device)
        network = stack.enter_context(frozen(model, objective, precision))
        images = images.to(working_type(model))
        classes = warn_if_dependent(network.logits, images[:1]).shape[1]
        checks.check_labels(labels, classes)
        if targets is not None:
            checks.check_labels(targets, classes, "targets")
        yield network, Ledger(images, labels, targets, classes), _own(seeds, device)


def _own(tensor, device):
    """Detached from the caller's graph, and no inference tensor, which autograd could not save."""
    if tensor is None:
        return None
    tensor = tensor.detach().to(device)
    return tensor.clone() if tensor.is_inference() else tensor
