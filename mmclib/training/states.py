"""Where a training stands, and its states on disk: what the next step depends on, written whole and resumed to the bit."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmclib import checkpoints
from mmclib.fingerprints import MODULE_STATE, UnidentifiedError, fingerprint, own_code
from mmclib.models import Classifier
from mmclib.training.recipe import Recipe
from mmclib.training.step import TrainingStep

_SETTINGS = (bool, int, float, str, tuple)


@dataclass
class State:
    """Where a training stands: `step` batches of `epoch` are done; their losses and numbers of correct lie on the device."""

    epoch: int
    step: int
    history: list
    seconds: float
    losses: torch.Tensor
    correct: torch.Tensor
    vanished: torch.Tensor  # crafting gradients that are exactly zero
    saved: str = field(default="none was saved")
    average: dict | None = None  # the moving average of each parameter, by name
    good: dict | None = None  # tensors at the end of the last epoch that the guard let pass
    probe: float | None = None  # accuracy then
    two_steps: bool = False  # did the guard ever go back


@dataclass
class Run:
    """What a training works on and with."""

    model: Classifier
    optimizers: list
    stepper: TrainingStep | None  # once precision and compilation are known
    images: torch.Tensor
    labels: torch.Tensor
    test: tuple
    recipe: Recipe
    seed: int
    folder: str | Path | None
    settings: dict  # what a state must agree in to be resumed from


def begin_epoch(state, epoch, steps, device):
    state.epoch, state.step = epoch, 0
    state.losses, state.correct, state.vanished = _nothing(steps, device)


def _nothing(steps, device):
    return torch.zeros(steps, dtype=torch.float32, device=device), *(torch.zeros(steps, dtype=torch.int64, device=device) for _ in range(2))


def not_finite(what, state, recipe, batch_number):
    rate = recipe.learning_rate * recipe.rate(state.epoch, batch_number, len(state.losses))
    raise FloatingPointError(f"{what} in epoch {state.epoch + 1}, batch {batch_number + 1} of {len(state.losses)} "
                             f"(learning rate {rate:g}); try a smaller learning_rate. The last state: {state.saved}")


def contents(model, train, test, recipe) -> dict:
    """Hash what a training is of, so that its state is never resumed as another's: architecture, its settings, which of its parameters
    are trained, head with its centers, code of the user's own layers, a mean of the user's own, an objective that is no name, data."""
    buffers = {name: tensor for name, tensor in model.head.named_buffers()}
    plainly = {name: value for name, value in sorted(vars(model.head).items()) if isinstance(value, (int, float, str, bool, tuple))}
    network = repr((str(model), {name: value for name, value in plainly.items() if name != "training"},
                    [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()])).encode()
    layers = {name: ({key: value for key, value in vars(layer).items() if isinstance(value, _SETTINGS) and key != "training"},
                     [parameter.requires_grad for parameter in layer.parameters(recurse=False)]) for name, layer in model.named_modules()}
    found = {"model": checkpoints.digest(network, *buffers.values()), "data": checkpoints.digest(*train),
             "layers": fingerprint(layers)[:16], "test": checkpoints.digest(*test), "attributes": _attributes(model),
             "code": fingerprint(own_code(map(type, model.modules())))[:16],
             "mean": "of the training images" if _is_mean(model.mean, train[0]) else checkpoints.digest(model.mean)}
    objective = recipe.adversarial and recipe.adversarial.objective
    if callable(objective):
        try:
            found["objective"] = fingerprint(objective)[:16]
        except UnidentifiedError as what:
            raise ValueError(f"the objective holds {what}, which cannot be told from another by its content, so a state in a folder could "
                             "be resumed under another objective; take one without it") from None
    return found


def _is_mean(mean, images) -> bool:
    """Is it the images' own, whose last bits may be another device's? A model that was trained before has it as one that was given it."""
    found = sum(part.double().sum(0) for part in images.split(5000)) / len(images) / 255
    return mean.shape == found.shape and torch.allclose(mean.double().cpu(), found.cpu(), atol=1e-4)


def _attributes(model) -> str:
    """Hash what layers hold besides parameters, buffers and plain settings, such as functions; what cannot be told is left out."""
    found = []
    for name, layer in model.named_modules():
        for key, value in sorted(vars(layer).items()):
            if key not in MODULE_STATE and not isinstance(value, (*_SETTINGS, torch.Tensor)):
                try:
                    found.append((name, key, fingerprint(value)))
                except UnidentifiedError:
                    continue
    return fingerprint(found)[:16]


def everything(run, state) -> dict:
    """Everything that the next step depends on, by name."""
    tensors = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    for optimizer in run.optimizers:
        for parameter, kept in optimizer.state.items():
            tensors |= {f"optimizer.{key}.{names[parameter]}": value for key, value in kept.items() if value is not None}
    return tensors | {f"average.{name}": tensor for name, tensor in (state.average or {}).items()}


@torch.no_grad()
def restore(run, state, tensors):
    """Set model, optimizers and average to what `everything` gave, each value in the layout of its own parameter."""
    run.model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    parameters = dict(run.model.named_parameters())
    owner = {parameter: optimizer for optimizer in run.optimizers for group in optimizer.param_groups for parameter in group["params"]}
    for optimizer in run.optimizers:
        optimizer.state.clear()
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, key, place = name.split(".", 2)
            parameter = parameters[place]
            if tensor.shape == parameter.shape:
                tensor = torch.empty_like(parameter).detach().copy_(tensor)
            owner[parameter].state[parameter][key] = tensor.cpu() if key == "step" else tensor.clone()  # Adam counts on the CPU
    average = {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("average.")}
    state.average = {name: torch.empty_like(parameters[name]).detach().copy_(tensor) for name, tensor in average.items()} or None


def save(run, state):
    if run.folder is None:
        return
    tensors = everything(run, state)
    for name, tensor in tensors.items():  # the update after a finite loss may still have overflowed: such a state is worth nothing
        if not bool(tensor.isfinite().all()):
            not_finite(f"{name} became infinite or NaN", state, run.recipe, max(state.step - 1, 0))
    tensors |= {"epoch.losses": state.losses, "epoch.correct": state.correct, "epoch.vanished": state.vanished}
    tensors |= {f"good.{name}": tensor for name, tensor in (state.good or {}).items()}
    position = {key: getattr(state, key) for key in ("epoch", "step", "history", "seconds", "probe", "two_steps")}
    # An epoch's end, before its evaluation, comes before the next one's start; an epoch done again comes after its first time.
    number = (state.epoch + (state.two_steps and run.recipe.epochs)) * (len(state.losses) + 1) + state.step
    state.saved = str(checkpoints.save_state(run.folder, number, tensors, {"run": run.settings, **position}))


def resume(run, steps, device):
    """Return the state to go on from, and of its settings those that were left to the machine (none where there is no state)."""
    state = State(0, 0, [], 0.0, *_nothing(steps, device))
    found = checkpoints.load_state(run.folder) if run.folder is not None else None
    if found is None:
        return state, {}
    tensors, saved = found
    for key, value in run.settings.items():
        if key in saved["run"] and saved["run"][key] != value:  # a state of an earlier version knows less of itself
            raise ValueError(f"{run.folder} holds the state of another training ({key} {saved['run'][key]} there, {value} here); "
                             "delete that folder or name another one")
    restore(run, state, {name: tensor.to(device) for name, tensor in tensors.items() if not name.startswith(("good.", "epoch."))})
    state.good = {name[5:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("good.")} or None
    for key in ("epoch", "step", "history", "seconds", "probe", "two_steps"):
        setattr(state, key, saved[key])
    state.losses.copy_(tensors["epoch.losses"])
    state.correct.copy_(tensors["epoch.correct"])
    if "epoch.vanished" in tensors:  # a state of an earlier version has none
        state.vanished.copy_(tensors["epoch.vanished"])
    state.saved = str(Path(run.folder))
    return state, saved["run"]
