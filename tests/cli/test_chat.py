"""`langue chat`: turns, commands, interrupts, and what is typed into a real terminal."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

import langue
from langue.cli import run
from langue.errors import DataError, ModelError
from langue.runs.model import load
from tests.tiny_decoder import tiny_decoder

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a template, which was taught nothing and never ends."""
    made = tiny_decoder(
        tmp_path_factory.mktemp("model") / "m", "llama", max_position_embeddings=4096
    )
    (made / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    (made / "generation_config.json").write_text('{"suppress_tokens": [0]}', "utf-8")
    return made


@pytest.fixture(scope="module")
def model(folder):
    return load(folder, dtype="auto")


def piped(text):
    return io.TextIOWrapper(io.BytesIO(text.encode("latin-1")))


def answered(pieces):
    return "".join(pieces)


def test_turns_are_as_generate_writes_them_and_are_not_read_again(model):
    talk = langue.chat(model, system="Be brief." * 20, max_tokens=24)
    pieces = list(talk.say("hello"))
    assert len(pieces) > 3
    first = talk.messages
    assert [each["role"] for each in first] == ["system", "user", "assistant"]
    assert first[2]["content"] == "".join(pieces) == model.generate([first[:2]], 24)[0]
    second = answered(talk.say("more"))
    assert second == model.generate([[*first, {"role": "user", "content": "more"}]], 24)[0]
    assert talk.turns[0].cached_tokens == 0
    assert talk.turns[1].cached_tokens >= 128  # the system message was read once
    assert talk.turns[1].finish_reason == "length"


def test_retry_undo_clear_and_stop(model):
    talk = langue.chat(model, max_tokens=30, temperature=1.0, seed=3)
    with pytest.raises(DataError, match="nothing was said"):
        list(talk.retry())
    one = answered(talk.say("hello"))
    two = answered(talk.retry())
    assert one != two and len(talk.turns) == 1 and talk.turns[0].answer == two
    assert answered(langue.chat(model, max_tokens=30, temperature=1.0, seed=4).say("hello")) == two
    pieces = talk.say("more")
    begun = next(pieces)
    talk.stop()
    rest = answered(pieces)
    assert talk.turns[1].answer == begun + rest
    assert talk.turns[1].finish_reason == "cancelled"
    assert talk.undo() == "more" and [turn.answer for turn in talk.turns] == [two]
    pieces = talk.say("more")  # who looks away has the part that was written
    begun = next(pieces)
    pieces.close()
    assert talk.turns[1].answer.startswith(begun)
    assert len(answered(talk.retry())) > len(begun)
    talk.clear()
    assert talk.messages == []


def test_what_fails_leaves_the_conversation_as_it_was(model, folder, tmp_path):
    talk = langue.chat(model, max_tokens=8)
    answered(talk.say("hello"))
    kept = talk.messages
    with pytest.raises(ModelError, match="positions"):
        list(talk.say("x" * 5000))
    assert talk.messages == kept
    for wrong in ({"top_p": 0.0}, {"stop": [""]}, {"max_tokens": -1}):
        with pytest.raises(ModelError):
            langue.chat(model, **wrong)
    bare = tiny_decoder(tmp_path / "bare", "llama")
    with pytest.raises(ModelError, match="--plain .* langue finetune --task chat"):
        langue.chat(bare)
    (bare / "chat_template.jinja").write_text("{{ messages[-1].content }}", "utf-8")
    with pytest.raises(ModelError, match="leaves system messages out"):
        langue.chat(bare, system="Be brief.")


def test_a_saved_conversation_is_a_row_to_train_on(model, tmp_path):
    talk = langue.chat(model, max_tokens=8, system="Be brief.")
    file = tmp_path / "talk.jsonl"
    with pytest.raises(DataError, match="nothing was answered"):
        talk.save(file)
    answered(talk.say("héllo"))
    talk.save(file)
    answered(talk.say("more"))
    talk.save(file)  # its own may be written over
    (row,) = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert row == {"messages": talk.messages} and len(row["messages"]) == 5
    talk.clear()
    answered(talk.say("other"))
    with pytest.raises(DataError, match="there is such a file"):
        talk.save(file)


def test_a_plain_text_goes_on(model, tmp_path):
    talk = langue.chat(model, plain=True, max_tokens=8)
    one = answered(talk.say("the ball"))
    assert one == model.generate(["the ball"], 8)[0]
    answered(talk.say("a bat"))
    assert talk.text.startswith(f"the ball{one}")
    talk.save(tmp_path / "t.jsonl")
    assert json.loads((tmp_path / "t.jsonl").read_text("utf-8")) == {"text": talk.text}
    with pytest.raises(ModelError, match="no system message"):
        talk.set_system("Be brief.")


NO_MORE_KEYS = "\x1b[?2004l\r"  # the mode in which lines are edited and pasted ends


class Terminal:
    """`langue` in a process of its own, at the other end of a terminal."""

    def __init__(self, *words):
        self.end, other = pty.openpty()
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "langue", *map(str, words)],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)
        self.seen = ""

    def until(self, text, seconds=60):
        """What is printed up to this text, which is then behind."""
        self._read_until(lambda: text in self.seen, seconds)
        before, _, self.seen = self.seen.partition(text)
        return before

    def until_it_writes(self, seconds=60):
        """Wait for the beginning of an answer, behind what ends a line that is typed."""
        self.until(NO_MORE_KEYS, seconds)
        self._read_until(lambda: self.seen, seconds)

    def interrupt(self, said, seconds=60):
        """Press Ctrl-C until this is said, which is returned as by `until`. More than once, since
        the input asks for signals before it waits for keys, and one that comes between the two is
        heard with the next key.
        """
        limit = time.monotonic() + seconds
        while said not in self.seen:
            os.kill(self.process.pid, signal.SIGINT)
            assert time.monotonic() < limit, self.seen
            self._read_until(lambda: said in self.seen, 5, is_needed=False)
        return self.until(said)

    def _read_until(self, holds, seconds, is_needed=True):
        limit = time.monotonic() + seconds
        while not holds():
            left = limit - time.monotonic()
            if left < 0 or not select.select([self.end], [], [], left)[0]:
                assert not is_needed, f"this is all in {seconds} seconds: {self.seen!r}"
                return
            self.seen += os.read(self.end, 65536).decode("utf-8", "replace")

    def type(self, text):
        os.write(self.end, text.encode())

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.fixture
def terminal(tmp_path):
    """A talk whose answers have no end: more than a terminal holds that nobody reads, after which
    it writes no further."""
    model = tiny_decoder(tmp_path / "m", "llama", max_position_embeddings=32768)
    (model / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    (model / "generation_config.json").write_text('{"suppress_tokens": [0]}', "utf-8")
    made = Terminal("chat", model, "--max-tokens", "12000", "--temperature", "1.5")
    yield made
    made.close()


def test_a_talk_in_a_terminal(terminal, tmp_path):
    file = tmp_path / "talk.jsonl"
    terminal.until("> ")
    terminal.type("/system Be brief.\r")
    terminal.until("told this first")
    terminal.until("> ")
    terminal.type("one \\\r")
    terminal.until(". ")
    terminal.type("two\r")
    terminal.until("two\r\n")
    terminal.until_it_writes()  # the answer is then stopped, and not the program
    assert "\x07" not in terminal.interrupt("(stopped; /retry writes it anew)")
    terminal.until("> ")
    terminal.interrupt("quits)")
    terminal.until("> ")
    terminal.type("\x1b[200~three\nfour\x1b[201~\r")  # as terminals paste
    terminal.until("four")
    terminal.until_it_writes()
    terminal.interrupt("(stopped")
    terminal.until("> ")
    terminal.type(f"/save {file}\r")
    terminal.until("2 of the answers were stopped")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
    messages = json.loads(file.read_text("utf-8"))["messages"]
    assert [each["content"] for each in messages if each["role"] != "assistant"] == [
        "Be brief.",
        "one \ntwo",
        "three\nfour",
    ]


def test_what_is_piped_in_is_answered_line_by_line(folder, monkeypatch, capsys, tmp_path):
    def given(text, *words):
        monkeypatch.setattr(sys, "stdin", piped(text))
        code = run(["chat", str(folder), "--max-tokens", "6", *words])
        return code, capsys.readouterr()

    code, said = given("hello\n\n/retry\n/undo\n/undo\n")
    assert code == 2  # nothing is left to be taken back
    one, again = said.out.splitlines()[:2]
    assert one == again
    assert "the same as before" in said.err and "taken back: hello" in said.err
    code, said = given("gr\xfcn\n")
    assert code == 2 and "standard input, line 1: byte 3" in said.err
    code, said = given("/help\n/quit\nhello\n")
    assert code == 0 and said.out == "" and "/system TEXT" in said.err
    for words, says in [("/nope", "/help"), ("/undo 3", "stands alone"), ("/save", "/save talk")]:
        code, said = given(words + "\n")
        assert code == 2 and says in said.err.splitlines()[-1]


def test_what_a_model_writes_does_not_steer_the_terminal(folder, model, monkeypatch, capsys):
    written = answered(langue.chat(model, max_tokens=200, temperature=1.5).say("hello"))
    steers = [each for each in written if not each.isprintable() and each != "\n"]
    assert len(steers) > 3
    monkeypatch.setattr(sys, "stdin", piped("hello\n"))
    assert run(["chat", str(folder), "--max-tokens", "200", "--temperature", "1.5"]) == 0
    shown = capsys.readouterr().out
    assert not any(ord(each) < 32 and each not in "\n\t" for each in shown)
    assert len(shown) == len(written) + 1 and "\ufffd" in shown
