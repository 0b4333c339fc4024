"""Receipts cannot lie: whatever is edited, cut, swapped or flipped is named with the remedy, with a checksum and mostly without one."""

import json
import random
import subprocess

import pytest

from artifact import experiment, jobs, receipts
from artifact.compute import measure, origin, trained
from artifact.exhibits import exhibit
from artifact.measurements import black_box, white_box

QUICK = experiment.ROOT / "results" / "quick"
ATTACK = next((QUICK / "evaluations" / "sce").glob("pgd-*.json"))
MODEL = next((QUICK / "models").glob("sce-*.json"))
TRANSFER = next((QUICK / "evaluations" / "sce").glob("transfer_pgd-*.json"))
NOTEBOOK = next((QUICK / "notebooks").glob("03_white_box-*.json"))


def copied(path, folder, sealed):
    """A committed receipt in a folder of the same shape; `sealed` with the checksum of today, else with none, as the first have."""
    new = folder / path.relative_to(QUICK)
    new.parent.mkdir(parents=True, exist_ok=True)
    receipt = receipts.read_receipt(path)
    if sealed:
        receipts.write_receipt(new, receipt)
    else:
        new.write_text(json.dumps({key: value for key, value in receipt.items() if key != "sha256"}), encoding="utf-8")
    return new


def refused(path):
    with pytest.raises(ValueError, match="is damaged .*; delete it and run the same command again") as error:
        receipts.read_receipt(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_the_committed_record_proves_itself():
    found = list(QUICK.rglob("*.json"))
    assert len(found) > 190 and all(receipts.read_receipt(path) for path in found)


@pytest.mark.parametrize("source", [ATTACK, MODEL, TRANSFER, NOTEBOOK], ids=lambda path: path.parent.name)
def test_what_is_written_is_what_is_read(source, tmp_path):
    assert receipts.read_receipt(copied(source, tmp_path, sealed=True)) == receipts.read_receipt(source)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\xfe{}", b'{"kind": "model"}', b"[" * 100_000,
                                     b'{"kind": "notebook", "results": {"a": NaN}}', b'{"kind": "notebook", "results": {"a": 1e999}}',
                                     b'{"kind": "notebook", "results": {"a": 1, "a": 2}}', b'{"kind": "notebook", "results": []}',
                                     b'{"kind": "card", "results": {}}', b'{"kind": ["model"], "results": {}}'])
def test_what_is_no_receipt_is_named(tmp_path, content):
    path = tmp_path / "models" / "sce-000000000000.json"
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path)


def test_a_folder_in_a_receipts_place_is_named(tmp_path):
    refused(tmp_path)
    with pytest.raises(FileNotFoundError):
        receipts.read_receipt(tmp_path / "absent.json")
    with pytest.raises(ValueError):
        receipts.write_receipt(tmp_path / "a" / "b.json", {"a": float("nan")})
    assert not list(tmp_path.rglob("*b.json*"))


def of_another(receipt):
    receipt["results"]["correct"] = "f" * 50


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("change", [
    *[lambda r, value=value: r["results"].update(accuracy=value) for value in (0.9, -0.5, 1e308, True, "0.4", None, 2)],
    *[lambda r, value=value: r["results"].update(interval=value) for value in ([0.1, 0.9], [0.9], None, "x")],
    *[lambda r, value=value: r["results"].update(correct=value) for value in ("", "00", "zz", None, "f" * 400)],
    lambda r: r["results"].update(zero_gradients=1.5), lambda r: r["results"].pop("correct"), lambda r: r["results"].pop("interval"),
    of_another, lambda r: r.update(identity="0" * 12), lambda r: r.update(kind="model"), lambda r: r.update(model="mmc-10"),
    lambda r: r.update(model_identity="0" * 12), lambda r: r.pop("config"), lambda r: r["config"].update(epsilon=0.5),
    lambda r: r["config"].update(seed=1), lambda r: r["config"].update(targeted=True), lambda r: r["data"].update(images=100),
    lambda r: r["data"].update(images="200"), lambda r: r["data"].pop("images"), lambda r: r.update(results=[]),
])
def test_an_edited_evaluation_is_refused(tmp_path, change, sealed):
    path = copied(ATTACK, tmp_path, sealed)
    receipt = json.loads(path.read_bytes())
    change(receipt)
    path.write_text(json.dumps(receipt), encoding="utf-8")
    refused(path)


@pytest.mark.parametrize("change", [lambda r: r["results"].update(test_accuracy=0.99), lambda r: r["config"].update(radius=3.0),
                                    lambda r: r["data"].update(test_images=9), lambda r: r.update(model="mmc-10")])
def test_an_edited_model_is_refused(tmp_path, change):
    path = copied(MODEL, tmp_path, sealed=False)
    receipt = json.loads(path.read_bytes())
    change(receipt)
    path.write_text(json.dumps(receipt), encoding="utf-8")
    refused(path)


def test_swapped_receipts_are_refused(tmp_path):
    for source, place in ((ATTACK, TRANSFER), (MODEL, ATTACK), (NOTEBOOK, MODEL), (ATTACK, MODEL)):
        path = copied(place, tmp_path, sealed=False)
        path.write_bytes(source.read_bytes())
        refused(path)
    other = tmp_path / "evaluations" / "mmc-10" / ATTACK.name
    other.parent.mkdir(parents=True)
    other.write_bytes(ATTACK.read_bytes())
    refused(other)
    notebook = copied(NOTEBOOK, tmp_path, sealed=False)
    receipts.write_receipt(notebook, {"identity": "0" * 12, "kind": "notebook", "results": {}})
    refused(notebook)


def test_a_notebooks_receipt_has_a_checksum_and_a_place(tmp_path):
    path = tmp_path / "notebooks" / "03_white_box-0123456789ab.json"
    trained.write_notebook_receipt(str(path), {"claims": [], "figure": {"says": "3 of 5"}})
    content = json.loads(path.read_bytes())
    for change in (lambda r: r["results"]["figure"].update(says="5"), lambda r: r.pop("sha256"), lambda r: r.update(identity="f" * 12)):
        changed = json.loads(json.dumps(content))
        change(changed)
        path.write_text(json.dumps(changed), encoding="utf-8")
        refused(path)
    receipts.write_receipt(tmp_path / "models" / path.name, content)
    refused(tmp_path / "models" / path.name)


@pytest.mark.parametrize("source", [ATTACK, MODEL, TRANSFER, NOTEBOOK], ids=lambda path: path.parent.name)
def test_a_flipped_bit_is_never_read_as_another_receipt(tmp_path, source):
    path = copied(source, tmp_path, sealed=True)
    right, content, chance = receipts.read_receipt(path), path.read_bytes(), random.Random(0)
    silent = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:  # a flip among blanks changes nothing
            silent += receipts.read_receipt(path) != right
        except ValueError as error:
            assert "delete it and run the same command again" in str(error)
    assert silent == 0


def test_tables_take_the_receipts_own_count(tmp_path, monkeypatch):
    profile = experiment.load_profile("quick")
    spec = white_box.table_1(profile, "sce")["clean"]
    assert len(exhibit.correct(profile, spec)) == profile.white_box.images
    assert len(exhibit.correct(profile, spec)) == receipts.read_receipt(spec.path(profile))["data"]["images"]
    with pytest.raises(ValueError, match="not those of 11 images"):
        receipts.unpack("fff0", 11)


def test_an_evaluation_of_another_checkpoint_is_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    profile = experiment.load_profile("quick")
    spec = white_box.table_1(profile, "sce")["clean"]
    for source in (MODEL, QUICK / spec.path(profile).relative_to(tmp_path / "quick")):
        copied(source, tmp_path / "quick", sealed=True)
    assert exhibit.evaluation(profile, spec)["accuracy"] > 0
    path = experiment.model_receipt_path(profile, "sce")
    receipt = receipts.read_receipt(path)
    receipt["results"]["checkpoint_sha256"] = "0" * 64
    receipts.write_receipt(path, receipt)
    with pytest.raises(exhibit.Missing, match="another checkpoint"):
        exhibit.evaluation(profile, spec)


def test_the_short_form_of_the_torture_finds_nothing(capsys):
    from tests import torture
    assert torture.main(["--flips", "40", "--edits", "20", "--disks", "5"]) == 0
    assert capsys.readouterr().out.startswith("torture: flips 40 tried, 0 lost, 0 unnamed, 0 silent wrong; edits 20 tried")


@pytest.mark.parametrize("change", [{"accuracy": 0.9}, {"interval": [0.1, 0.9]}, {"correct": "f" * 50}])
def test_an_edited_transfer_is_refused(tmp_path, change):
    path = copied(TRANSFER, tmp_path, sealed=False)
    receipt = json.loads(path.read_bytes())
    receipt["results"]["targets"]["mmc-10"] |= change
    path.write_text(json.dumps(receipt), encoding="utf-8")
    refused(path)


@pytest.mark.parametrize("other", ["sce", "mmc-10"])
def test_a_transfer_onto_another_checkpoint_is_neither_drawn_nor_found(tmp_path, monkeypatch, other):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    profile = experiment.load_profile("quick")
    spec = next(iter(black_box.transfer(profile, "sce").values()))
    for path in ((QUICK / "models").glob("*.json")):
        copied(path, tmp_path / "quick", sealed=True)
    copied(QUICK / spec.path(profile).relative_to(tmp_path / "quick"), tmp_path / "quick", sealed=True)
    assert measure._found(profile, spec.path(profile)) and exhibit.evaluation(profile, spec)
    path = experiment.model_receipt_path(profile, other)
    receipt = receipts.read_receipt(path)
    receipt["results"]["checkpoint_sha256"] = "0" * 64
    receipts.write_receipt(path, receipt)
    with pytest.raises(exhibit.Missing, match="another checkpoint"):
        exhibit.evaluation(profile, spec)
    assert measure._found(profile, spec.path(profile)) is None
    job = next(job for job in jobs.plan(profile) if spec.path(profile) in job.makes)
    assert spec.path(profile) in job.missing()


def test_a_receipts_commit_is_that_of_the_code_that_ran(monkeypatch):
    origin._commit.cache_clear()
    before = origin._commit()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked again"))
    made = origin.provenance(experiment.load_profile("demo"), 1.0)
    assert {key: made[key] for key in before} == before
