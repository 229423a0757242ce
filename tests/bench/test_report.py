import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from nar.bench.figures import accepted_tokens, figures, label
from nar.bench.page import marked, page, write_page
from nar.bench.quote import quote
from nar.bench.report import VERSION, Report, Row, machine, rounded
from nar.bench.table import tables
from nar.errors import NarError


def row(decoder="greedy", **fields):
    """A measured row."""
    default = {
        "family": "autoregressive", "lossless": "greedy", "model": "m", "weights": "w0",
        "architecture": "3-3 d=256", "parameters": 7_000_000, "training": "raw", "seed": 0,
        "bleu": 35.0, "bleu_ci": (33.0, 37.0), "bleu_signature": "sig", "chrf": 60.0,
        "chrf_signature": "sig2", "exact_match": 1.0, "s1_ms_median": 25.0, "s1_ms_p95": 40.0,
        "s1_speedup": 1.0, "s1_speedup_ci": (0.9, 1.1), "predicted_speedup": 1.0,
        "smax_sentences_per_s": 140.0, "smax_batch": 64, "smax_speedup": 1.0,
        "smax_speedup_spread": (0.9, 1.1), "calls": 15.9, "tokens_per_call": 1.0,
        "positions": 15.9, "accepted": [0, 100], "flops_per_sentence": 1e9,
        "peak_memory_mb": 100.0, "compile_s": 1.5, "repetition": 0.01, "length_ratio": 1.0,
        "bleu_by_length": [{"to": 10, "sentences": 5, "bleu": 36.0},
                           {"to": None, "sentences": 5, "bleu": 34.0}],
    }  # fmt: skip
    return Row(decoder=decoder, **{**default, **fields})


def report(*rows, **fields):
    """A report with two examples."""
    rows = list(rows) or [
        row(),
        row("jacobi:block=3", family="fixed point", s1_speedup=0.5, s1_speedup_ci=(0.4, 0.6),
            predicted_speedup=0.6, p_value=0.5, accepted=[0, 90, 5, 2]),
    ]  # fmt: skip
    default = {
        "title": "captions", "metric": "bleu",
        "machine": {"device": "a processor", "cores": 2, "platform": "cpu"},
        "data": {"name": "a set", "fingerprint": "f0", "sentences": 10},
        "protocol": {"latency_sentences": 10},
        "step_cost": {"m": {"positions": [1, 2], "ms": [1.0, 1.5], "over_one": [1.0, 1.5],
                            "over_one_spread": [[1, 1], [1.4, 1.6]], "over_floor": [1.2, 1.8],
                            "floor_ms": 0.8, "begin_ms": 2.0}},
        "examples": [{"source": "A <b> man", "reference": "Ein Mann",
                      "outputs": ["Ein Mann", "Ein alter Mann", *[None] * 8][: len(rows)]}],
    }  # fmt: skip
    return Report(rows=rows, **{**default, **fields})


# ---------------------------------------------------------------------------------------- files
def test_a_report_is_read_as_it_was_written(tmp_path):
    ours = report(row(bleu=35.123456789), row("beam", skipped="why"))
    path = ours.save(tmp_path)
    found = Report.load(tmp_path)
    assert found.rows[0].bleu == 35.123
    assert found.measured == found.rows[:1]
    assert Report.load(path).save(tmp_path / "again").read_bytes() == path.read_bytes()


def test_rows_have_the_fields_that_reports_promise():
    promised = """decoder family lossless weights architecture training bleu bleu_signature bleu_ci
        chrf p_value exact_match first_difference_gap s1_ms_median s1_ms_p95 s1_speedup
        s1_speedup_ci predicted_speedup smax_sentences_per_s smax_batch smax_speedup calls
        tokens_per_call positions flops_per_sentence peak_memory_mb compile_s oracle_length"""
    assert set(promised.split()) <= {field.name for field in dataclasses.fields(Row)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no report"),
        ("[]", "no report"),
        ("{}", "no report"),
        (json.dumps({"version": VERSION + 1}), f"reads version {VERSION}"),
        (json.dumps({"version": VERSION, "rows": []}), "damaged"),
        (json.dumps({"version": VERSION, "rows": [{"speed": 1}]}), "damaged"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(NarError, match=message):
        Report.load(tmp_path)
    with pytest.raises(NarError, match="missing"):
        Report.load(tmp_path / "nowhere")


def test_five_digits_are_kept():
    assert rounded({"a": [1.23456789, (2, 0.000123456789)], "b": True}) == {
        "a": [1.2346, [2, 0.00012346]],
        "b": True,
    }


def test_the_machine_is_named():
    found = machine()
    assert found["device"]
    assert found["cores"] >= 1
    assert found["jax"]


# ---------------------------------------------------------------------------------------- tables
def cells(table, name):
    (line,) = (line for line in table.lines if line[0] == name)
    return dict(zip(table.headings, line, strict=True))


def test_a_line_says_what_its_row_says():
    (table,) = tables([report()])
    line = cells(table, "`jacobi:block=3`")
    assert line["BLEU"] == "35.00 [33.00–37.00]"
    assert line["S1 speed-up"] == "0.50 [0.40–0.60]"
    assert line["predicted"] == "0.60"
    assert line["= greedy"] == "100.0%"
    assert line["Smax, sentences/s (batch)"] == "140 (64)"
    assert cells(table, "`greedy`")["p"] == ""


def test_seeds_of_a_training_share_a_line():
    found = [report(row(bleu=bleu, seed=i, weights=f"w{i}")) for i, bleu in enumerate((34, 35, 36))]
    (table,) = tables(found)
    (line,) = table.lines
    assert line[1] == "35.00 ± 1.00"
    assert "3 seeds" in table.title


def test_the_same_training_twice_is_no_second_seed():
    with pytest.raises(NarError, match="different seeds"):
        list(tables([report(), report()]))


@pytest.mark.parametrize(
    "other",
    [
        report(data={"name": "a set", "fingerprint": "f1", "sentences": 10}),
        report(machine={"device": "another", "cores": 2, "platform": "cpu"}),
        report(row(training="distilled")),
    ],
)
def test_what_cannot_be_compared_never_shares_a_table(other):
    first, second = tables([report(), other])
    assert first.title != second.title or first.lines == second.lines
    assert all(
        "±" not in cell for table in (first, second) for line in table.lines for cell in line
    )


def test_skipped_decoders_are_noted():
    (table,) = tables([report(row(), row("lookahead", skipped="needs heads"))])
    assert len(table.lines) == 1
    assert table.notes == ("`lookahead` did not run: needs heads",)
    assert "needs heads" in table.markdown()


def test_outputs_that_broke_off_are_counted():
    (table,) = tables([report(row(failed=0), row("jacobi", failed=3))])
    assert table.notes == ("`jacobi` broke off at logits that were NaN: 3 sentences",)


def test_bleu_of_another_tokenizer_is_named_and_never_shares_a_table():
    reports = [report(row(bleu_signature=f"nrefs:1|tok:{name}|v:2")) for name in ("13a", "zh")]
    first, second = tables(reports)
    assert "tok" not in first.title
    assert "BLEU of tokens by zh" in second.title


def test_errors_have_their_own_column():
    errors = {"bleu": None, "token_error": 13.1, "token_error_ci": (12.5, 13.7)}
    (table,) = tables([report(row(**errors), metric="token_error")])
    assert table.headings[1] == "wrong tokens, %"
    assert table.lines[0][1] == "13.10 [12.50–13.70]"


# ------------------------------------------------------------------------------ pages, documents
def test_pictures_are_drawn_of_all_that_was_measured():
    drawn = figures(report())
    assert set(drawn) == {
        "quality_against_speed", "speedups", "accepted_tokens", "predicted_against_realised",
        "step_costs", "bleu_by_length",
    }  # fmt: skip
    for svg in drawn.values():
        assert ET.fromstring(svg).tag.endswith("svg")
    assert figures(report()) == drawn  # no dates, no random ids
    assert "step_costs" not in figures(report(step_cost={}))
    errors = {"bleu": None, "token_error": 13.1, "token_error_ci": (12.5, 13.7)}
    of_errors = figures(report(row(**errors, bleu_by_length=[]), metric="token_error"))
    assert "bleu_by_length" not in of_errors


def test_calls_that_accepted_nothing_are_calls():
    drawn = Figure()
    axis = drawn.subplots()
    accepted_tokens(report(row(accepted=[0, 4]), row(accepted=[30, 50, 15, 5])), axis)
    width = lambda line: sum(bars[line].get_width() for bars in axis.containers)  # noqa: E731
    assert width(0) == pytest.approx(1)
    assert width(1) == pytest.approx(0.7)
    assert axis.containers[0][1].get_width() == pytest.approx(0.5)


def test_raw_and_distilled_training_share_no_picture_of_quality_and_no_table():
    teacher, raw = row(model="set_longer"), row("ctc", model="set_ctc", family="canvas")
    student = row("ctc", model="set_distilled_ctc", family="canvas", training="distilled")
    mixed, plain = figures(report(teacher, raw, student)), figures(report(teacher, raw))
    for name in ("quality_against_speed", "bleu_by_length"):
        panels = [drawn[name].count('id="axes_') for drawn in (plain, mixed)]
        assert panels[1] == 2 * panels[0] > 0
    assert label(student, report(teacher, raw, student)) == "ctc · distilled_ctc"
    assert label(raw, report(row(model="set"), raw)) == "ctc · ctc"
    assert label(row(model="set"), report(teacher)) == "greedy · set"
    ours, theirs = tables([report(teacher, raw, student)])
    assert [len(ours.lines), len(theirs.lines)] == [2, 1]
    assert not ours.notes
    assert theirs.notes == (
        "Differences and speed-ups compare with `greedy` on set_longer, trained on raw text",
    )


def test_a_page_stands_by_itself(tmp_path):
    ours = report(row(), row("jacobi:block=3", family="fixed point"), row("x", skipped="lacks y"))
    text = write_page(ours, tmp_path).read_text()
    assert "$" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", "href"))
    assert text.count("<svg") == 6
    assert "A &lt;b&gt; man" in text
    assert "Ein <mark>alter</mark> Mann" in text
    assert "lacks y" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used <= set(ids)


def test_a_page_of_little_is_a_page():
    assert "<svg" in page(report(row(), step_cost={}, examples=[]))


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a x c", "a <mark>x</mark> c"),
        ("a b", "a <b> b", "a <mark>&lt;b&gt;</mark> b"),
        ("", "a", "<mark>a</mark>"),
    ],
)
def test_words_that_differ_are_marked(first, other, expected):
    assert marked(first, other) == expected


def test_documents_quote_reports(tmp_path):
    document = tmp_path / "README.md"
    (tmp_path / "results" / "captions").mkdir(parents=True)
    document.write_text(
        "a\n<!-- report captions -->\nold\n<!-- end -->\nb\n"
        "![](results/captions/speedups.svg) ![](logo.svg)\n"
    )
    quote(document, {"captions": report()})
    text = document.read_text()
    (table,) = tables([report()])
    assert f"a\n<!-- report captions -->\n{table.markdown()}\n<!-- end -->\nb\n" in text
    assert (tmp_path / "results/captions/speedups.svg").read_text() == figures(report())["speedups"]
    quote(document, {"captions": report()})
    assert document.read_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "quotes no report"),
        ("<!-- report other -->\n<!-- end -->", "quotes 'other': given were captions"),
        ("![](x/captions/speed.svg)", "pictures are quality_against_speed"),
    ],
)
def test_documents_that_quote_something_else_stay_as_they_are(tmp_path, text, message):
    document = tmp_path / "README.md"
    document.write_text(text)
    with pytest.raises(NarError, match=message):
        quote(document, {"captions": report()})
    assert document.read_text() == text


def test_no_p_value_is_made_of_several():
    found = [report(row(), row("beam", p_value=0.01, seed=0))]
    found += [report(row(seed=1, weights="w1"), row("beam", p_value=0.2, seed=1, weights="w1"))]
    (alone,), (both,) = tables(found[:1]), tables(found)
    assert cells(alone, "`beam`")["p"] == "0.010"
    assert "p" not in both.headings or cells(both, "`beam`")["p"] == ""
