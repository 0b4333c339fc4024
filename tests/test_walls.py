"""Two packages with a wall: mmclib is what another project imports, artifact is this paper's, and drawing waits for no torch."""

import ast
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mmclib", "artifact")
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
WITHOUT_TORCH = ("artifact.jobs", "artifact.estimates", "artifact.machine", "artifact.report")
DRAWING = sorted(name for name in FILES if name in WITHOUT_TORCH or name.startswith("artifact.exhibits"))


def statements(module, everywhere):
    """The import statements of a module; without `everywhere` those that run when it is loaded, outside all functions."""
    waiting = [ast.parse(FILES[module].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def targets(module, node):
    """What one import statement names: modules of ours by their full names, others by their distribution's top name."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert node.level == 0, f"{module}: relative imports are not read here"
        names = [name if (name := f"{node.module}.{alias.name}") in FILES else node.module for alias in node.names]
    for name in names:
        assert name in FILES or name.split(".")[0] not in PACKAGES, f"{module} imports {name}, which there is not"
        yield name if name in FILES else name.split(".")[0]


@cache
def imports(module, everywhere):
    return frozenset(name for node in statements(module, everywhere) for name in targets(module, node))


def ways(start, everywhere):
    """Everything that loading `start` reaches, each with the modules on the way to it; a module loads the packages it lies in."""
    found, waiting = {start: (start,)}, [start]
    while waiting:
        module = waiting.pop()
        parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
        for name in [*sorted(imports(module, everywhere)), *parents] if module in FILES else []:
            if name not in found:
                found[name] = (*found[module], name)
                waiting.append(name)
    return found


def refused(start, forbidden, everywhere):
    return [" -> ".join(way) for name, way in ways(start, everywhere).items() if name.split(".")[0] in forbidden]


@pytest.mark.parametrize("module", [name for name in FILES if name.split(".")[0] == "mmclib"])
def test_the_library_knows_nothing_of_the_artifact(module):
    assert not refused(module, {"artifact", "pandas", "matplotlib", "pydantic", "yaml"}, everywhere=True)


@pytest.mark.parametrize("module", DRAWING)
def test_jobs_exhibits_and_the_report_load_no_torch(module):
    assert not refused(module, {"torch", "torchvision", "safetensors"}, everywhere=False)


def test_no_module_imports_itself_by_a_detour():
    seen, path = set(), []

    def visit(module):
        assert module not in path, "a circle: " + " -> ".join([*path[path.index(module):], module])
        if module in seen:
            return
        path.append(module)
        for name in sorted(imports(module, everywhere=True) & FILES.keys()):
            visit(name)
        seen.add(path.pop())

    for module in FILES:
        visit(module)


def test_the_walls_see_what_they_should():
    assert "torch" in ways("mmclib.models", everywhere=False) and "torch" in ways("artifact.compute.measure", everywhere=False)
    assert "matplotlib" not in ways("artifact.runners", everywhere=False) and "matplotlib" in ways("artifact.runners", everywhere=True)
    assert "mmclib.attacks.pgd" in ways("mmclib.attacks", everywhere=False)


def test_the_worked_example_of_a_table_is_the_codes():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A new table or figure")[2].partition("## Numbers")[0]
    excerpts = [[line.strip() for line in block.partition("```")[0].splitlines()[1:]] for block in text.split("```python")[1:]]
    rooms = ("sections.py", "measurements/white_box.py", "exhibits/white_box.py", "report.py")
    for room, lines in zip(rooms, excerpts, strict=True):
        code = [line.strip() for line in (ROOT / "artifact" / room).read_text(encoding="utf-8").splitlines()]
        assert [line for line in lines if line and line not in code] == [], room


def test_whoever_adds_a_loss_a_data_set_or_a_network_finds_all_places_named():
    """CONTRIBUTING names the tables that need a line; each has one for whatever a profile may ask for."""
    from artifact import methods, preflight, profiles, sections
    from artifact.exhibits import variants
    from artifact.measurements import ladder, measurement
    from mmclib import data, zoo
    losses, sets, networks = (get_args(model.model_fields[field].annotation) for model, field in (
        (sections.Model, "loss"), (sections.Training, "dataset"), (sections.Training, "architecture")))
    assert set(losses) == set(methods.METHODS) and {*measurement.ADAPTIVE, *ladder.KNOWN_NORM} <= set(zoo.PRESET) <= set(losses)
    assert set(sets) == set(profiles.SIZES) == set(variants.NAMES) and data.NUM_CLASSES == profiles.CLASSES
    assert set(networks) == set(preflight.NETWORK_MIB)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in (
        "METHODS", "ADAPTIVE", "KNOWN_NORM", "SIZES", "CLASSES", "NAMES", "NETWORK_MIB", "PER_IMAGE", "LEAST_DISTORTION", "MODEL_FIELDS",
        "REVISION"))


def test_every_page_at_the_root_has_its_place_in_the_documentation():
    places = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [path.name for path in ROOT.glob("*.md") if f"\n../{path.stem}\n" not in places] == []
