"""Chat: which tokens the assistant writes, by templates of the published kinds, and the task from
rows to answers."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from rich.console import Console
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from langue.errors import DataError, ModelError, SettingsError
from langue.hub.checkpoint import describe, read_checkpoint
from langue.hub.new_tokens import with_tokens
from langue.runs.show import print_preview
from langue.tasks.chat import Chat
from langue.tasks.chat_templates import OURS, TEMPLATE
from langue.tasks.conversations import read_conversation
from langue.text.read.source import read
from langue.text.tokenizers.assistant_turns import labelled, turns_of
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.verbs.finetune import finetune
from langue.verbs.generate import generate
from langue.verbs.preview import preview
from tests.tiny import tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

# As published: ChatML of Qwen 2.5 with its system prompt, and what each family writes.
CHATML = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nBe helpful.<|im_end|>\n'"
    " }}{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' +"
    " message.content + '<|im_end|>' + '\n' }}{%- endfor %}{%- if add_generation_prompt %}{{-"
    " '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{%- for message in messages %}{%- if loop.index0 == 0 %}{{- bos_token }}{%- endif %}{{-"
    " '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}{{-"
    " '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0"
    " % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant/user/assistant/...')"
    " }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] +"
    " ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{%"
    " endif %}{% endfor %}"
)
GEMMA = (
    "{{- bos_token -}}{%- for message in messages -%}{%- set role = 'model' if message['role'] =="
    " 'assistant' else message['role'] -%}{{- '<start_of_turn>' + role + '\n' + message['content']"
    " | trim + '<end_of_turn>\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{-"
    " '<start_of_turn>model\n' -}}{%- endif -%}"
)
# Qwen 3: the thinking of turns before the last question is taken out, and that of later ones put in
QWEN3 = """\
{%- set ns = namespace(last=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" %}
        {%- set ns.open = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role in ("user", "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thinking = '' %}
        {%- if '</think>' in content %}
            {%- set thinking = content.split('</think>')[0].rstrip('\\n') %}
            {%- set thinking = thinking.split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thinking) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thinking.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content }}
        {{- '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
# the same with what TRL adds to them for training
LLAMA3_MARKED = LLAMA3.replace(
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] |"
    " trim + '<|eot_id|>' }}",
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}{%- if"
    " message['role'] == 'assistant' %}{%- generation %}{{- message['content'] | trim +"
    " '<|eot_id|>' }}{%- endgeneration %}{%- else %}{{- message['content'] | trim + '<|eot_id|>'"
    " }}{%- endif %}",
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "ours": TEMPLATE,
    "llama3, marked": LLAMA3_MARKED,
}
SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
]
TALK = [
    {"role": "user", "content": " Grüße, 你好 🙂 <b> "},
    {"role": "assistant", "content": "<think>\nSo.\n</think>\n\n Hello 🙂"},
    {"role": "user", "content": "And <|im_end|> Hello?"},
    {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello.  "},
]
PLAIN = [
    {"role": "user", "content": "Say it."},
    {"role": "assistant", "content": "It"},
    {"role": "user", "content": "It"},
    {"role": "assistant", "content": " It, \n\n and it."},
    {"role": "user", "content": "Thanks"},
]
# what the assistant writes, by hand
WRITTEN = {
    ("chatml", "talk"): [
        "<think>\nSo.\n</think>\n\n Hello 🙂<|im_end|>",
        "<think>\nHm.\n</think>\n\nHello.  <|im_end|>",
    ],
    ("chatml", "plain"): ["It<|im_end|>", " It, \n\n and it.<|im_end|>"],
    ("ours", "plain"): ["It<|im_end|>", " It, \n\n and it.<|im_end|>"],
    ("llama3", "talk"): [
        "<think>\nSo.\n</think>\n\n Hello 🙂<|eot_id|>",
        "<think>\nHm.\n</think>\n\nHello.<|eot_id|>",
    ],
    ("llama3", "plain"): ["It<|eot_id|>", "It, \n\n and it.<|eot_id|>"],
    ("llama3, marked", "plain"): ["It<|eot_id|>", "It, \n\n and it.<|eot_id|>"],
    ("mistral", "plain"): ["It</s>", " It, \n\n and it.</s>"],
    ("gemma", "plain"): ["It<end_of_turn>", "It, \n\n and it.<end_of_turn>"],
    ("qwen3", "talk"): [
        " Hello 🙂<|im_end|>",
        "<think>\nHm.\n</think>\n\nHello.  <|im_end|>",
    ],
    ("qwen3", "plain"): ["It<|im_end|>", " It, \n\n and it.<|im_end|>"],
}
TALKS = {"talk": TALK, "plain": PLAIN}


def byte_level(template: str | None = None) -> Tokenizer:
    """Bytes and a few words, with the special tokens of all templates."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL, *alphabet, "It", "ĠIt", "Ċ" * 2]
    merges = [("I", "t"), ("Ġ", "It"), ("Ċ", "Ċ")]
    backend = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    options: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    made = Tokenizer(backend, options=options)
    return made if template is None else made.with_chat_template(template)


def end_of(tokenizer: Tokenizer) -> str:
    token = tokenizer.end_of_turn()
    assert token is not None
    return tokenizer.token(token)


@pytest.mark.parametrize(("name", "talk"), WRITTEN)
def test_the_assistant_writes_what_a_person_would_mark(name: str, talk: str) -> None:
    tokenizer = byte_level(TEMPLATES[name])
    messages = TALKS[talk]
    found = turns_of(tokenizer, messages, None, end_of(tokenizer))
    assert [found.text[begin:end] for begin, end in found.spans] == WRITTEN[name, talk]
    # and the text is the template's own
    assert found.text == tokenizer.chat(messages, False)
    (tokens,) = labelled(tokenizer, [found])
    ends = tokens.ids == tokenizer.end_of_turn()
    assert int((ends & tokens.written).sum()) == len(found.spans)  # each turn ends with its token
    said = [tokenizer.decode(part.tolist(), False) for part in runs(tokens)]
    assert said == WRITTEN[name, talk]


def runs(tokens) -> list[np.ndarray]:
    """The tokens that the assistant writes in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], tokens.written.astype(int), [0]])))
    return [tokens.ids[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("name", ["ours", "llama3, marked"])
@pytest.mark.parametrize("talk", TALKS)
def test_labels_are_those_of_assistant_only_loss(name: str, talk: str, tmp_path: Path) -> None:
    """TRL's `assistant_only_loss` takes this mask of `transformers`."""
    transformers = pytest.importorskip("transformers")
    ours = byte_level(TEMPLATES[name])
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(
        TALKS[talk], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    (tokens,) = labelled(ours, [turns_of(ours, TALKS[talk], None, end_of(ours))])
    assert tokens.ids.tolist() == expected["input_ids"]
    assert tokens.written.astype(int).tolist() == expected["assistant_masks"]
    assert 0 < tokens.written.sum() < len(tokens.ids)


def test_a_call_of_a_tool_is_written_by_the_assistant() -> None:
    tokenizer = byte_level(QWEN3)
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "It"},
        {"role": "assistant", "content": "It is."},
    ]
    found = turns_of(tokenizer, messages, None, "<|im_end|>")
    written = [found.text[begin:end] for begin, end in found.spans]
    assert '"name": "look"' in written[0] and written[0].endswith("</tool_call><|im_end|>")
    assert written[1].endswith("It is.<|im_end|>") and "tool_response" not in "".join(written)


DROPS_EARLIER = CHATML.replace("in messages %}", "in messages[-2:] %}")
DROPS_ANSWERS = CHATML.replace(
    "{{- '<|im_start|>' + m", "{%- if message.role != 'assistant' %}{{- '<|im_start|>' + m"
).replace("'\n' }}{%- endfor", "'\n' }}{%- endif %}{%- endfor")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (DROPS_EARLIER, r"leaves message 2 \(assistant\) out"),
        (DROPS_ANSWERS, r"leaves message 2 \(assistant\) out"),
        (MISTRAL.replace("== 0", "== 1"), "roles must alternate"),
    ],
)
def test_a_template_that_leaves_it_open_is_an_error(template: str, says: str) -> None:
    tokenizer = byte_level(template)
    with pytest.raises(DataError, match=says):
        turns_of(tokenizer, PLAIN, None, "<|im_end|>")


# --- the rows ---

ASKED = {"role": "user", "content": "What?"}
SAID = {"role": "assistant", "content": "That."}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [ASKED, SAID]}, [ASKED, SAID]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "What?"},
                    {"from": "gpt", "value": "That."},
                ]
            },
            [ASKED, SAID],
        ),
        ({"instruction": "What?", "input": "", "output": "That."}, [ASKED, SAID]),
        (
            {"instruction": "Sort.", "input": "b a", "output": "a b", "system": "Be brief."},
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Sort.\n\nb a"},
                {"role": "assistant", "content": "a b"},
            ],
        ),
        (
            {"instruction": "And?", "output": "So.", "history": [["What?", "That."]]},
            [
                ASKED,
                SAID,
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "So."},
            ],
        ),
        ({"prompt": "What?", "completion": "That."}, [ASKED, SAID]),
        ({"prompt": [ASKED], "completion": [SAID]}, [ASKED, SAID]),
        ({"prompt": "What?", "response": "That."}, [ASKED, SAID]),
        (
            {
                "messages": [
                    {"role": each["role"], "content": [{"type": "text", "text": each["content"]}]}
                    for each in (ASKED, SAID)
                ]
            },
            [ASKED, SAID],
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
            [ASKED, {"role": "assistant", "tool_calls": [CALL]}],
        ),
    ],
)
def test_rows_are_read_as_they_come(row: dict, messages: list, tmp_path: Path) -> None:
    import datasets

    columns = Chat.columns
    file = write_jsonl(tmp_path / "rows.jsonl", [row, row])
    # as Arrow has it, where every message has the keys of all
    parquet = str(tmp_path / "rows.parquet")
    datasets.Dataset.from_list([row, row]).to_parquet(parquet)
    for data in (file, parquet):
        table = read(data, need=columns.required, optional=columns.optional, split=False).test
        values = Chat.raw_targets(table)
        for each in values:
            assert read_conversation(each, str).messages == messages


def test_tools_reach_the_template(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    file = write_jsonl(tmp_path / "rows.jsonl", [{"messages": [ASKED, SAID], "tools": tools}])
    columns = Chat.columns
    table = read(file, need=columns.required, optional=columns.optional, split=False).test
    (row,) = Chat.raw_targets(table)
    found = read_conversation(row, str)
    assert found.tools == tools
    tokenizer = byte_level("{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}")
    assert tokenizer.chat(found.messages, False, tools=found.tools).startswith(json.dumps(tools))


# --- the model ---


def test_new_tokens_begin_as_the_mean_of_all(tmp_path: Path) -> None:
    folder = tiny_decoder(tmp_path / "llama", "llama")  # whose output matrix is its own
    checkpoint = read_checkpoint(describe(folder), "lm")
    before = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
    size = checkpoint.config.vocab_size
    known = len(checkpoint.tokenizer)
    spare = size - known  # rows that no token has
    names = [f"<|{index}|>" for index in range(spare + 2)]
    grown = with_tokens(checkpoint, names)
    assert grown.config.vocab_size == size + 2 and len(grown.tokenizer) == size + 2
    for name in ("body.token.weight", "head.out.weight"):
        mean = before[name][:known].mean(0)
        assert torch.equal(grown.weights[name][:known], before[name][:known])
        for row in grown.weights[name][known:]:
            torch.testing.assert_close(row, mean)
    again = with_tokens(grown, names)  # they are there already
    assert again.config == grown.config


CONVERSATIONS = [
    {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": answer}]}
    for word, answer in [("it", "the"), ("a", "with"), ("the", "it"), ("with", "a")]
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("chat")
    more = {"max_position_embeddings": 256, "vocab_size": 258}  # no row to spare
    base = tiny_decoder(folder / "llama", "llama, tied", **more)
    data = {name: CONVERSATIONS for name in ("train", "dev", "test")}
    return finetune(
        "chat",
        model=base,
        data=data,
        out=folder / "run",
        train__epochs=80,
        train__lr=4e-3,
        train__precision="fp32",
        data__duplicates=False,
    )


def test_it_answers_and_stops(run: Any) -> None:
    prompts = [row["messages"][:1] for row in CONVERSATIONS]
    found = generate(run.folder, prompts, max_tokens=30)
    assert [each["text"] for each in found] == [
        row["messages"][1]["content"] for row in CONVERSATIONS
    ]
    assert {each["finish_reason"] for each in found} == {"stop"}
    model = run.load()
    assert model.predict(["it"]) == [{"generated_text": "the"}]  # a text is what the user says
    assert run.metrics["metrics"]["perplexity"] < 1.1
    assert run.metrics["baseline"]["name"].endswith("Kneser-Ney")
    report = (run.folder / "report.html").read_text("utf-8")
    assert "What it answers" in report
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert log[0]["split"] == "dev" and log[0]["step"] == 0  # of the model as it was


def test_transformers_reads_it(run: Any) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(run.folder)
    ours = run.load()
    assert model.config.vocab_size == ours.config.vocab_size == len(tokenizer) == 260
    asked = CONVERSATIONS[0]["messages"][:1]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    backend = ours.tokenizer.backend
    assert ids == backend.encode(ours.tokenizer.chat(asked), add_special_tokens=False).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(ours.logits([ids])[0], logits, atol=1e-4)
    written = model.generate(torch.tensor([ids]), do_sample=False)[0, len(ids) :].tolist()
    assert tokenizer.decode(written) == "the<|im_end|>"


def test_it_trains_further_with_its_own_template(run: Any, tmp_path: Path) -> None:
    data = {"train": CONVERSATIONS, "dev": CONVERSATIONS}
    prepared = preview("chat", model=run.folder, data=data, data__duplicates=False)
    assert prepared.config.vocab_size == run.load().config.vocab_size
    assert not any("gets the chat template" in note for note in prepared.facts["notes"])
    shown = io.StringIO()
    print_preview(prepared, Console(file=shown, color_system="truecolor", force_terminal=True))
    said = shown.getvalue()
    assert "\x1b[32mthe" in said or "\x1b[32mt" in said  # in colour what carries the loss
    assert "Ġ" not in said


def test_what_cannot_be_learnt_is_told(tmp_path: Path) -> None:
    folder = tiny_decoder(tmp_path / "llama", "llama, tied", max_position_embeddings=256)
    long = {"messages": [{"role": "user", "content": "a " * 60}, SAID]}
    cut = {"messages": [ASKED, {"role": "assistant", "content": "a " * 60}]}
    data = {"train": [*CONVERSATIONS, long, cut], "dev": CONVERSATIONS}
    given = partial(preview, "chat", model=folder, data=data, data__duplicates=False)
    notes = given(data__max_length=64).facts["notes"]
    assert any("of 1 conversations no answer is within 64" in note for note in notes)
    assert any("1 row dropped" in note for note in notes)
    assert any("tokens of answers are beyond 64" in note for note in notes)
    with pytest.raises(DataError, match="no conversation has an answer that can be learnt"):
        given(data__max_length=8)


def test_bad_models_and_templates(tmp_path: Path) -> None:
    data = {"train": CONVERSATIONS, "dev": CONVERSATIONS}
    with pytest.raises(ModelError, match="trains decoders"):
        preview("chat", model=tiny_bert(tmp_path / "bert"), data=data)
    folder = tiny_decoder(tmp_path / "llama", "llama, tied", max_position_embeddings=256)
    with pytest.raises(SettingsError, match="cannot be read"):
        preview("chat", model=folder, data=data, task__template=str(tmp_path / "none.jinja"))
    endless = tmp_path / "endless.jinja"
    endless.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(ModelError, match="would not learn to stop"):
        preview("chat", model=folder, data=data, task__template=str(endless))
    marked = tmp_path / "marked.jinja"
    marked.write_text(
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{"
        " m.content }}<|endoftext|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{%"
        " endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    found = preview("chat", model=folder, data=data, task__template=str(marked))
    assert found.config.vocab_size == 272  # nothing was added


def test_an_adapter_learns_with_the_template_that_adds_no_token(tmp_path: Path) -> None:
    base = tiny_decoder(tmp_path / "llama", "llama, tied", max_position_embeddings=256)
    chat = partial(
        finetune,
        "chat",
        model=base,
        data={name: CONVERSATIONS for name in ("train", "dev", "test")},
        out=tmp_path / "run",
        model__adapter="lora",
        train__max_steps=2,
        data__duplicates=False,
    )
    with pytest.raises(SettingsError, match="does not hold") as refused:
        chat()
    assert "task.template=plain" in str(refused.value)
    run = chat(task__template="plain")  # as it says
    model = run.load()
    assert model.adapters == ["default"]
    assert model.config.vocab_size == read_checkpoint(describe(base), "lm").config.vocab_size
    assert model.tokenizer.chat_template == OURS["plain"]
    assert model.tokenizer.end_of_turn() is not None
