"""`/tokenize` and `/detokenize`: convert texts or conversations to token ids and back, in the
format of vLLM's routes of these names.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from langue.serve.api_errors import ApiError
from langue.serve.conversation import as_template_has_them, check_template, encode, rendered
from langue.serve.fields import Bool, Fields, Ids, MessageFields, Text, ToolFields
from langue.serve.models import Loaded
from langue.serve.state import state_of

router = APIRouter()


class TokenizeFields(Fields):
    """`POST /tokenize`: a text as `prompt`, or a conversation as `messages`."""

    model: str
    prompt: Text | None = None
    messages: Annotated[list[MessageFields], Field(min_length=1)] | None = None
    tools: list[ToolFields] | None = None
    add_special_tokens: Bool | None = None
    add_generation_prompt: Bool = True
    return_token_strs: Bool = False


class DetokenizeFields(Fields):
    """`POST /detokenize`."""

    model: str
    tokens: Annotated[Ids, Field(max_length=1_000_000)]


@router.post("/tokenize")
async def tokenize(fields: TokenizeFields, request: Request) -> Response:
    """Return the token ids of a text, or of a conversation rendered by the model's chat
    template.
    """
    request.state.call.model = fields.model
    if (fields.prompt is None) == (fields.messages is None):
        what = "Give either 'prompt' or 'messages'"
        raise ApiError(400, what, param="prompt", code="missing_required_parameter")
    of_other = ("tools",) if fields.messages is None else ("add_special_tokens",)
    for name in of_other:
        if getattr(fields, name) is not None:
            what = f"'{name}' is not allowed with {'a prompt' if name == 'tools' else 'messages'}"
            raise ApiError(400, what, param=name, code="invalid_value")
    async with state_of(request).shelf.use(fields.model) as loaded:
        ids = await asyncio.to_thread(_encoded, loaded, fields)
        room = loaded.named.config.max_length
        strings = None
        if fields.return_token_strs:
            strings = [loaded.model.tokenizer.token(each) for each in ids]
    found = {"count": len(ids), "max_model_len": room, "tokens": ids, "token_strs": strings}
    return JSONResponse(found)


def _encoded(loaded: Loaded, fields: TokenizeFields) -> list[int]:
    tokenizer = loaded.model.tokenizer
    if fields.messages is not None:
        check_template(loaded, bool(fields.tools))
        tools = [each.model_dump(exclude_none=True) for each in fields.tools or ()] or None
        messages = as_template_has_them(fields.messages)
        with loaded.lock:
            text = rendered(loaded, messages, tools, begins_answer=fields.add_generation_prompt)
            return encode(tokenizer, text)
    assert fields.prompt is not None
    special = fields.add_special_tokens is not False
    try:
        fields.prompt.encode()
    except UnicodeEncodeError:
        what = "'prompt' contains a lone surrogate"
        raise ApiError(400, what, param="prompt", code="invalid_value") from None
    with loaded.lock:
        return list(tokenizer.encode_batch([fields.prompt], special=special)[0].ids)


@router.post("/detokenize")
async def detokenize(fields: DetokenizeFields, request: Request) -> Response:
    """Return the text of token ids, including special tokens."""
    request.state.call.model = fields.model
    async with state_of(request).shelf.use(fields.model) as loaded:
        text = await asyncio.to_thread(_decoded, loaded, fields.tokens)
    return JSONResponse({"prompt": text})


def _decoded(loaded: Loaded, tokens: list[int]) -> str:
    tokenizer = loaded.model.tokenizer
    size = tokenizer.reader.get_vocab_size()
    other = next((each for each in tokens if each >= size), None)
    if other is not None:
        what = f"'tokens': {other} is not one of the model's {size:,} tokens"
        raise ApiError(400, what, param="tokens", code="invalid_value")
    with loaded.lock:
        return tokenizer.decode(tokens, skip_special=False)
