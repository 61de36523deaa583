"""What new tokens add to a text: the text of all tokens less that of those before, for every kind
of decoder."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from langue.generation.sample import Choice
from langue.runs.model import load
from langue.runs.samples import samples
from tests.tiny_decoder import sentencepiece_tokenizer, tiny_decoder
from tests.tokenizer_kinds import KINDS, unigram

TEXTS = [
    "the ball in a bath",
    "My name is Bob.",
    "naïve 北京 🙂🙂 end",
    "é",
    "a  b\n\n c",
    "don't, it 's",
]
HALF = "\ufffd"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [True, False])
def test_the_two_texts_joined_are_the_whole(kind, special):
    tokenizer = KINDS[kind]()
    for text in TEXTS:
        ids = tokenizer.backend.encode(text, add_special_tokens=special).ids
        whole = tokenizer.decode(ids)
        for border in range(len(ids) + 1):
            given, new = tokenizer.continuation(ids[:border], ids[border:])
            assert given + new == whole, (text, border)
            alone = tokenizer.decode(ids[:border])
            # What is given stays, but for half a character or a space that the next token takes
            # away.
            assert given == alone or alone.rstrip(HALF) == given or kind == "wordpiece"
            # cut within a character: never more than marks at the end
            for end in range(border, len(ids)):
                before, part = tokenizer.continuation(ids[:border], ids[border:end])
                shown = (before + part).rstrip(HALF)
                assert whole.startswith(shown) or kind == "wordpiece", (text, border, end)


def test_a_whole_character_is_kept_where_the_next_one_is_begun():
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.backend.encode("é").ids
    begun = tokenizer.backend.encode("é北", add_special_tokens=False).ids[: len(ids) + 1]
    assert tokenizer.continuation(ids, begun[len(ids) - 1 :]) == ("é", HALF)


def test_a_continuation_keeps_its_space(tmp_path, monkeypatch):
    """In generate, in conversations and on the command line: transformers' pipeline gives the
    same."""
    transformers = pytest.importorskip("transformers")
    tokenizer = sentencepiece_tokenizer()
    folder = tiny_decoder(
        tmp_path / "m",
        "llama",
        tokenizer,
        vocab_size=len(tokenizer),
        eos_token_id=2,
        bos_token_id=1,
    )
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "bos_token": "<s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(options | {"chat_template": template}))
    ball = tokenizer.backend.encode("the ball", add_special_tokens=False).ids
    model = load(folder)

    def choose(logits, choosers, allowed):
        written = [chooser.context.length - chooser.context.given for chooser in choosers]
        return [Choice(ball[place]) for place in written]

    monkeypatch.setattr("langue.generation.engine.choose", choose)
    count = len(ball)
    assert model.generate(["a", "the"], count) == [" the ball", " the ball"]
    assert model.generate([[{"role": "user", "content": "a"}]], count) == [" the ball"]
    assert model.generate([[5]], count) == [ball]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    ids = reference("a")["input_ids"]
    whole, before = (reference.decode(each, skip_special_tokens=True) for each in (ids + ball, ids))
    assert whole[len(before) :] == " the ball"


def test_samples_of_a_training_keep_it_too(monkeypatch):
    tokenizer = unigram()
    documents = [
        tokenizer.backend.encode(text).ids for text in ("the ball in a bath", "My name is Bob.")
    ]
    dev = SimpleNamespace(
        lengths=np.array([len(ids) for ids in documents]),
        tokens=lambda rows, begins, sizes: np.concatenate(
            [documents[r][:n] for r, n in zip(rows, sizes, strict=True)]
        ),
    )
    prepared = SimpleNamespace(
        dev=dev,
        tokenizer=tokenizer,
        objective=SimpleNamespace(architecture="decoder", begin=0, end=0),
        config=SimpleNamespace(longest=24),
        settings=SimpleNamespace(data=SimpleNamespace(seq_len=24)),
    )
    ball = tokenizer.backend.encode("the ball").ids
    monkeypatch.setattr(
        "langue.runs.samples.generate", lambda network, prompts, *rest: [ball for _ in prompts]
    )
    # Of the first document a quarter of the room is shown, 5 tokens.
    assert samples(prepared, None) == [("the ball in", " the ball"), ("My n", " the ball")]
