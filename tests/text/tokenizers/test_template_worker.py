"""Templates of others in a process of their own: the same text, and no more time or memory than is
given."""

import time

import pytest

from langue.errors import DataError, ModelError
from langue.text.tokenizers.chat import render
from langue.text.tokenizers.template_worker import Templates, TooSlow

TALK = [{"role": "user", "content": "größer 🙂"}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ mood }}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_it_renders_the_same_and_what_never_ends_is_refused() -> None:
    templates = Templates(seconds=2)
    how = {"tokens": {"bos_token": "<s>"}, "variables": {"mood": "!", "messages": "none"}}
    text = templates.render(TEMPLATE, TALK, **how)
    assert text == render(TEMPLATE, TALK, **how) == "<s>größer 🙂!"
    began = time.perf_counter()
    with pytest.raises(TooSlow, match="more than 2 seconds"):
        templates.render(LOOP, TALK, tokens={})
    assert time.perf_counter() - began < 20
    assert templates.render(TEMPLATE, TALK, **how) == text
    for template in ("{% set x = '%2000000000d' % 1 %}", "{{ raise_exception('no') }}"):
        with pytest.raises(ModelError, match="chat template"):
            templates.render(template, TALK, tokens={})
    with pytest.raises(DataError, match="not a role with content"):
        templates.render(TEMPLATE, [{"role": "user"}], tokens={})
    templates.close()
