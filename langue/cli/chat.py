"""`langue chat`: a conversation in the terminal.

Messages are typed or piped in, turn by turn. Answers are printed as they are generated; everything
about them goes to stderr.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langue.cli import early
from langue.cli.generate import (
    END,
    MinP,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    Weights,
    _option,
)
from langue.cli.options import Debug, Named, Revision, harmless
from langue.errors import LangueError, SettingsError

if TYPE_CHECKING:
    from langue.verbs.chat import Conversation

HELP = """\
/system TEXT  tell the model this before the first turn; without TEXT: nothing any more
/retry        have the last answer written anew
/undo         take the last turn back
/clear        begin anew; the system message stays
/save FILE    write the conversation as a line of JSON, to train on
/help         this list
/quit         end; so does Ctrl-D
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one."""
ALONE = ("/retry", "/undo", "/clear", "/help", "/quit")  # commands that take no words

System = Annotated[
    str | None,
    typer.Option(help="The system prompt.", show_default=False),
]
Plain = Annotated[
    bool,
    typer.Option("--plain", help="Ignore the chat template and continue the plain text."),
]
MaxTokens = Annotated[
    int | None, _option("The maximum number of tokens per answer. Default: 1,024.", "N", END, min=1)
]


def chat(
    model: Named,
    system: System = None,
    plain: Plain = False,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = 0,
    weights: Weights = None,
    revision: Revision = None,
    debug: Debug = False,
) -> None:
    """Chat with a model in the terminal.

    A chat model, and a model that only continues text:

        langue chat runs/assistant --temperature 0.7
        langue chat runs/assistant --system "Be brief." < questions.txt
        langue chat runs/small --plain

    The answer is printed while it is generated. Ctrl-C stops an answer, Ctrl-D
    quits. A line that ends with a backslash continues on the next; you can
    paste several lines. /help lists the commands: /system, /retry, /undo,
    /clear, /save, /quit.

    The model's generation_config.json takes precedence over these defaults, and
    an option over both.
    """
    early.check_inputs(model=model, revision=revision)
    from langue.verbs.chat import chat as verb

    talk = verb(
        model,
        system=system,
        plain=plain,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        weights=weights,
        revision=revision,
    )
    _Terminal(talk).run()


class _Terminal:
    """Messages and commands in, answers out, until the input ends."""

    def __init__(self, talk: "Conversation") -> None:
        from langue.text.read.standard_input import StandardInput

        self.talk = talk
        self.is_live = sys.stdin.isatty()  # whether somebody types
        self._piped = StandardInput()

    def run(self) -> None:
        if self.is_live:
            _note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D quits")
            _edit_lines()
        while True:
            try:
                said = self._read()
            except EOFError:
                if self.is_live:
                    print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                if not self.is_live:
                    raise
                print(file=sys.stderr)
                _note("Ctrl-D or /quit quits")
                continue
            except UnicodeDecodeError as error:
                _note(f"what was typed is not {error.encoding}, and is left out")
                continue
            if said.strip() and not self._follow(said):
                return

    def _follow(self, said: str) -> bool:
        """Answer or obey; whether to go on. An error ends the command only where nobody types."""
        try:
            if said.startswith("/"):
                return self._obey(said)
            self._show(self.talk.say(said))
        except LangueError as error:
            if not self.is_live:
                raise
            print(f"langue: error: {_one_line(error)}", file=sys.stderr)
        return True

    def _obey(self, said: str) -> bool:
        name, _, rest = said.partition(" ")
        word = rest.strip()
        if word and name in ALONE:
            raise SettingsError(f"{name} stands alone", do=f"write {name}")
        if name == "/quit":
            return False
        if name == "/retry":
            self._show(self.talk.retry())
        elif name == "/undo":
            _note(f"taken back: {harmless(self.talk.undo())}")
        elif name == "/clear":
            self.talk.clear()
            _note("the conversation begins anew")
        elif name == "/system":
            self._tell(word)
        elif name == "/save":
            self._save(word)
        elif name == "/help":
            print(HELP, file=sys.stderr)
        else:
            raise SettingsError(
                f"{harmless(name)} is no command",
                do="/help lists them; a blank before it makes it text",
            )
        return True

    def _tell(self, text: str) -> None:
        before = self.talk.system
        self.talk.set_system(text or None)
        if text:
            _note("from the next answer on, the model is told this first")
        else:
            _note("no system message" + (f"; it was: {harmless(before)}" if before else ""))

    def _save(self, file: str) -> None:
        if not file:
            raise SettingsError("/save needs a file", do="write /save talk.jsonl")
        self.talk.save(file)
        turns = self.talk.turns
        parts = sum(not turn.is_whole for turn in turns)
        count = "1 turn" if len(turns) == 1 else f"{len(turns):,} turns"
        said = f"{count} saved in {harmless(file)}"
        _note(said + (f"; {parts:,} of the answers were stopped or cut" if parts else ""))

    def _show(self, pieces: Iterator[str]) -> None:
        """Print an answer as it comes, and say how it ended where the model did not end it."""
        turns = self.talk.turns
        has_text = False
        # where nobody types, an interrupt is for the command
        with _stopped_by_interrupts(self.talk) if self.is_live else contextlib.nullcontext():
            for piece in pieces:
                print(harmless(piece), end="", flush=True)
                has_text = True
        if has_text:
            print(flush=True)
        if self.talk.turns is turns:
            kept = "the turn is not kept" if self.talk.unanswered is not None else "the old stays"
            _note(f"no answer was written, and {kept}; /retry asks again")
            return
        last = self.talk.turns[-1]
        if last.at_last_position:
            _note("cut: the model has no more positions; /undo and /clear make room")
        elif last.finish_reason == "length":
            _note("cut at the most tokens of an answer; --max-tokens N sets it")
        elif last.finish_reason == "cancelled":
            _note("stopped; /retry writes it anew")
        if len(turns) == len(self.talk.turns) and turns[-1].answer == last.answer:
            _note("the same as before: --temperature 0.7 draws others")

    def _read(self) -> str:
        """A message: lines, each but the last with a backslash at its end. EOFError at the end of
        the input.
        """
        text = self._line("> ")
        while text.endswith("\\"):
            try:
                text = text[:-1] + "\n" + self._line(". ")
            except EOFError:
                return text[:-1]
        return text

    def _line(self, prompt: str) -> str:
        if self.is_live:
            if sys.stdout.isatty():
                return input(prompt)
            print(prompt, end="", file=sys.stderr, flush=True)
        line = next(self._piped, None)
        if line is None:
            raise EOFError
        return line[1]


def _edit_lines() -> None:
    """Have lines edited and remembered as they are typed, where Python can; what is pasted is one
    message, whatever lines are in it.
    """
    with contextlib.suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")


@contextlib.contextmanager
def _stopped_by_interrupts(talk: "Conversation") -> Iterator[None]:
    """Ctrl-C ends the answer between two tokens, and not the program."""

    def end(number: int, frame: Any) -> None:
        talk.stop()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _one_line(error: LangueError) -> str:
    return harmless(str(error)).replace("\n", "\\n")


def _note(text: str) -> None:
    print(f"({text})", file=sys.stderr)
