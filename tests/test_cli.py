import collections
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import nar
from nar import cli
from nar.data.tokenizer import Tokenizer
from nar.decoders import DECODERS
from nar.results import Result
from nar.testing import random_model
from nar.training.checkpoint import save_model
from tests.pretrained import tiny
from tests.test_translator import Needy, learn_tokenizer, random_texts, random_translator, save

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = ("--decoder", "sample", "--max-length", "8", "--batch-size", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(random_translator(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def nar_translate(monkeypatch, capsysbinary, model):
    """`nar_translate(stdin, *options)` is what a run writes, and what it says."""

    def run(stdin, *options, directory=model):
        stream = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        cli.main(["translate", "--model", str(directory), *options])
        out, err = capsysbinary.readouterr()
        return out, err.decode()

    return run


CUT = "warning: {} of {} outputs are cut at max_length={} tokens: {}\n"


def as_input(texts):
    return "".join(f"{text}\n" for text in texts).encode()


# --------------------------------------------------------------------------------- lines in, out
def test_lines_in_lines_out(nar_translate, model):
    texts = random_texts(9)
    decoder = nar.Jacobi(block=3, max_length=8)
    with pytest.warns(
        UserWarning, match="^8 of 11 outputs are cut at max_length=8 tokens: lines 2"
    ):
        wanted = as_input(nar.load(model).translate(["", *texts, " "], decoder, batch_size=4))
    options = ("--decoder", "jacobi:block=3", "--max-length", "8", "--batch-size", "4")
    out, err = nar_translate(as_input(["", *texts, " "]), *options)
    assert out == wanted
    assert re.fullmatch(CUT.format(8, 11, 8, "lines 2, .*"), err)
    windows = "\r\n".join(["\ufeff", *texts, " "]).encode()  # the last line has no end
    assert nar_translate(windows, *options) == (wanted, err)
    assert len(set(wanted.splitlines())) > 4


def test_json_lines_in_json_lines_out(nar_translate):
    texts = random_texts(4)
    said = [json.dumps(texts[0]), "", json.dumps({"text": texts[1], "id": 1})]
    said += [json.dumps({"prompt": text.replace(" ", "\n")}) for text in texts[2:]]
    options = ("--decoder", "jacobi:block=3", "--max-length", "8", "--batch-size", "4")
    out, err = nar_translate(as_input(said), *options, "--jsonl")
    lines, told = nar_translate(as_input([texts[0], "", *texts[1:]]), *options)
    found = [json.loads(line) for line in out.decode().splitlines()]
    assert [result["text"] for result in found] == lines.decode().splitlines()
    assert {result["score"] for result in found} == {None}
    cut = [str(i) for i, result in enumerate(found, 1) if result["finish_reason"] == "length"]
    assert cut
    assert f": lines {', '.join(cut)}\n" in err == told


def test_nbest_lists_and_scores(nar_translate, tmp_path):
    texts, journal = ["", *random_texts(3)], ("--resume", str(tmp_path / "journal"))
    options = ("--decoder", "beam:beams=3", "--max-length", "8", "--nbest", "2")
    out, err = nar_translate(as_input(texts), *options, *journal)
    rows = [line.split(" ||| ") for line in out.decode().splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    scores = [float(row[2]) for row in rows]
    assert all(first >= second for first, second in zip(scores[::2], scores[1::2], strict=True))
    assert nar_translate(as_input(texts), *options, *journal) == (out, err)

    said = as_input(map(json.dumps, texts))
    found = [*map(json.loads, nar_translate(said, *options, "--jsonl")[0].splitlines())]
    assert found[0] == {"text": "", "score": None, "finish_reason": "stop", "nbest": []}
    lists = [[one["text"], one["score"]] for result in found for one in result["nbest"]]
    assert lists == [[row[1], float(row[2])] for row in rows]
    assert [[r["text"], r["score"]] for r in found[1:]] == lists[::2]
    alone, _ = nar_translate(as_input(texts), *options[:4], "--scores")
    assert alone.splitlines() == out.splitlines()[::2]
    with pytest.raises(SystemExit, match="another run: scores is None there and True here"):
        nar_translate(as_input(texts), *options, "--scores", *journal)


def test_conversations(nar_translate, monkeypatch, tmp_path):
    """What is given to the decoder are the prompts of the chat template, as they are."""
    seen = []

    def translations(translator, lines, *_, **__):
        seen.extend(lines[i] for i in range(len(lines)))
        assert translator.whole
        yield [Result(text="a\nb") for _ in range(len(lines))]

    tiny.write(tmp_path, "llama")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    )
    monkeypatch.setattr("nar.lines.translations", translations)
    out, _ = nar_translate(b"the dog\n\n", "--chat", directory=tmp_path)
    assert out == b"a b\na b\n"
    messages = [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c"}]
    said = as_input(map(json.dumps, ["d", {"text": "e"}, {"messages": messages}]))
    out, _ = nar_translate(said, "--chat", "--jsonl", directory=tmp_path)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["a\nb"] * 3
    assert seen == ["[the dog]", "", "[d]", "[e]", "[a\nb][c]"]
    with pytest.raises(SystemExit, match="line 2: message 1 is .* must have a role and a content"):
        nar_translate(b'"d"\n{"messages": ["e"]}\n', "--chat", "--jsonl", directory=tmp_path)


def test_no_input(nar_translate):
    assert nar_translate(b"") == (b"", "")
    assert nar_translate(b"\n \n") == (b"\n\n", "")


def test_unknown_symbols(nar_translate):
    out, err = nar_translate("日本 \U0001f600 \0\n".encode(), *OPTIONS)
    assert out.decode().count("\n") == 1
    assert err == CUT.format(1, 1, 8, "line 1")


def test_a_decoder_only_model_continues(nar_translate, tmp_path):
    translator = random_translator(encoder=False)
    texts = random_texts(4)
    decoder = nar.Greedy(max_length=32)  # half of 64 positions
    wanted = as_input(translator.translate(texts, decoder, batch_size=4))
    directory = save(translator, tmp_path)
    assert nar_translate(as_input(texts), "--batch-size", "4", directory=directory)[0] == wanted


@pytest.mark.parametrize("decoder", ["jacobi:block=3", "sample"])
def test_streamed_lines_are_the_same_lines(nar_translate, decoder):
    texts = ["", *random_texts(5), " "]
    options = ("--decoder", decoder, "--max-length", "8")
    whole, told = nar_translate(as_input(texts), *options)
    assert nar_translate(as_input(texts), *options, "--stream") == (whole, told)
    assert told.count(" outputs are cut at max_length=8 tokens") == 1
    words = whole.decode().split()
    stop = ("--stop", words[len(words) // 2], "xyz")
    cut, fewer = nar_translate(as_input(texts), *options, *stop)
    assert cut != whole
    assert fewer != told
    assert nar_translate(as_input(texts), *options, *stop, "--stream") == (cut, fewer)
    with pytest.raises(SystemExit, match="line 2 is not UTF-8"):
        nar_translate(b"\n\xff\n", *options, "--stream")


@pytest.mark.rest
def test_tuning_leaves_a_decoder(nar_translate, model, tmp_path, capsysbinary):
    texts = as_input(random_texts(3))
    (tmp_path / "texts").write_bytes(texts)
    options = ["--max-length", "6", "--finalists", "1", "--repeats", "1"]
    data, output = str(tmp_path / "texts"), str(tmp_path / "tuned")
    cli.main(["tune", "--model", str(model), "--data", data, "--output", output, *options])
    said = capsysbinary.readouterr().out.decode()
    assert "Yes: " in said or "No: use greedy" in said
    assert (tmp_path / "tuned" / "tuned.html").exists()
    tuned = ("--decoder", f"{output}/tuned.json", "--max-length", "6")
    assert nar_translate(texts, *tuned) == nar_translate(texts, "--max-length", "6")


def test_lines_for_which_the_model_has_no_numbers(nar_translate, model, tmp_path):
    translator = nar.load(model)
    (piece,) = set(translator.tokenizer.encode(["Hund"])[0]) - {3}
    lost = translator.model.source_embedding.table
    lost[...] = lost[...].at[piece].set(float("nan"))
    save(translator, tmp_path)
    texts = ["den Mann", "ein Hund", "", "vor dem Haus", "Hund"]
    right = nar_translate(as_input(texts), *OPTIONS)[0].split(b"\n")
    wanted = b"\n".join([right[0], b"", b"", right[3], b"", b""])
    said = (
        "warning: 2 of 5 outputs broke off where the model's logits were NaN, and keep what was "
        "written before: lines 2, 5\n"
    )
    out, err = nar_translate(as_input(texts), *OPTIONS, directory=tmp_path)
    assert out == wanted
    assert said in err
    out, err = nar_translate(as_input(texts), *OPTIONS, "--stream", directory=tmp_path)
    assert out == wanted
    assert re.findall("warning: line (.):", err) == ["2", "5"]
    drawing = [
        "trace",
        "--model",
        str(tmp_path),
        "--text",
        "Hund",
        "--output",
        f"{tmp_path}/a.html",
    ]
    with pytest.raises(
        SystemExit, match="error: the model's logits are NaN before anything is wri"
    ):
        cli.main(drawing)


# ---------------------------------------------------------------------------------------- errors
class Unread(io.RawIOBase):
    """A stream that nobody may read."""

    def readable(self):
        return True

    def readinto(self, buffer):
        raise AssertionError("standard input was read")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder", "jacoby"], "there is no decoder 'jacoby'; there are jacobi"),
        (["--decoder", "needy"], "needs 2 draft heads"),
        (["--max-length", "100"], "max_length=100: the model has 64 positions"),
        (["--seed", "-1"], "seed=-1: it must be in"),
        (["--resume", "."], "cannot be a journal: Is a directory"),
        (["--stream", "--resume", "journal"], "can neither be resumed nor truncated"),
        (
            ["--stream", "--jsonl"],
            "stream: what is written at once has no score yet, and is no whole",
        ),
        (["--nbest", "2"], "nbest=2: a Greedy keeps one output a text"),
        (["--stop-token", "Hund"], "the vocabulary has no token 'Hund' to stop at"),
        (["--chat"], "a model with an encoder goes on with no conversation"),
        (
            ["--decoder", "speculative"],
            "needs a 'draft' model too: --draft PATH on the command line",
        ),
        (["--decoder", "tuned.json"], "tuned.json is missing"),
        (["--model", "nowhere"], "nowhere is no directory"),
        (["--model", "."], "holds no saved model"),
    ],
)
def test_errors_before_the_input_is_read(nar_translate, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DECODERS, "needy", Needy)
    with pytest.raises(SystemExit) as stop:
        nar_translate(Unread(), *options)
    assert str(stop.value.code).startswith("error: ")
    assert message in str(stop.value.code)
    assert "\n" not in str(stop.value.code)


@pytest.mark.parametrize("options", [(), ("--stream",)], ids=str)
def test_an_output_that_is_full(model, monkeypatch, options):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hund\n")))
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match="^error: standard output: No space left on device$"):
            cli.main(["translate", "--model", str(model), "--max-length", "8", *options])


def test_directories_whose_parts_do_not_fit(nar_translate, tmp_path):
    save_model(tmp_path, random_model())
    for tokenizer, message in ((None, "is missing"), (learn_tokenizer(), "do not belong together")):
        if isinstance(tokenizer, Tokenizer):
            tokenizer.save(tmp_path)
        with pytest.raises(SystemExit, match=message):
            nar_translate(Unread(), directory=tmp_path)


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"Hund\nH\xffund\n", "line 2 is not UTF-8"),
        (b"Hund\n" + b"Hund " * 64 + b"\n", "line 2: longer than the 64 tokens that fit"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(nar_translate, capsysbinary, stdin, message):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        nar_translate(stdin)
    assert capsysbinary.readouterr() == (b"", b"")


def test_long_lines_are_cut_when_asked(nar_translate):
    options = ("--truncate", "--max-length", "8", "--batch-size", "4")
    out, err = nar_translate(b"Mann\n" + b"Hund " * 64 + b"\n", *options)
    long = "warning: line 2: longer than the 64 tokens that fit, and cut\n"
    assert err == long + CUT.format(2, 2, 8, "lines 1, 2")
    assert out == nar_translate(b"Mann\n" + b"Hund " * 63 + b"\n", *options)[0]


@pytest.mark.parametrize(
    ("options", "hint"), [([], "with --resume JOURNAL"), (["--resume", "journal"], "goes on")]
)
def test_interrupted(nar_translate, monkeypatch, capsysbinary, tmp_path, options, hint):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nar.lines.translations", interrupt)
    with pytest.raises(SystemExit) as stop:
        nar_translate(b"Hund\n", *options)
    assert stop.value.code == 130
    assert hint in capsysbinary.readouterr().err.decode()


# ------------------------------------------------------------------------------- language models
def test_a_language_model_is_learned_and_decides(nar_translate, capsysbinary, tmp_path):
    translator = random_translator(causal=False, bidirectional=True, upsample=2, blank=5)
    directory = save(translator, tmp_path / "model")
    texts, favourite = random_texts(8), re.compile("dem Haus( vor dem Haus)*")
    (tmp_path / "texts").write_text("\ndem Haus vor dem Haus\n" * 9)
    arguments = ["ngram", "--model", directory, "--text", tmp_path / "texts", "--order", "3"]
    cli.main([str(x) for x in (*arguments, "--output", tmp_path / "arpa")])
    assert capsysbinary.readouterr().out.decode() == f"{tmp_path / 'arpa'}\n"
    assert (tmp_path / "arpa").read_text().count("▁dem ▁Haus ▁vor") == 1

    options = ("--language", str(tmp_path / "arpa"), "--max-length", "8", "--decoder")
    decoder = "ctc-beam:top_k=20,alpha=20,beta=6"
    out, err = nar_translate(as_input(texts), *options, decoder, directory=directory)
    assert re.fullmatch(CUT.format(r"\d", 8, 8, "lines .*"), err)
    lines = out.decode().splitlines()
    assert all(favourite.fullmatch(line) for line in lines), lines
    plain = nar_translate(as_input(texts), *options, "ctc-beam", directory=directory)[0]
    assert not any(favourite.fullmatch(line) for line in plain.decode().splitlines())
    loaded = nar.load(directory, language=tmp_path / "arpa")
    assert loaded.weights.startswith(f"{nar.load(directory).weights}+")
    with pytest.warns(UserWarning, match="outputs are cut"):
        assert loaded.translate(texts, nar.make(decoder, max_length=8)) == lines

    (tmp_path / "arpa").write_text("dem Haus")
    with pytest.raises(SystemExit, match="error: .*arpa is no ARPA file"):
        nar_translate(b"", *options, decoder, directory=directory)
    (tmp_path / "texts").write_text("\n")
    with pytest.raises(SystemExit, match="error: no texts"):
        cli.main([str(x) for x in (*arguments, "--output", tmp_path / "other")])
    assert not (tmp_path / "other").exists()


# ------------------------------------------------------------------------------------- processes
def start(model, stdin, *options, stdout=subprocess.PIPE):
    command = [sys.executable, "-m", "nar", "translate", "--model", str(model), *options]
    with open(stdin, "rb") as file:
        return subprocess.Popen(
            command, cwd=ROOT, stdin=file, stdout=stdout, stderr=subprocess.PIPE
        )


@pytest.mark.rest
def test_killed_and_resumed(nar_translate, model, tmp_path):
    journal, stdin = tmp_path / "journal", tmp_path / "in"
    stdin.write_bytes(as_input(random_texts(400)))
    options = (*OPTIONS, "--resume", str(journal))
    process = start(model, stdin, *options)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = journal.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    assert kept.count(b"\n") < 100, "it ended before it was killed"

    out, _ = nar_translate(stdin.read_bytes(), *options)
    assert out == nar_translate(stdin.read_bytes(), *OPTIONS)[0]
    assert journal.read_bytes().startswith(kept)
    records = map(json.loads, journal.read_bytes().splitlines()[1:])
    times = collections.Counter(number for record in records for number in record)
    assert times == {str(i): 1 for i in range(400)}

    with pytest.raises(SystemExit, match="another run: seed is 0 there and 1 here$"):
        nar_translate(stdin.read_bytes(), *options, "--seed", "1")


def test_a_reader_that_goes_away(model, tmp_path):
    (tmp_path / "in").write_bytes(as_input(random_texts(4)))
    process = start(model, tmp_path / "in", *OPTIONS)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert process.returncode == 1
    assert b"rror" not in err
