"""Identify a value by its content, functions, closures and models included: two that might act differently never share a fingerprint."""

import dis
import functools
import hashlib
import os
import sys
import types
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format, Path, type(Ellipsis))
# With the separator: a user's file beside a package may begin with its name.
_LIBRARIES = tuple(str(Path(file).resolve().parent) + os.sep for file in (functools.__file__, torch.__file__, np.__file__, __file__))
MODULE_STATE = frozenset(vars(nn.Module()))  # what every nn.Module holds; parameters, buffers, hooks and submodules are read apart


_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class UnidentifiedError(Exception):
    """A value that holds something whose content cannot be read; the message names it."""


def fingerprint(*values) -> str:
    """Return the sha256 of all that the values consist of.

    Tensors and numbers count by value, functions by their code, defaults, closure, attributes and the globals and imports that they use,
    modules by all that they hold, models by class, settings and state. What an installed library or this package defines counts by name
    and its own code. Raises UnidentifiedError for anything else, such as an open file.
    """
    digest = hashlib.sha256()
    _add(digest, values, {})
    return digest.hexdigest()


def _add(digest, value, seen):
    def note(*parts):
        digest.update(repr(parts).encode())

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return note(type(value).__name__, value)
    if not isinstance(value, (tuple, frozenset)):  # whether two equal ones are one object is chance
        if id(value) in seen:
            return note("again", seen[id(value)][0])
        seen[id(value)] = len(seen), value  # kept alive, so that no other value gets its id
    note(type(value).__module__, type(value).__qualname__)
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise UnidentifiedError(f"a tensor of layout {value.layout}")
        note(value.dtype, tuple(value.shape))
        return digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    if isinstance(value, np.ndarray) and value.dtype != object:
        note(value.dtype.str, value.shape)
        return digest.update(np.ascontiguousarray(value).tobytes())
    if isinstance(value, Enum):
        return note(value.name)
    if isinstance(value, types.CodeType):
        note(value.co_name, value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_flags)
    for part in _parts(value):
        _add(digest, part, seen)


def _parts(value):
    """What a value consists of besides its type, in a fixed order."""
    if isinstance(value, (list, tuple)):
        return [len(value), *value]
    if isinstance(value, (set, frozenset)):
        return [len(value), *sorted(value, key=repr)]
    if isinstance(value, (dict, types.MappingProxyType)):
        return [len(value), *(part for pair in sorted(value.items(), key=lambda pair: repr(pair[0])) for part in pair)]
    if isinstance(value, types.CodeType):
        return value.co_consts
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.ModuleType):
        return _module_parts(value)
    if isinstance(value, types.FunctionType):
        return _function_parts(value)
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)):
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, (types.ModuleType, type, type(None))):
            raise UnidentifiedError(f"the method {value.__qualname__} of a {type(owner).__qualname__}")
        return [value.__module__ if hasattr(value, "__module__") else None, value.__qualname__]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, type):
        return _class_parts(value)
    if isinstance(value, nn.Module):
        return _model_parts(value)
    ordinary = type(value).__reduce_ex__ is object.__reduce_ex__ and type(value).__module__ not in sys.builtin_module_names
    if ordinary and hasattr(value, "__dict__") and not hasattr(type(value), "__slots__"):
        return [type(value), vars(value)]
    raise UnidentifiedError(f"a {type(value).__module__}.{type(value).__qualname__}")


def _function_parts(function):
    named = [function.__module__, function.__qualname__, function.__code__, function.__defaults__, function.__kwdefaults__]
    try:
        closure = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:
        raise UnidentifiedError(f"the closure of {function.__qualname__}, which is not filled yet") from None
    if _from_library(function.__code__.co_filename):
        return [*named, *closure]
    names = sorted(name for name in _named(function.__code__, "LOAD_GLOBAL", "LOAD_NAME") if name in function.__globals__)
    imported = sorted(_named(function.__code__, "IMPORT_NAME"))
    if unknown := [name for name in imported if name not in sys.modules]:
        raise UnidentifiedError(f"what {function.__qualname__} imports as {unknown[0]}")
    return [*named, *closure, vars(function), *(part for name in names for part in (name, function.__globals__[name])),
            *(sys.modules[name] for name in imported)]


def _named(code, *opcodes):
    """The names that code reads or imports by these instructions, functions inside it included."""
    names = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname in opcodes}
    return names.union(*(_named(const, *opcodes) for const in code.co_consts if isinstance(const, types.CodeType)))


def _module_parts(module):
    if module.__name__ in sys.builtin_module_names or _from_library(getattr(module, "__file__", None) or "<frozen"):
        return [module.__name__]
    return [module.__name__, {name: part for name, part in vars(module).items() if not name.startswith("__")}]


def _class_parts(kind):
    if _of_library(kind):
        return [kind.__module__, kind.__qualname__]
    skipped = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
               "__annotations__", "__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__")
    return [kind.__module__, kind.__qualname__, *kind.__bases__, {name: part for name, part in vars(kind).items() if name not in skipped}]


def _model_parts(model):
    if isinstance(model, torch.jit.ScriptModule):
        return [str(model.inlined_graph), dict(model.state_dict())]
    if type(model).__name__ == "OptimizedModule":  # torch.compile's: as the model in it
        return [model._modules["_orig_mod"]]
    hooks = [list(getattr(model, name).values()) for name in _HOOKS]
    settings = {name: part for name, part in vars(model).items() if name not in MODULE_STATE}
    return [type(model), model._parameters, model._buffers, list(model._modules.items()), settings, hooks]  # modules act in their order


def own_code(kinds) -> list:
    """Of classes that no library defines, the code of their methods, by name: what changes when somebody edits them."""
    found = []
    for kind in dict.fromkeys(base for own in kinds for base in own.__mro__):
        if _of_library(kind):
            continue
        methods = {name: getattr(part, "__func__", part) for name, part in vars(kind).items()}
        found.append([kind.__qualname__, {name: part.__code__ for name, part in methods.items() if isinstance(part, types.FunctionType)}])
    return found


def _of_library(kind):
    if kind.__module__ == "__main__":  # a user's, though the file may be that of what runs it: python -m cProfile train.py
        return False
    module = sys.modules.get(kind.__module__)
    return kind.__module__ in sys.builtin_module_names or _from_library(getattr(module, "__file__", None) or "")


def _from_library(filename):
    return filename.startswith(_LIBRARIES) or filename.startswith("<frozen") or "site-packages" in filename
