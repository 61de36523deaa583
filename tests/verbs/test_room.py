"""No text is cut in silence, and what is no list of texts is said to be none: for every verb that
reads texts."""

import json
import warnings

import numpy as np
import pytest

import langue
from langue.cli import run
from langue.errors import DataError, LangueWarning, ModelError
from langue.runs.model import load
from tests.tiny import CONFIG, SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

transformers = pytest.importorskip("transformers")

from langue.hub.families.registry import FAMILIES  # noqa: E402
from tests.contract.references import draw_model  # noqa: E402
from tests.contract.test_families import save, saved  # noqa: E402

READERS = ("hidden", "logits", "generate", "encode")


def words(count):
    return " ".join(f"w{5 + index % 40}" for index in range(count))


def with_length(folder, length):
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(said | {"model_max_length": length}))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_reads_as_much_as_it_has_room_for(tmp_path, name):
    """The positions of its config, or fewer where its tokenizer says so; beyond it one error, or
    counted warning."""
    folder = saved(tmp_path / "m", name, 0)
    positions = min(load(folder).config.max_length, 700)  # T5's are without an end
    for room, source in (
        (positions, "the positions of its config"),
        (20, "model_max_length of its tokenizer_config"),
    ):
        model = load(folder)
        if room < model.config.max_length:
            model = load(with_length(folder, room))
            source = "model_max_length of its tokenizer_config"
        fits = words(room)
        beyond = words(room + 3)
        both = model.config.architecture == "encoder-decoder"
        assert len(model.hidden([fits])[0]) == room
        assert len(model.logits([fits], *([[fits]] if both else []))[0]) == room
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            whole = model.encode([fits])
        with pytest.warns(
            LangueWarning, match=f"1 of 2 texts is longer than {room:,} tokens .*{source}"
        ):
            assert (
                np.abs(model.encode(["w5", beyond])[1] - whole[0]).max()
                < 1e-5 * np.abs(whole).max()
            )
        says = (
            f"text 2 of 2 has {room + 3:,} tokens, and the model has room for {room:,} \\({source}"
        )
        calls = [
            (model.hidden, ["w5", beyond]),
            (model.logits, ["w5", beyond], *([["w5"] * 2] if both else [])),
        ]
        calls += [(model.logits, ["w5"] * 2, ["w5", beyond])] if both else []
        calls += (
            [] if model.config.architecture == "encoder" else [(model.generate, ["w5", beyond])]
        )
        for call, *given in calls:
            with pytest.raises(ModelError, match=says) as error:
                call(*given)
        if "token ids are taken up to" in str(error.value):  # as the message says
            ids = [[5] * (room + 3)]
            assert len(model.hidden(ids)[0]) == room + 3


def test_two_long_prompts_that_differ_in_front_have_two_answers(tmp_path):
    """512 tokens were read of each."""
    reference = draw_model("llama", 2, std=0.5)
    reference.config.max_position_embeddings = 4096
    model = load(save(tmp_path / "m", reference))
    one = f"w7 w9 {words(700)}"
    two = f"w30 w8 {words(700)}"
    hidden = model.hidden([one, two])
    assert len(hidden[0]) == 702 and not np.allclose(hidden[0][-1], hidden[1][-1])


def test_answers_that_end_at_the_last_position_are_counted(tmp_path):
    folder = tiny_decoder(tmp_path / "m", "gpt2", eos_token_id=None)
    model = load(folder)
    prompts = [[5] * 60, [6] * 3]
    with pytest.warns(
        LangueWarning,
        match="1 of 2 answers ends at the model's last position, 64, before max_tokens",
    ):
        made = model.generate(prompts, max_tokens=10)
    assert [len(each) for each in made] == [5, 10]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model.generate(prompts, max_tokens=5)[0]) == 5


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = write_jsonl(folder / "data.jsonl", reviews(60))
    return langue.finetune(
        model=tiny_bert(folder / "m"),
        data=data,
        out=folder / "run",
        **SHORT | {"data.max_length": 16},
    ).folder


LONG = " ".join(["good film"] * 20)


def test_a_run_cuts_as_it_was_trained_and_counts(classifier, tmp_path, capsys, monkeypatch):
    model = load(classifier)
    says = (
        r"2 of 3 texts are longer than 16 tokens \(data.max_length of the run\): the beginning and"
        r" the end is kept"
    )
    for call in (model.predict, model.logits):
        with pytest.warns(LangueWarning, match=says) as told:
            call(["good", LONG, LONG])
        assert len(told) == 1
    # the body has its own room, whatever the task's texts were cut to
    assert len(model.hidden([LONG])[0]) == 42
    monkeypatch.setattr("langue.runs.predict_table.CHUNK", 2)
    data = write_jsonl(tmp_path / "new.jsonl", [{"text": "good"}, *[{"text": LONG}] * 4])
    assert run(["predict", str(classifier), "--data", str(data)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "longer than" in line]
    assert len(said) == 1 and said[0].startswith(
        "langue: warning: 4 of 5 texts are longer than 16 tokens"
    )


def test_a_published_classifier_is_cut_as_transformers_cuts(tmp_path):
    made = transformers.BertForSequenceClassification
    reference = made(draw_model("bert", 0).config).eval()
    folder = with_length(save(tmp_path / "m", reference), 12)
    model = load(folder)
    with pytest.warns(
        LangueWarning, match=r"longer than 12 tokens \(model_max_length .*: the beginning is kept"
    ):
        cut = model.logits([words(30)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=12, pad_token="w0"
    )
    inputs = tokenizer(
        [words(30)], truncation=True, return_tensors="pt", return_token_type_ids=False
    )
    assert np.allclose(cut, reference(**inputs).logits.detach().numpy(), atol=1e-5)


TALK = [{"role": "user", "content": "a b"}]
ONE = {
    "a string": ("w5", "is one string; give a list: \\[text\\]"),
    "bytes": (b"w5", "is one string"),
    "token ids": ([5, 6], "is one list of token ids; give a list of lists: \\[ids\\]"),
    "an array": (np.array([5, 6]), "is one list of token ids"),
}
# where a prompt may be a conversation, and where it may not
TALKS = {
    True: (
        (TALK, "is one conversation; give a list of conversations: \\[messages\\]"),
        (TALK[0], "is one message; give a list of conversations: \\[\\[message\\]\\]"),
    ),
    False: (
        (TALK, "is one conversation; give a list of texts"),
        (TALK[0], "is one message; give a list of texts"),
    ),
}


@pytest.mark.parametrize("verb", [*READERS, "predict"])
def test_none_and_one_are_no_crash(tmp_path, verb, classifier):
    if verb == "predict":
        model = load(classifier)
    else:
        folder = tiny_decoder(tmp_path / "m", "gpt2")
        (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m.content }}{% endfor %}"
        )
        model = load(folder)
    call = getattr(model, verb)
    for none in ([], (), np.zeros((0, 3), int), iter([])):
        assert len(call(none)) == 0
    for given, says in (*ONE.values(), *TALKS[verb == "generate"]):
        with pytest.raises(ModelError, match=f"(texts|prompts) {says}"):
            call(given)
    for mixed in (["a", [5]], [TALK, "a"], [("a", "b"), "a"], [[5], TALK]):
        with pytest.raises(ModelError, match="mixes strings, pairs, token ids and conversations"):
            call(mixed)
    if verb == "generate":
        assert len(call([TALK, TALK], max_tokens=2)) == 2
        assert isinstance(call([tuple(TALK)], max_tokens=2)[0], str)
    else:
        with pytest.raises(
            ModelError, match="neither strings nor pairs of them nor lists of token ids"
        ):
            call([TALK])


def test_a_text_without_tokens_has_no_vector(tmp_path):
    model = load(tiny_decoder(tmp_path / "m", "gpt2"))
    with pytest.raises(DataError, match="text 2 of 2 has no tokens; leave empty texts out"):
        model.encode(["a", ""])
    assert model.config.max_length == CONFIG.max_length


CHATS = {
    "llama 3": (
        "{% for m in messages %}<|{{ m.role }}|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    ),
    "a line after it": "{% for m in messages %}{{ m.content }}\n<|eot|>\n{% endfor %}",
    "only after answers": (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|eot|>{% endif %}{%"
        " endfor %}"
    ),
}


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_ends_with_its_turn_and_with_the_tokenizers_end(tmp_path, chat):
    from tests.tiny_tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.backend.add_special_tokens(["<|eot|>", "</end>"])
    size = len(tokenizer)
    folder = tiny_decoder(tmp_path / "m", "llama", tokenizer, vocab_size=size + 3)
    ids = {
        name: tokenizer.backend.token_to_id(name) for name in ("<|endoftext|>", "<|eot|>", "</end>")
    }
    options = {
        "eos_token": {"content": "</end>", "__type": "AddedToken"},
        "chat_template": CHATS[chat],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    assert load(folder)._text_generator.ends == {*ids.values()}
    # What a prompt ends with is the user's own, and no end that the tokenizer put there.
    ready = load(folder)
    seen = ready._text_generator._prompt_ids(["a<|eot|>", "a</end>"], ready.tokenizer)
    assert [each[-1] for each in seen] == [ids["<|eot|>"], ids["</end>"]]
    for template in (
        "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}x",
        "no messages",
    ):
        (folder / "tokenizer_config.json").write_text(
            json.dumps(options | {"chat_template": template})
        )
        assert load(folder)._text_generator.ends == {ids["<|endoftext|>"], ids["</end>"]}
