"""A Workflow Run RO-Crate (profile 0.5) of a profile: receipts, exhibits and what made them, with a provenance other tools can read."""

import datetime
import hashlib
import io
from importlib.metadata import version
from pathlib import Path

from artifact import jobs
from artifact.experiment import ROOT, Profile, model_receipt_path, read_receipt, results_folder
from mmclib.installing import installing

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # what RO-Crate 1.1 has no word for
ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
COMPLETED = "http://schema.org/CompletedActionStatus"
BIOSCHEMAS = "https://bioschemas.org/profiles"
MEDIA = {".json": "application/json", ".yaml": "application/yaml", ".ipynb": "application/x-ipynb+json", ".png": "image/png",
         ".pdf": "application/pdf", ".csv": "text/csv", ".md": "text/markdown", ".tex": "application/x-tex", ".html": "text/html"}


def write(profile: Profile, destination: Path) -> Path:
    """Write the crate of all receipts that a profile has into a new folder, or a file where its name ends in .zip; returns the path.

    Every receipt is verified as it is read. ValueError where there are none, the place is taken, or the library is missing.
    """
    destination = Path(destination)
    if (ending := destination.suffix.lower()) in ARCHIVES or ending == ".zip" != destination.suffix:
        raise ValueError(f"{destination} would become a folder; a crate is a folder, or a file whose name ends in .zip")
    try:
        from rocrate.rocrate import ROCrate
    except ModuleNotFoundError:
        raise ValueError("a crate is written by rocrate, which is not installed; "
                         f"install it with: {installing('rocrate>=0.13')}") from None
    if destination.exists() and (destination.is_file() or any(destination.iterdir())):
        raise ValueError(f"{destination} is there already; name a new folder, or a new file that ends in .zip")
    planned = jobs.plan(profile)
    made = {path: job for job in planned for path in (*job.makes, job.receipt) if path.exists()}
    if not made:
        raise ValueError(f"profile {profile.name!r} has no receipts yet; make them with: make reproduce PROFILE={profile.argument}")
    crate = ROCrate(version="1.1")  # which the profiles of version 0.5 extend
    done = sum(job.done() for job in planned)
    _describe(crate, profile, done, len(planned))
    workflow, settings = _workflow(crate, profile), _settings(crate, profile)
    files, actions = {}, []
    for path, job in made.items():  # in the order of the plan: models before what used them
        receipt = read_receipt(path)
        place = path.relative_to(results_folder(profile).parent)
        files[path] = _file(crate, path, f"results/{place}", f"Receipt of {_what(receipt, path)}")
        actions.append(_action(crate, profile, receipt, path, job, files, [settings, *_data(crate, receipt)]))
    exhibits = [_file(crate, path, f"figures/{profile.name}/{path.name}", f"{path.stem.replace('_', ' ')} ({path.suffix[1:]})")
                for path in jobs.drawn_files(profile) if path.suffix in MEDIA]
    starts, ends = ([action[name] for action in actions if action.get(name)] for name in ("startTime", "endTime"))
    run = _add(crate, "#run", "CreateAction", name=f"Profile {profile.name}", description=f"{profile.title}: every table and figure",
               instrument=workflow, object=settings, result=[*files.values(), *exhibits], agent=crate.get("#maintainers"),
               actionStatus=COMPLETED if done == len(planned) else None, startTime=min(starts), endTime=max(ends))
    crate.root_dataset["mentions"] = [run, *actions]
    crate.root_dataset["datePublished"] = max(ends)
    (crate.write_zip if destination.suffix == ".zip" else crate.write)(destination)
    return destination


def _add(crate, identifier, kind, **properties):
    from rocrate.model.contextentity import ContextEntity
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **{k: v for k, v in properties.items() if v is not None}}))


def _describe(crate, profile, done, planned):
    crate.name = f"Max-Mahalanobis center loss, profile {profile.name}"
    crate.description = (f"{profile.title}. Receipts, tables and figures of {done} of {planned} jobs of a reproducible artifact of "
                         "'Rethinking Softmax Cross-Entropy Loss for Adversarial Robustness' (ICLR 2020).")
    crate.license = _add(crate, "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License",
                         description="Permission to use, copy, modify and distribute, with the notice kept and no warranty")
    crate.root_dataset["author"] = _add(crate, "#maintainers", "Organization", name="The mmclib maintainers")
    crate.root_dataset["conformsTo"] = [
        _add(crate, url, "CreativeWork", name=name, version=url.rsplit("/", 1)[1]) for url, name in PROFILES.items()]
    crate.metadata.extra_contexts.append(TERMS)
    readme = f"# {crate.name}\n\n{crate.description}\n\nEach file's provenance: `ro-crate-metadata.json` (Workflow Run RO-Crate 0.5).\n"
    crate.add_file(io.StringIO(readme), "README.md", properties={
        "name": "README", "encodingFormat": "text/markdown", "about": crate.root_dataset, "contentSize": str(len(readme.encode()))})


def _workflow(crate, profile):
    workflow = crate.add_workflow(ROOT / "Snakefile", "Snakefile", main=True, lang="snakemake", lang_version=_version("snakemake"))
    workflow["name"], workflow["version"] = "Snakefile", version("mmclib")
    workflow["description"] = "One rule a job, one job a notebook run; what there is to do comes from artifact.jobs"
    workflow["conformsTo"], workflow["encodingFormat"] = {"@id": f"{BIOSCHEMAS}/ComputationalWorkflow/1.0-RELEASE"}, "text/x-python"
    for output in ("receipt", "exhibit"):
        workflow.append_to("output", _add(crate, f"#{output}", "FormalParameter", name=output, additionalType="File",
                                          conformsTo={"@id": f"{BIOSCHEMAS}/FormalParameter/1.0-RELEASE"}))
    workflow["input"] = _add(crate, "#profile", "FormalParameter", name="profile", additionalType="File", valueRequired=True,
                             conformsTo={"@id": f"{BIOSCHEMAS}/FormalParameter/1.0-RELEASE"},
                             description="What to train, what to attack and how hard")
    python = _add(crate, "https://www.python.org/", "ComputerLanguage", name="Python", url="https://www.python.org/")
    for name in dict.fromkeys(job.notebook for job in jobs.plan(profile)):
        code = {"@type": ["File", "SoftwareSourceCode"], "version": version("mmclib"), "programmingLanguage": python}
        workflow.append_to("hasPart", _file(crate, ROOT / "notebooks" / f"{name}.ipynb", f"notebooks/{name}.ipynb", name, **code))
    return workflow


def _settings(crate, profile):
    source = Path(profile.source) if profile.source.endswith((".yaml", ".yml")) else ROOT / "profiles" / f"{profile.source}.yaml"
    settings = _file(crate, source, f"profiles/{source.name}", f"Profile {profile.name}")
    settings["exampleOfWork"] = crate.get("#profile")
    return settings


def _file(crate, path, place, name, **more):
    content = path.read_bytes()
    properties = {"name": name, "encodingFormat": MEDIA[path.suffix], "contentSize": str(len(content)),
                  "sha256": hashlib.sha256(content).hexdigest(), **more}
    for kind in ("results", "figures"):
        if place.startswith(f"{kind}/"):
            properties["exampleOfWork"] = crate.get({"results": "#receipt", "figures": "#exhibit"}[kind])
    return crate.add_file(path, place, properties=properties)


def _data(crate, receipt):
    # Which images, by the checksum of their pixels and labels; they themselves are not in the crate.
    data, found = receipt.get("data", {}), []
    for key in ("train_sha256", "test_sha256", "sha256"):
        if key in data:
            identifier, name = f"#data-{data[key][:12]}", data.get("name", "images")
            split = key.removesuffix("_sha256") if key != "sha256" else "test"
            found.append(crate.get(identifier) or _add(crate, identifier, "PropertyValue", name=f"{name}, {split} images and labels",
                                                       propertyID="sha256", value=data[key]))
    return found


def _what(receipt, path) -> str:
    if receipt["kind"] == "model":
        return f"the training of {receipt['model']}"
    if receipt["kind"] == "evaluation":
        return f"{receipt['config']['attack']} on {receipt['model']}"
    return f"notebook {path.stem.rsplit('-', 1)[0]}"


def _action(crate, profile, receipt, path, job, files, used):
    made = receipt["provenance"]
    if receipt["kind"] == "evaluation":
        names = [receipt["model"], *receipt.get("target_sha256", {})]
        used = [*used, *(files[model] for name in dict.fromkeys(names) if (model := model_receipt_path(profile, name)) in files)]
    ended = datetime.datetime.fromisoformat(made["finished"]) if made.get("finished") else None
    # Of the process that finished it; a training that was interrupted began earlier.
    started = ended - datetime.timedelta(seconds=made["seconds"]) if ended and "seconds" in made else None
    versions = ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "torchvision", "numpy") if made.get(name))
    return _add(
        crate, f"#{path.stem}", "CreateAction", name=_what(receipt, path).capitalize(), actionStatus=COMPLETED,
        description=f"On {made.get('device') or 'a device that is not known'} with {made.get('threads') or '?'} threads, "
                    f"{versions or 'versions not known'}, commit {made.get('commit') or 'not known'}",
        instrument=crate.get(f"notebooks/{job.notebook}.ipynb"), object=used if len(used) > 1 else used[0], result=files[path],
        agent=crate.get("#maintainers"), startTime=_iso(started), endTime=_iso(ended))


def _iso(moment) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
