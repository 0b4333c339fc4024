"""Verdicts, words and files of the report, apart from any run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from artifact import experiment, jobs, methods, page, report
from artifact.exhibits import exhibit, style
from artifact.exhibits import variants as variants_exhibits
from artifact.exhibits import white_box as white_box_exhibits

OTHER = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "OPENBLAS_CORETYPE": "Nehalem", "PYTHONWARNINGS": "ignore"}
REDRAW = """
import pathlib, sys
from artifact import experiment, report
for name in sys.argv[2:]:
    report.write_item(pathlib.Path(sys.argv[1]), report.make(name, experiment.load_profile("quick")))
"""


def comparable(change=None):
    profile = experiment.load_profile("paper")
    return profile.model_copy(update=change or {})


@pytest.mark.parametrize(("ours", "printed", "says"), [
    (36.9, "36.0", "reproduced"), (38.1, "36.0", "near"), (30.9, "36.0", "differs"),
    (0.2, "<=1", "reproduced"), (2.9, "<=1", "reproduced"), (3.5, "<=1", "near"), (19.0, "<=1", "differs"),
    (50.0, None, "paper: not available"), (50.0, float("nan"), "paper: not available"),
])
def test_a_verdict_follows_the_profiles_band(ours, printed, says):
    assert exhibit.verdict(comparable(), ours, printed) == says


def test_numbers_from_stand_in_data_get_no_verdict():
    assert exhibit.verdict(experiment.load_profile("demo"), 36.0, "36.0").startswith("not comparable")
    assert not experiment.load_profile("quick").comparable


def test_epsilon_reads_as_the_paper_writes_it():
    assert [exhibit.epsilon_text(e) for e in (8 / 255, 16 / 255, 0.1, 0.3)] == ["8/255", "16/255", "0.1", "0.3"]


def test_the_papers_rows_are_rows_of_the_paper_profile():
    profile = experiment.load_profile("paper")
    rows = [methods.label(profile, model) for model in profile.white_box.models]
    assert rows == list(exhibit.paper_table("table1.csv").index)


def test_a_worst_case_is_taken_image_by_image():
    flags = [np.array([True, True, False, True]), np.array([True, False, True, True])]
    assert exhibit.worst(flags)["accuracy"] == 50


def test_table_1_says_what_optimal_centers_add():
    """The paper's ablation, MMC-10 (rand): the difference of the two rows that the table shows."""
    item = white_box_exhibits.table_1(experiment.load_profile("cpu"))
    kept = item.values[item.values["column"] == "pgd50_un_8"].set_index("method")["accuracy"]
    assert f"MMC-10's optimal centers over random ones: {kept['MMC-10'] - kept['MMC-10 (rand)']:+.1f} points [" in item.says


def test_a_curve_that_ends_at_nothing_names_no_most_robust_model(monkeypatch):
    monkeypatch.setattr(white_box_exhibits, "evaluation", lambda profile, spec: spec)
    demo = experiment.load_profile("demo")
    images = demo.white_box.images
    monkeypatch.setattr(white_box_exhibits, "correct", lambda profile, spec: np.arange(images) < 1)
    for accuracy, says in ((0.0, f"no model keeps any of {images} images"), (3.1, "SCE keeps most, 3.1 % [0.0, 5.7]; the next is ")):
        monkeypatch.setattr(white_box_exhibits, "number", lambda spec, accuracy=accuracy: {"accuracy": accuracy, "low": 0.0, "high": 5.7})
        found = white_box_exhibits.curve(demo).says
        assert found.startswith(f"under PGD-{demo.white_box.steps[0]} with the margin objective at ε = 0.2 {says}")
        assert accuracy == 0 or "(paired difference 0.0 points [" in found, "a tie is no win"


def test_a_figure_is_the_same_file_when_drawn_again(tmp_path):
    data = pd.DataFrame({"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]})
    for folder in ("a", "b"):
        drawn = white_box_exhibits.draw_curve(data, {"sce": methods.look(comparable(), "sce")}, "title")
        report.write_item(tmp_path / folder, exhibit.Item("Figure 9", "figure", "title", "says", values=data, figure=drawn))
    for name in ("figure.pdf", "figure.png", "figure.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not plt.get_fignums()


def test_a_method_has_one_colour_and_adversarial_training_a_dash():
    profile = comparable()
    looks = {model: methods.look(profile, model) for model in ("mmc-10", "at-un-mmc-10", "mmc-10-2d", "mmc-100", "sce")}
    assert len({looks[m]["color"] for m in ("mmc-10", "at-un-mmc-10", "mmc-10-2d")}) == 1
    assert looks["mmc-100"]["color"] != looks["mmc-10"]["color"] != looks["sce"]["color"]
    assert looks["at-un-mmc-10"]["linestyle"] == ":" and looks["mmc-10"]["linestyle"] == "-"


def test_long_form_names_every_number_by_where_it_stands():
    frame = report.long_form({"a": [1, [2.5]], "says": "words", "b": {"c": 3}})
    assert frame.to_dict("list") == {"what": ["a.0", "a.1.0", "b.c"], "value": [1, 2.5, 3]}


def test_a_table_is_written_in_every_format(tmp_path):
    table = pd.DataFrame({"PGD-10 un, ε = 8/255": ["36.0"]}, index=["MMC-10 (100 %_x)"])
    item = report.Item("Table 9", "table_9", "A title", "It says", table, pd.DataFrame({"accuracy": [36.0]}))
    assert report.write_item(tmp_path, item) == ["table_9.csv", "table_9.md", "table_9.tex"]
    assert "| MMC-10 (100 %_x) |" in (tmp_path / "table_9.md").read_text()
    latex = (tmp_path / "table_9.tex").read_text()
    assert r"100 \%\_x" in latex and r"$\varepsilon$ = 8/255" in latex and r"\toprule" in latex
    assert r"\caption{A title}" in latex and r"\label{tab:table_9}" in latex


def test_every_committed_latex_table_is_plain_ascii_with_balanced_math():
    for path in (experiment.ROOT / "figures" / "quick").glob("*.tex"):
        text = path.read_text()
        assert text.isascii(), path.name
        assert text.replace(r"\$", "").count("$") % 2 == 0 and not re.search(r"(?<!\\)[%#]", text.partition("\n")[2]), path.name


def test_a_header_has_epsilon_over_attack_over_goal():
    rows = page.header(["Clean", "PGD-10 tar, ε = 8/255", "PGD-10 un, ε = 8/255", "PGD-50 un, ε = 8/255"])
    assert rows == [[("Clean", 1, 3), ("ε = 8/255", 3, 1)],
                    [("PGD-10", 2, 1), ("PGD-50", 1, 1)], [("tar", 1, 1), ("un", 1, 1), ("un", 1, 1)]]
    assert page.header(["a", "b"]) == [[("a", 1, 1), ("b", 1, 1)]]


def test_a_page_opens_with_the_verdicts_and_marks_the_best(tmp_path):
    profile = experiment.load_profile("quick")
    made = [report.make(name, profile) for name in ("Table 1", "Ladder", "Verdict")]
    text = page.write(profile, tmp_path, made).read_text()
    assert text.index('class="chips"') < text.index('src="ladder.png"') < text.index("<nav") < text.index('id="table_1"')
    cells = {cell.text: cell for name, row in page.grid(made[0]).rows for cell in row if name == "MMC-10"}
    assert cells["91.5"].best and cells["24.5"].paper == "24.8" and cells["24.5"].interval == "19.1–30.9"
    assert '<a href="ladder.png"><img src="ladder.png"' in text  # on a phone a figure is read in its own size


def test_a_table_too_wide_for_the_page_is_turned_and_its_text_checks_are_short():
    checks = [f"check {number}" for number in range(9)]
    table = pd.DataFrame({check: {"SCE": "ok (5.0 → 0.0)", "MMC-10": "FLAG (53.8 %)"} for check in checks})
    found = page.grid(report.Item("Self-checks", "self_checks", "A title", "It says", table, pd.DataFrame({"ok": [True]})))
    assert found.turned and found.columns == ["SCE", "MMC-10"] and [name for name, _ in found.rows] == checks
    ok, flag = found.rows[0][1]
    assert (ok.text, ok.interval, ok.best) == ("ok", "5.0 → 0.0", False)
    assert (flag.text, flag.interval, flag.best) == ("FLAG", "53.8 %", True)
    assert "interval" not in found.legend and found.words == [False, False]
    table.loc["MMC-10", checks[2]] = "no: another attack fools 7.5 % (464 left)"
    found = page.grid(report.Item("Indicators", "indicators", "A title", "It says", table, pd.DataFrame({"ok": [True]})))
    assert found.words == [False, True], "a column of sentences reads from the left, turned or not"
    assert not page.grid(report.Item("Table", "table", "A title", "It says", table[checks[:4]], pd.DataFrame({"ok": [True]}))).turned


@pytest.mark.parametrize(("plain", "html"), [
    ("8.5 by untargeted_1, no multi_targeted", "8.5 by L<sub>Ada</sub><sup>un,1</sup>, no multi_targeted"),
    ("MMC-10 keeps 69.8 %: -7.0 points [-13.3, +0.6] on 2026-11-25",
     "MMC-10 keeps 69.8\N{NO-BREAK SPACE}%: −7.0 points [−13.3, +0.6] on 2026-11-25"),
    ("log(e^C - 1) as C^(-(d-2)/2)", "log(e<sup>C</sup> - 1) as C<sup>-(d-2)/2</sup>"),
    ("σ_k < σ_k\N{COMBINING TILDE} & <b>", "σ<sub>k</sub> &lt; σ<sub>k\N{COMBINING TILDE}</sub> &amp; &lt;b&gt;"),
])
def test_the_page_writes_no_name_power_or_minus_sign_raw(plain, html):
    assert page.symbols(plain) == html


def test_a_number_that_is_text_has_its_interval_below_it_and_stands_right():
    table = pd.DataFrame({"right from wrong": {"SCE": "0.830 [0.761, 0.883] (81 wrong)", "MMC-10": "–"},
                          "found": {"SCE": "it holds", "MMC-10": ""}})
    found = page.grid(report.Item("Uncertainty", "uncertainty", "A title", "It says", table, pd.DataFrame({"ok": [True]})))
    number, words = found.rows[0][1]
    assert (number.text, number.interval, words.text, words.interval) == ("0.830", "0.761–0.883, 81 wrong", "it holds", "")
    assert found.words == [False, True] and found.legend == "Small: 95 % intervals."


def test_only_a_table_of_sentences_is_read_downwards_on_a_phone(tmp_path):
    profile = experiment.load_profile("quick")
    made = [report.make(name, profile) for name in ("Table 1", "Uncertainty", "Verdict", "Claims")]
    text = page.write(profile, tmp_path, made).read_text()
    stacked = {part.partition('"')[0]: '<table class="read">' in part for part in text.split('<section id="')[1:]}
    assert stacked == {"table_1": False, "uncertainty": False, "verdict": True, "claims": True}
    assert '<p class="notes"><br>' not in text


def test_every_table_of_accuracies_has_intervals_on_the_page(tmp_path):
    profile = experiment.load_profile("quick")
    made = {name: report.make(name, profile) for name in ("Table 2-I", "Table 2-III", "Table 3", "Table 4", "Ladder")}
    text = page.write(profile, tmp_path, list(made.values())).read_text()
    for stem, section in ((part.partition('"')[0], part) for part in text.split('<section id="')[1:]):
        numbers, intervals = len(re.findall(r"<td>(?:<b>)?\d", section)), section.count("<small>")
        assert 0 < intervals == numbers and "95\N{NO-BREAK SPACE}% intervals" in section, stem
    assert made["Ladder"].numbers["SCE", "worst case"]["accuracy"] == 0


# What differs between processors: which instructions NumPy's and OpenBLAS' loops are made of, and with them last bits and unstable sorts.
def test_another_processors_instructions_draw_the_same_bytes(tmp_path):
    names = ("Figure 1", "Figure 2", "Figure 6", "Ladder", "Table 2-I")
    subprocess.run([sys.executable, "-c", REDRAW, str(tmp_path), *names], check=True, env={**os.environ, **OTHER}, cwd=experiment.ROOT)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert {"figure_1.pdf", "figure_1.png", "ladder.png", "table_2_distortion.csv"} <= set(drawn)
    committed = experiment.ROOT / "figures" / "quick"
    assert [name for name in drawn if (tmp_path / name).read_bytes() != (committed / name).read_bytes()] == []


def write_claims(job, **claims):
    made = [{"name": name, "holds": holds, "says": says} for name, (holds, says) in claims.items()]
    path = Path(job.parameters["output"])
    experiment.write_receipt(path, {"identity": path.stem[-12:], "kind": "notebook", "results": {"claims": made}, "provenance": {}})


def test_every_notebooks_claims_stand_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    profile = experiment.load_profile("quick")
    with pytest.raises(exhibit.Missing, match="no notebook"):
        report.notebook_claims(profile)
    planned = jobs.plan(profile)
    one, other, *_ = (job for job in planned if job.notebook == "02_training")
    *shards, whole = (job for job in planned if job.notebook == "07_verdict")
    write_claims(one, fell=(True, "of SCE"))
    write_claims(other, fell=(False, "of MMC-10"))  # the same claim of other models: it holds where it holds of all
    write_claims(shards[0], blind=(False, "of some models"))  # the job over all models says it anew
    write_claims(whole, blind=(True, ""))
    item = report.notebook_claims(profile)
    assert item.table.to_dict("index") == {"02: fell": {"verdict": "does not hold", "found": "of SCE; of MMC-10"},
                                           "07: blind": {"verdict": "holds", "found": ""}}
    assert item.sentence == "1 of 2 claims hold; these do not: 02: fell."
    text = page.write(profile, tmp_path, [item]).read_text()
    assert 'id="claims"' in text and "02: fell" in text and "of SCE; of MMC-10" in text


def test_the_claims_of_a_model_trained_alone_have_a_receipt_of_their_own():
    for job in jobs.plan(experiment.load_profile("quick")):
        if job.notebook == "02_training":
            assert job.receipt.parent.name == "models"
            assert Path(job.parameters["output"]).name == f"02_training-{job.receipt.stem[-12:]}.json"


def test_a_long_table_runs_over_pages_in_latex_and_no_character_is_lost():
    table = pd.DataFrame({"found": ["‖z - μ‖² ≥ (‖z‖ - C_MM)², σ_k̃, ΔC × zᵀ"] * 30}, index=[f"claim {n}" for n in range(30)])
    text = report.latex(report.Item("Claims", "claims", "A title", "It says", table))
    assert r"\begin{longtable}" in text and "longtable" in text.partition("\n")[0] and text.isascii()
    assert r"$C_{\mathrm{MM}}$" in text and r"\begin{table}" not in text


def test_a_models_name_comes_from_its_fields_whatever_its_key():
    profile = experiment.load_profile("quick")
    fast, model = profile.training["cifar10-at"], profile.models["at-un-mmc-10"]
    profile = profile.model_copy(update={
        "training": profile.training | {"slow": fast.model_copy(update={"steps": 5, "noise": 0.0})},
        "models": profile.models | {"any": model.model_copy(update={"training": "slow"}), "other": model,
                                    "third": model.model_copy(update={"adversarial": None, "radius": 30.0, "form": "huber"})}})
    assert methods.label(profile, "any") == "AT_un5 (MMC-10)" and methods.paper_label(profile, "any") == "AT_un10 (MMC-10)"
    assert methods.label(profile, "other") == "AT_un, N-FGSM (MMC-10)" and methods.label(profile, "third") == "MMC-30, Huber"
    profile.models["again"] = profile.models["any"].model_copy(update={"seed": 1})
    assert methods.label(profile, "again") == "AT_un5 (MMC-10, seed 1)" and methods.short(profile, "again") == "AT MMC-10, seed 1"
    assert methods.paper_label(profile, "again") == "AT_un10 (MMC-10)", "the paper's row is of the method, whatever the seed"


@pytest.mark.parametrize(("plain", "html", "latex"), [
    ("L_Ada^{un,1} < 5 %", "L<sub>Ada</sub><sup>un,1</sup> &lt; 5 %", r"$L_{\mathrm{Ada}}^{\mathrm{un,1}}$ $<$ 5 \%"),
    ("AT_un10 (SCE)", "AT<sub>un10</sub> (SCE)", r"$\mathrm{AT}_{\mathrm{un10}}$ (SCE)"),
    ("C&W un, l_2", "C&amp;W un, l<sub>2</sub>", r"C\&W un, $\ell_{\mathrm{2}}$"),
    ("untargeted_1", "untargeted_1", r"untargeted\_1"),
])
def test_a_symbol_has_its_form_everywhere(plain, html, latex):
    assert (methods.html(plain), methods.latex(plain)) == (html, latex)


@pytest.fixture(scope="module")
def drawn():
    """Every figure of the committed receipts, by stem."""
    profile, made = experiment.load_profile("quick"), {}
    for name in report.ITEMS:
        try:
            item = report.make(name, profile)
        except exhibit.Missing:
            continue
        if item.figure is not None:
            made[item.stem] = item
    return made


def test_no_pdf_holds_a_type_3_font(drawn, tmp_path):
    assert len(drawn) >= 10
    for stem in ("ladder", "figure_2"):
        with plt.rc_context({"pdf.fonttype": 3, "savefig.dpi": 50, "savefig.bbox": "tight"}):  # whatever a user has set
            report.write_item(tmp_path, drawn[stem])
        written = (tmp_path / f"{stem}.pdf").read_bytes()
        assert b"/FontFile2" in written and b"/Type3" not in written
        assert plt.imread(tmp_path / f"{stem}.png").shape[1] == round(200 * style.WIDE)


def test_every_figure_has_one_of_two_widths(drawn):
    assert {round(item.figure.get_figwidth(), 4) for item in drawn.values()} <= {round(style.WIDE, 4), round(style.NARROW, 4)}


def texts(figure, renderer):
    """Every text that a figure shows, with its box in pixels."""
    shown = [*figure.texts, *([figure._suptitle] if figure._suptitle else []), *(text for key in figure.legends for text in key.texts)]
    for axes in figure.axes:
        shown += [axes.title, *(axes.texts if axes.name != "3d" else []), *(axes.get_legend().texts if axes.get_legend() else [])]
        if axes.axison and axes.name != "3d":
            for axis in (axes.xaxis, axes.yaxis):
                shown.append(axis.label)
                shown += [label for tick in axis._update_ticks() for label in (tick.label1, tick.label2)]
    found = {id(text): text for text in shown if text.get_visible() and text.get_text().strip()}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found.values()]


def overlaps(figure):
    """Pairs of texts whose boxes share more than a pixel both ways, and texts that leave the figure."""
    canvas = FigureCanvasAgg(figure)  # drawn without pyplot, it has none that draws
    canvas.draw()
    boxes, frame = texts(figure, canvas.get_renderer()), figure.bbox
    faults = [text for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > frame.x1 + 1 or box.y1 > frame.y1 + 1]
    for place, (text, box) in enumerate(boxes):
        faults += [(text, other) for other, its in boxes[:place]
                   if min(box.x1, its.x1) - max(box.x0, its.x0) > 1 and min(box.y1, its.y1) - max(box.y0, its.y0) > 1]
    return faults


def test_no_text_of_a_figure_stands_on_another(drawn):
    assert {stem: found for stem, item in drawn.items() if (found := overlaps(item.figure))} == {}


def test_a_narrow_figure_holds_the_demos_long_title():
    demo = experiment.load_profile("demo")
    title = exhibit.figure_title(demo, methods.mathtext("Accuracy against C_MM"))
    rows = {"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]}
    curve = white_box_exhibits.draw_curve(pd.DataFrame(rows), {"sce": methods.look(demo, "sce")}, title)
    radius = variants_exhibits.draw_radius(pd.DataFrame(rows | {"radius": [1, 10], "column": ["clean"] * 2}), title)
    assert overlaps(curve) == overlaps(radius) == []


def test_the_check_sees_two_texts_in_one_place():
    figure, axes = plt.subplots()
    axes.text(0.5, 0.5, "one")
    axes.text(0.5, 0.5, "another")
    assert overlaps(figure) == [("another", "one")]
    plt.close(figure)


def test_the_page_names_the_notebook_and_the_receipts_behind_each_item():
    profile, folder = experiment.load_profile("quick"), experiment.ROOT / "figures" / "quick"
    text = (folder / "index.html").read_text()
    for name in ("Figure 1", "Table 1", "Ladder", "Verdict", "Claims"):
        item = report.make(name, profile)
        section = text.partition(f'<section id="{item.stem}">')[2].partition("</section>")[0]
        links = re.findall(r'href="([^"]+)"', section)
        assert f"../../notebooks/{item.notebook}.ipynb" in links and all((folder / link).exists() for link in links)
        # The committed page links the committed receipts; the item read this run's, which MMC_RESULTS may keep elsewhere.
        linked = [(folder / link).resolve().relative_to(experiment.ROOT / "results") for link in links if "/results/" in link]
        assert linked and linked == [path.relative_to(experiment.results_folder(profile).parent) for path in item.receipts], name
    ladder = {path.stem.partition("-")[0] for path in report.make("Ladder", profile).receipts}
    assert ladder >= {"pgd", "multi_targeted", "autoattack"}


def test_an_items_notebook_shows_it():
    for name, (notebook, build) in report.ITEMS.items():
        source = (experiment.ROOT / "notebooks" / f"{notebook}.ipynb").read_text()
        room = vars(sys.modules[build.__module__])  # its name there; 01 draws as it computes and names its receipts' parts, 08 writes all
        shown = next((word for word, value in room.items() if value is build), name.lower().replace(" ", "_"))
        assert ("write_all" if notebook == "08_report" else shown) in source, name
