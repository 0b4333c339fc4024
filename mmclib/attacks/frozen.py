"""The one way attacks call a model: frozen, in fixed-size chunks, its mode, parameters and gradients left as they were found."""

import copy
from contextlib import contextmanager

import torch

from mmclib import checks
from mmclib.attacks.objectives import spread
from mmclib.models import Classifier
from mmclib.modes import in_evaluation

# On a CPU, BLAS and oneDNN choose their kernels by batch size, so the same image gets other last bits in another batch. Measured
# on the networks of this package: any two calls of 16, 32, ... 256 rows agree to the bit row by row, while fewer rows differ.
# Hence every call has a multiple of 16 rows, padded where need be, and the batch an image comes in cannot matter
# (tests/mmclib/test_attack_guarantees.py holds it so).
ROWS = 16
_PIXELS = 32 * 32 * 32  # per call: larger ones fall out of the cache and are slower per image


class BatchDependenceWarning(UserWarning):
    """The model's logits of an image depend on what else is in its call, so no result is that image's own."""


@contextmanager
def frozen(model, objective, precision="float32"):
    """Freeze the model for an attack and yield a FrozenModel; mode, requires_grad and memory format return to what they were, also on
    errors. So one model is attacked in one thread at a time.

    Raises ValueError for an unknown precision, and for a model that autograd cannot pass through.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("model was made inside torch.inference_mode, so no gradient passes through it; make or load it outside")
    parameters = [(parameter, parameter.requires_grad, parameter.data) for parameter in model.parameters()]
    with in_evaluation(model):
        try:
            for parameter, _, data in parameters:
                parameter.requires_grad_(False)  # no attack needs weight gradients; they would double the backward pass
                if data.ndim == 4:
                    parameter.data = data.contiguous(memory_format=torch.channels_last)
            yield FrozenModel(model, objective, precision)
        finally:
            for parameter, requires_grad, data in parameters:
                parameter.data = data
                parameter.requires_grad_(requires_grad)


def rows_of_a_call(images) -> int:
    """How many images one call takes at most: on a CPU a multiple of 16, elsewhere all of them."""
    if images.device.type != "cpu":
        return len(images)
    return min(max(_PIXELS // images[0, 0].numel() // ROWS, 1), 16) * ROWS


def chunks(images):
    """Yield (row numbers, how many of them count) over all rows of `images`; on a CPU in small calls of a multiple of 16 rows,
    padded."""
    count, largest = len(images), rows_of_a_call(images)
    for start in range(0, count, largest):
        valid = min(largest, count - start)
        size = -(-valid // ROWS) * ROWS if images.device.type == "cpu" else valid
        yield torch.arange(start, start + size, device=images.device).clamp_(max=count - 1), valid


def working_type(model) -> torch.dtype:
    """The type in which images are crafted and judged: float64 for a model in it, else float32, whatever type the images come in."""
    tensors = [*model.parameters(), *model.buffers()]
    own = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
    return torch.float64 if own == torch.float64 else torch.float32


def call(model, images) -> torch.Tensor:
    """Call a model as its users do and return its logits (N, L).

    Raises ValueError where it returns anything else, and for a model in half precision that takes no float32 images.
    """
    logits = _explained(model, model, images)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits of shape ({len(images)}, classes), got {shape}")
    if logits.shape[1] < 2:
        raise ValueError(f"model must return a logit for each of at least 2 classes, got shape {tuple(logits.shape)}; a single score s is "
                         "the logits (0, s)")
    return logits


def warn_if_dependent(logits, image) -> torch.Tensor:
    """Warn where `logits(images)` gives one image (1, C, H, W) other logits among copies of itself than among others; return them."""
    alone = image.expand(ROWS, -1, -1, -1)
    shifts = torch.arange(1, ROWS, device=image.device, dtype=image.dtype)[:, None, None, None] / ROWS
    among = torch.cat((image, (image + shifts) % 1))  # none of which is the image, whatever it shows
    first, second = logits(alone)[:1], logits(among)[:1]
    if not torch.allclose(first, second, rtol=1e-5, atol=1e-3 * float(spread(first)), equal_nan=True):
        checks.warn("the model's logits of an image change with the other images in its call, or from call to call (batch statistics in "
                    "evaluation mode? randomness?): every result depends on how images are batched", BatchDependenceWarning)
    return first


def _explained(model, function, images):
    try:
        return function(images)
    except RuntimeError as error:
        halves = {str(p.dtype).removeprefix("torch.") for p in model.parameters()} & {"float16", "bfloat16"}
        if not halves or "type" not in str(error):
            raise
        raise ValueError(f"model holds {halves.pop()} parameters and takes no float32 images, in which attacks craft and judge; pass "
                         "model.float()") from error


def is_of_layout(error: RuntimeError) -> bool:
    """Does a model fail for taking channels-last activations apart by .view, as it is or under torch.compile?"""
    return any(text in str(error) for text in ("view size is not compatible", "Cannot view a tensor"))


class FrozenModel:
    """A frozen model as attacks see it: logits, objective values and input gradients of any number of images, row by row
    independent."""

    def __init__(self, model, objective, precision="float32"):
        self.model, self.objective, self.precision = model, objective, precision
        self.layout = torch.channels_last
        # features and head are called apart only where that is what forward does: no override, no hooks that would be passed by
        hooked = model._forward_hooks or model._forward_pre_hooks or model._backward_hooks or model._backward_pre_hooks
        own = getattr(type(model), "forward", None) is Classifier.forward and "forward" not in vars(model)
        self.has_features = own and not hooked

    def climbing(self, objective) -> "FrozenModel":
        """The same model under another objective."""
        other = copy.copy(self)
        other.objective = objective
        return other

    def _forward(self, images):
        try:
            return self._parts(images)
        except RuntimeError as error:
            if not is_of_layout(error) or self.layout == torch.contiguous_format:
                raise
        # A model that flattens by .view takes activations in the plain layout only; the first call finds out.
        self.layout = torch.contiguous_format
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()
        return self._parts(images.contiguous())

    def _parts(self, images):
        if not self.has_features:
            return None, call(self.model, images)
        features = _explained(self.model, self.model.features, images)
        return features, self.model.head.logits(features)

    def logits(self, images) -> torch.Tensor:
        """Return logits (N, L), without gradients; always in full precision."""
        return self.evaluate(images)[0]

    @torch.no_grad()
    def evaluate(self, images, labels=None, targets=None):
        """Return logits (N, L) and, where labels are given, the objective's values (N,), without gradients, in full precision."""
        logits, values = [], []
        for rows, count in chunks(images):
            features, chunk = self._forward(self._prepared(images, rows))
            logits.append(chunk[:count].clone())  # a model may answer each call in the same memory
            if labels is not None:
                values.append(self._values(features, chunk, labels[rows], targets, rows)[:count])
        return torch.cat(logits), torch.cat(values) if values else None

    def gradients(self, images, labels, targets=None):
        """Return logits (N, L), objective values (N,) and the values' gradients by the images (N, C, H, W), in the crafting precision.

        An entry that is NaN is taken as zero, since it points nowhere, an infinite one as the image's largest finite one, or as 1.
        """
        logits, values, gradients = [], [], torch.empty_like(images)
        for rows, count in chunks(images):
            with torch.enable_grad():
                chunk = self._prepared(images, rows).requires_grad_()
                with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                    features, output = self._forward(chunk)
                value = self._values(features, output, labels[rows], targets, rows)
                if not value.requires_grad:
                    raise ValueError("objective must depend on the images by gradients, but its values do not require grad")
                (gradient,) = torch.autograd.grad(value.sum(), chunk)
            gradients[rows[:count]] = gradient[:count]
            logits.append(output.detach()[:count].clone())
            values.append(value.detach()[:count])
        return torch.cat(logits), torch.cat(values), _finite(gradients)

    def _prepared(self, images, rows):
        return images[rows].contiguous(memory_format=self.layout)

    def _values(self, features, logits, labels, targets, rows):
        values = self.objective(features, logits, labels, None if targets is None else targets[rows])
        if not isinstance(values, torch.Tensor) or values.shape != labels.shape:
            shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise ValueError(f"objective must return one value per image, shape {tuple(labels.shape)}, got {shape}")
        return values


def _finite(gradients):
    gradients = gradients.nan_to_num_(0.0, torch.inf, -torch.inf)
    endless = gradients.isinf()
    if bool(endless.any()):
        largest = gradients.masked_fill(endless, 0).flatten(1).abs().amax(1)
        largest = torch.where(largest > 0, largest, 1)[:, None, None, None]
        gradients = torch.where(endless, gradients.sign() * largest, gradients)
    return gradients
