"""Reads a profile from profiles/<name>.yaml or from a file of one's own; whatever is wrong in it is a sentence."""

import os
import re
from pathlib import Path
from types import UnionType

import yaml
from pydantic import BaseModel, ValidationError

from artifact.profiles import ROOT, Profile

FAULTS_SHOWN = 20
LARGEST = 200_000  # bytes of a profile's file


def _allowed_keys(where: tuple) -> list[str]:
    kind = Profile
    for step in where:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[step].annotation
            kind = kind.__args__[0] if isinstance(kind, UnionType) else kind  # X | None -> X
        else:
            kind = kind.__args__[-1]  # dict[str, X] -> X, list[X] -> X
    return sorted(set(kind.model_fields) - {"name", "source"})


class _Loader(yaml.SafeLoader):
    """YAML as a profile may use it: no key twice, no number that YAML reads in another base than it looks."""


def _mapping(loader, node, deep=False):
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is no word; put it in quotes", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _integer(loader, node):
    if not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value):
        raise yaml.constructor.ConstructorError(None, None, f"write {node.value!r} as a plain decimal number", node.start_mark)
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def _read(path: Path):
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes, which no profile is")
    loader = _Loader(path.read_bytes().decode("utf-8-sig"))
    try:
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > LARGEST:  # a few lines of aliases can stand for gigabytes
            raise ValueError("its aliases stand for more than a profile holds")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node, known: dict) -> int:
    """Nodes with every alias written out; ValueError where one holds itself."""
    if id(node) in known:
        if known[id(node)] is None:
            raise ValueError("an alias holds itself")
        return known[id(node)]
    known[id(node)] = None
    inner = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_size(child, known) for child in inner))
    return known[id(node)]


def load_profile(name: str) -> Profile:
    """Read and validate profiles/<name>.yaml (or a path to a YAML file).

    Raises ValueError with a sentence for each fault that names the file, the key, and what is allowed.
    """
    named = name.endswith((".yaml", ".yml"))
    path = Path(os.path.abspath(os.path.expanduser(name))) if named else ROOT / "profiles" / f"{name}.yaml"
    if not path.is_file() or path.name not in os.listdir(path.parent):  # a disk that does not tell CPU from cpu
        known = ", ".join(sorted(p.stem for p in (ROOT / "profiles").glob("*.yaml")))
        if not known:
            raise ValueError("profiles, notebooks and receipts are in a clone of the repository, not in the installed package; "
                             "run this command in a clone")
        raise ValueError(f"there is no profile {name!r}; known: {known}, or the path of a YAML file")
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    if path.parent != ROOT / "profiles" and (ROOT / "profiles" / f"{path.stem}.yaml").exists():
        raise ValueError(f"{shown} is called as the built-in profile {path.stem!r}, in whose folders its results and figures would lie; "
                         "give it another name")
    try:
        settings = _read(path)
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{shown} is not valid YAML: {' '.join(str(error).split())[:300] or 'it is nested too deeply'}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{shown} must hold a mapping of keys to values, got {type(settings).__name__}")
    if taken := sorted({"name", "source"} & settings.keys()):
        raise ValueError(f"{shown}: unknown key {taken[0]!r}; allowed here: {', '.join(_allowed_keys(()))}")
    try:
        return Profile(**settings | {"name": path.stem, "source": str(path) if named else name})
    except ValidationError as error:
        faults = [f"{shown}: {_sentence(fault)}" for fault in error.errors()]
        more = [f"{shown}: and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise ValueError("\n".join(faults[:FAULTS_SHOWN] + more)) from None
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown} holds a key or a value that no profile has: {' '.join(str(error).split())[:300]}") from None


def _sentence(fault: dict) -> str:
    where = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}; allowed here: {', '.join(_allowed_keys(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"key {where!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}, got {fault['input']!r}" if where else message
