"""A tiny profile through the whole path: trained, attacked, looked up, killed in the middle, drawn; receipts equal but for provenance."""

import signal
import warnings

import pytest
import torch
import yaml

from artifact import experiment, jobs, processes, report, runners
from artifact.compute import measure, trained
from artifact.exhibits import white_box as white_box_exhibits
from artifact.measurements import white_box
from artifact.sections import Model
from mmclib import centers, zoo
from tests.artifact.tiny import TINY, told


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return experiment.load_profile(str(path))


def test_a_model_is_trained_once_and_then_found(tiny):
    first = trained.train(tiny, "mmc-10", progress=False)
    stamp = first.path.stat().st_mtime_ns
    again = trained.ensure_model(tiny, "mmc-10")
    assert again.path.stat().st_mtime_ns == stamp and again.receipt == first.receipt
    assert len(first.receipt["results"]["history"]) == 4
    for ours, theirs in zip(first.classifier.state_dict().values(), again.classifier.state_dict().values(), strict=True):
        assert ours.equal(theirs)


def test_a_list_that_papermill_took_for_text_and_an_unknown_model_are_a_sentence(tiny):
    from artifact.notebook import Run
    with pytest.raises(ValueError, match=r"methods must be a list of names, got '\[\]'; papermill takes lists by -y"):
        Run(tiny, "[]")
    for ask in (lambda: Run(tiny, ["nobody"]), lambda: trained.train(tiny, "nobody"), lambda: trained.ensure_model(tiny, "nobody")):
        with pytest.raises(ValueError, match="profile 'tiny' has no model 'nobody'; known: sce, mmc-10"):
            ask()


@pytest.mark.parametrize("loss", Model.model_fields["loss"].annotation.__args__)
def test_every_loss_that_a_profile_may_name_has_a_head(loss):
    extra = {"emc": {"alpha": 0.1}, "mmc-hm": {"radii": [10.0, 3.0]}}.get(loss, {})
    spec = Model(training="digits", loss=loss, **extra).model_dump()
    made = centers.max_mahalanobis_centers(10, 16) if loss in zoo.PRESET else None
    head = zoo.assemble({"architecture": "small_convnet", "feature_dim": 16}, spec, 10, made, torch.zeros(1, 8, 8)).head
    assert (head.num_classes, head.feature_dim) == (10, 16)


def test_a_damaged_checkpoint_is_refused_with_the_remedy(tiny):
    model = trained.train(tiny, "sce", progress=False)
    file = experiment.checkpoint_folder(tiny, "sce") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint of 'sce' is damaged.* delete .* and train it again"):
        trained.ensure_model(tiny, "sce")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="checkpoint of 'sce' is missing"):
        trained.ensure_model(tiny, "sce")
    assert model.path.exists()


def test_a_model_that_takes_long_is_named_with_the_command_that_makes_it(tiny, tmp_path):
    settings = yaml.safe_load(TINY) | {"train_on_the_spot": False}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(FileNotFoundError, match="python -m artifact run --profile .* --only 'train sce'"):
        trained.ensure_model(experiment.load_profile(str(tmp_path / "long.yaml")), "sce")


def test_evaluations_are_looked_up_and_tables_drawn(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        receipts = {m: [measure.evaluate(tiny, spec) for spec in white_box.measurements(tiny, m)] for m in ("sce", "mmc-10")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.evaluation, "robust_accuracy", lambda *_, **__: pytest.fail("computed again"))
        assert [measure.evaluate(tiny, spec) for spec in white_box.measurements(tiny, "sce")] == receipts["sce"]
    table = white_box_exhibits.table_1(tiny)
    assert list(table.table.index) == ["SCE", "MMC-10"] and table.table.shape == (2, 10)
    assert set(table.values["verdict"]) == {"not comparable: other data or length"}
    unpacked = experiment.unpack(receipts["sce"][0]["results"]["correct"], 40)
    assert unpacked.mean() == pytest.approx(receipts["sce"][0]["results"]["accuracy"])
    worst = white_box_exhibits.objectives(tiny).values.set_index(["model", "objective"])["accuracy"]
    assert all(worst[m, "worst"] <= worst[m, o] for m in ("sce", "mmc-10") for o in ("cross_entropy", "untargeted_1", "untargeted_2"))


@pytest.mark.parametrize("number", processes.STOPPING)
def test_whatever_stops_a_training_leaves_its_state_and_the_next_call_goes_on(tiny, monkeypatch, capsys, number):
    fit = trained.training.fit

    def asked_in_the_third_step(*arguments, stop, **settings):
        steps = []

        def step():
            steps.append(None)
            if len(steps) == 3:
                signal.raise_signal(number)
            return stop()
        return fit(*arguments, stop=step, **settings)

    with monkeypatch.context() as patched, processes.stoppable():
        patched.setattr(trained.training, "fit", asked_in_the_third_step)
        with pytest.raises(processes.Stopped) as stopped:
            trained.train(tiny, "sce", progress=False)
    assert stopped.value.number == number and "sce stopped in epoch 1 of 4; its state is saved" in capsys.readouterr().out
    states = sorted(path.name for path in experiment.checkpoint_folder(tiny, "sce").iterdir())
    assert [name.split("-")[1] for name in states] == ["000000003"] and not experiment.model_receipt_path(tiny, "sce").exists()
    resumed = told(trained.train(tiny, "sce", progress=False).receipt)
    experiment.model_receipt_path(tiny, "sce").unlink()
    assert told(trained.train(tiny, "sce", progress=False).receipt) == resumed and resumed["results"]["test_accuracy"] > 0.5


def test_the_report_says_what_is_missing_and_how_to_make_it(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    written = {entry.name: entry for entry in report.write_all(tiny)}
    assert written["Table 1"].files == report.NOT_MADE and f"make reproduce PROFILE={tiny.source}" in written["Table 1"].says
    assert (tmp_path / "figures" / "tiny" / "index.html").exists()


def test_plain_and_papermill_runs_share_receipts(tiny):
    job = jobs.find(tiny, "train sce, mmc-10")
    runners.run_plain(tiny, job)
    assert job.done()
    models = {path.name: path.read_bytes() for path in (experiment.results_folder(tiny) / "models").glob("*.json")}
    assert len(models) == 2
    kept = told(experiment.read_receipt(job.receipt))
    runners.run_notebook(tiny, job)
    assert told(experiment.read_receipt(job.receipt)) == kept
    assert models == {path.name: path.read_bytes() for path in (experiment.results_folder(tiny) / "models").glob("*.json")}
    assert runners.log_path(tiny, job).exists()
    runners.log_path(tiny, job).unlink()


def test_a_failing_notebook_shows_its_error_and_keeps_its_log(tiny):
    job = jobs.Job("broken", "02_training", {"profile": tiny.source, "model": "nobody"}, (experiment.results_folder(tiny) / "x.json",))
    with pytest.raises(RuntimeError, match="broken: cell .* of 02_training.ipynb failed(.|\n)*nobody"):
        runners.run_notebook(tiny, job)
    log = runners.log_path(tiny, job)
    assert log.exists()
    log.unlink()
