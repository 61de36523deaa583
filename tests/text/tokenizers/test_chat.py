"""Chat templates: the text that `transformers` makes of a conversation, and what hostile ones
get."""

import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from langue.errors import DataError, ModelError
from langue.text.tokenizers.chat import template_of
from langue.text.tokenizers.tokenizer import Tokenizer

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' +"
        " message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{"
        " '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set"
        " system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{%"
        " set system_message = false %}{% endif %}{% for message in loop_messages %}{% if"
        " (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must"
        " alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set"
        " content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else"
        " %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{"
        " bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] =="
        " 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{{ bos_token }}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' +"
        " message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>'"
        " }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{-"
        " '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n"
    ),
    "tools": (
        "{% if tools is not none %}T{% endif %}{% if documents %}D{% endif %}{{ mark_token }}{{"
        " sep_token }}{{ 3 * 7 }}{{ '-' * 8 }}{% for m in messages %}{{ m.content }}{% if"
        " m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}{% endfor %}"
    ),
    "marked": (
        "{% for m in messages %}\n  {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{%"
        " endgeneration %}\n  {% else %}{{ m | tojson }}{% if loop.last %}{% break %}{% endif %}{%"
        " endif %}\n{% endfor %}"
    ),
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße, 你好 <b>&'\" "},
    {"role": "assistant", "content": " Hello. "},
    {"role": "user", "content": "Why?"},
]


def folder_with(path, template, **more):
    backend = Backend(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(path / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "a",
    }
    (path / "tokenizer_config.json").write_text(
        json.dumps(said | {"chat_template": template} | more)
    )
    return path


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("begins", [True, False])
def test_the_text_is_that_of_transformers(tmp_path, name, begins):
    transformers = pytest.importorskip("transformers")
    folder = folder_with(tmp_path, TEMPLATES[name], extra_special_tokens={"mark_token": "<mark>"})
    (folder / "special_tokens_map.json").write_text(json.dumps({"sep_token": {"content": "<sep>"}}))
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    for talk in (TALK, TALK[1:2], *([[TALK[1], called]] if name == "tools" else [])):
        expected = reference.apply_chat_template(talk, tokenize=False, add_generation_prompt=begins)
        assert Tokenizer.load(folder).chat(talk, begins) == expected


def test_a_file_of_its_own_and_named_ones_are_found_and_saved(tmp_path):
    folder = folder_with(
        tmp_path, [{"name": "default", "template": "one"}, {"name": "tools", "template": "two"}]
    )
    assert Tokenizer.load(folder).chat(TALK) == "one"
    (folder / "chat_template.jinja").write_text("three")
    (tmp_path / "out").mkdir()
    Tokenizer.load(folder).save(tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").chat(TALK) == "three"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% if %}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ nothing.at.all }}",
        "{% set x = 'a' * 5000000000 %}",
        "{% set x = [1] * 2000000 * 4000000 %}",
        "{% set x = 2 ** 10000000000 %}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_a_template_may_not_do(tmp_path, template):
    with pytest.raises(ModelError, match="chat template"):
        Tokenizer.load(folder_with(tmp_path, template)).chat(TALK)


def test_no_template_and_no_messages_are_said(tmp_path):
    with pytest.raises(ModelError, match="no chat template"):
        Tokenizer.load(folder_with(tmp_path, None)).chat(TALK)
    with pytest.raises(DataError, match="message 2 is not a role"):
        Tokenizer.load(folder_with(tmp_path, "x")).chat([TALK[0], {"text": "hi"}])


def test_a_conversation_is_answered(tmp_path):
    from langue.runs.model import load
    from tests.tiny_decoder import tiny_decoder

    model = load(tiny_decoder(tmp_path / "m", "llama"))
    with pytest.raises(ModelError, match="no chat template"):
        model.generate([TALK[1:2]], max_tokens=3)
    (tmp_path / "m" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    answers = model.generate(
        [[{"role": "user", "content": "a b"}], [{"role": "user", "content": "b"}]], max_tokens=3
    )
    plain = [
        model.tokenizer.backend.encode(text, add_special_tokens=False).ids
        for text in ("a b ", "b ")
    ]
    assert answers == [model.tokenizer.decode(ids) for ids in model.generate(plain, max_tokens=3)]


def test_a_template_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(
        ModelError, match="chat_template.jinja: cannot be read: it is not UTF-8; fetch it again"
    ):
        template_of(tmp_path, {})
