"""What arrives: the runs that a server is started with, and a budget of memory. What leaves: a
model by its id, loaded when it is asked for, and unloaded when others need its place, or nobody
asks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from langue.errors import LangueError, SettingsError
from langue.hub.checkpoint import family_of, is_quantized
from langue.model.cache import PAGE, Pages
from langue.model.config import ModelConfig
from langue.model.language_model import build_on_meta
from langue.runs.model import Model, load_base
from langue.runs.weight_source import WeightSource, source_of
from langue.runtime import device, free_memory
from langue.serve.api_errors import ApiError
from langue.serve.metrics import Metrics
from langue.serve.thinking import marks_of
from langue.serve.token_texts import TokenTexts
from langue.serve.uses import Use, use_of
from langue.serve.worker import Worker
from langue.text.tokenizers.chat import TALK
from langue.text.tokenizers.template_worker import Templates, TooSlow

# of a number of a matrix: in groups of 32 with a scale in fp16 where they are whole numbers
BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0625, "int4": 0.5625}
SHARE = 0.8  # of the memory that is free, where no budget is given
LEAST = 512  # tokens of keys and values that a model which writes must have room for
LEAST_CHARACTERS = 100_000  # that a text may have of whatever model
RETRY = 5.0  # seconds after which a place may be free


@dataclass
class Named:
    """A run that can be asked for."""

    id: str
    run: str
    created: int
    config: ModelConfig
    source: WeightSource
    weights: int  # bytes; of an adapter, its base's
    adapter: int  # bytes of an adapter
    page: int  # bytes of keys and values of a page; 0: it does not write
    use: Use
    keys: int = 0  # bytes of keys and values that it is given


def bytes_of(models: Iterable[Named]) -> int:
    """Of all together, where adapters of one base share its weights."""
    every = list(models)
    bases = {each.source.key: each.weights for each in every}
    return sum(bases.values()) + sum(each.adapter + each.keys for each in every)


@dataclass
class Loaded:
    """A model in memory, and the thread that owns it."""

    named: Named
    model: Model
    worker: Worker
    tokens: TokenTexts
    templates: Templates  # renders conversations
    base: Model  # of an adapter: the model whose weights it shares; else the model itself
    active: int = 0  # calls that use it
    used: float = field(default_factory=time.monotonic)
    # texts of several languages share one tokenizer, whose frame is set before each
    lock: Lock = field(default_factory=Lock)

    @property
    def id(self) -> str:
        return self.named.id

    def close(self) -> None:
        """End its thread and its process."""
        self.worker.close()
        self.templates.close()

    @cached_property
    def template(self) -> str | None:
        """Of its conversations."""
        return self.model.tokenizer.chat_template

    @cached_property
    def thought_marks(self) -> tuple[str, str] | None:
        """What it puts around thoughts."""
        added = self.model.tokenizer.backend.get_added_tokens_decoder().values()
        return marks_of(self.template, {token.content for token in added if token.special})

    @cached_property
    def most_characters(self) -> int:
        """Of a text that is cut into tokens at all: as many as its tokens would have if each were
        the longest that there is.
        """
        longest = max(map(len, self.model.tokenizer.backend.get_vocab()), default=1)
        return max(LEAST_CHARACTERS, self.model.inputs.room.tokens * longest)

    def check_size(self, text: str, param: str) -> None:
        """ApiError where a text is far too long: to cut it into tokens takes seconds and memory."""
        if len(text) > self.most_characters:
            room = self.model.inputs.room.tokens
            what = (
                f"This model's maximum context length is {room:,} tokens. However, you sent a text"
                f" of {len(text):,} characters, and the limit is {self.most_characters:,}"
            )
            raise ApiError(400, what, param=param, code="context_length_exceeded")

    @property
    def writes(self) -> bool:
        """Whether it goes on from prompts."""
        return self.worker.engine is not None


class Shelf:
    """The models of a server."""

    def __init__(self, named: Sequence[Named], memory: int, idle: float, metrics: Metrics) -> None:
        """memory: bytes of weights, keys and values, all loaded models together; idle: seconds
        after which a model that nobody uses is unloaded, 0 for never.
        """
        self.named = {each.id: each for each in named}
        self.memory = memory
        self.idle = idle
        self.metrics = metrics
        self.loaded: dict[str, Loaded] = {}
        # the bases of loaded models, by what is the same of all that share one
        self._bases: WeakValueDictionary[tuple[str, ...], Model] = WeakValueDictionary()
        self._lock = asyncio.Lock()

    def find(self, id: str) -> Named:
        """A model by its id. ApiError where there is none."""
        found = self.named.get(id)
        if found is None:
            known = ", ".join(self.named)
            what = f"The model '{id[:200]}' does not exist; available: {known}"
            raise ApiError(404, what, param="model", code="model_not_found")
        return found

    @asynccontextmanager
    async def use(self, id: str) -> AsyncIterator[Loaded]:
        """A model, which is not unloaded meanwhile."""
        named = self.find(id)
        found = self.loaded.get(id)
        if found is not None and not found.worker.is_alive:  # it broke, and is made anew
            del self.loaded[id]
            found = None
        if found is None:
            async with self._lock:
                found = self.loaded.get(id) or await self._load(named)
                found.active += 1
        else:
            found.active += 1
        try:
            yield found
        finally:
            found.active -= 1
            found.used = time.monotonic()

    async def load_first(self) -> None:
        """As many as there is room for, in their order."""
        async with self._lock:
            first = list[Named]()
            for named in self.named.values():
                first.append(named)
                if bytes_of(first) > self.memory:
                    break
                await self._load(named)

    async def unload_idle(self) -> None:
        """Now and then, what nobody has used for a while."""
        while self.idle:
            await asyncio.sleep(max(0.05, min(self.idle / 4, 15.0)))
            async with self._lock:
                since = time.monotonic() - self.idle
                idle = [each for each in self.loaded.values() if each.used < since]
                for each in idle:
                    if not each.active:
                        await self._unload(each)

    async def close(self) -> None:
        """Unload all."""
        async with self._lock:
            for each in list(self.loaded.values()):
                await self._unload(each)

    async def _load(self, named: Named) -> Loaded:
        await self._make_room(named)
        loop = asyncio.get_running_loop()
        base = self._bases.get(named.source.key)
        try:
            found = await asyncio.to_thread(_load, named, base, loop, self.metrics)
        except LangueError as error:
            what = f"The model '{named.id}' cannot be loaded: {error}"
            raise ApiError(503, what, code="model_not_loaded") from error
        self.loaded[named.id] = found
        self._bases[named.source.key] = found.base
        self.metrics.set("langue_model_loaded", 1, model=named.id)
        self.metrics.set("langue_model_bytes", bytes_of([named]), model=named.id)
        return found

    async def _make_room(self, named: Named) -> None:
        """Unload what was used least recently, until there is room."""
        while bytes_of([named, *(each.named for each in self.loaded.values())]) > self.memory:
            idle = [each for each in self.loaded.values() if not each.active]
            if not idle:
                what = "All loaded models are in use, and there is no memory for another one"
                again = {"Retry-After": f"{RETRY:g}"}
                raise ApiError(503, what, code="model_not_loaded", headers=again)
            await self._unload(min(idle, key=lambda each: each.used))

    async def _unload(self, loaded: Loaded) -> None:
        del self.loaded[loaded.id]
        self.metrics.set("langue_model_loaded", 0, model=loaded.id)
        await asyncio.to_thread(loaded.close)


def _load(
    named: Named, base: Model | None, loop: asyncio.AbstractEventLoop, metrics: Metrics
) -> Loaded:
    """base: the model whose weights it shares, where that is loaded."""
    source = named.source
    if base is None:
        base = load_base(source)
    model = base if source.adapter is None else base.beside(source.adapter)
    templates = Templates()
    if model.tokenizer.chat_template is not None:
        _try_template(model, templates)
    writes = model.language is not None and named.page > 0
    make_engine = (lambda: model.engine(memory=named.keys)) if writes else None
    context = model.inputs.room.tokens if model.config.architecture == "decoder" else 0
    worker = Worker(named.id, loop, metrics, make_engine, context)
    tokens = TokenTexts(model.tokenizer.target, _logits_of(model))
    return Loaded(named, model, worker, tokens, templates, base)


def _try_template(model: Model, templates: Templates) -> None:
    """TooSlow where the model's template never ends, which the engine renders once without bounds.
    What else may be wrong with it is told to who converses.
    """
    try:
        model.tokenizer.chat(TALK, add_generation_prompt=False, templates=templates)
    except TooSlow:
        templates.close()
        raise
    except LangueError:
        pass


def _logits_of(model: Model) -> int:
    return model.config.decoder_vocab_size or model.config.vocab_size


def name_all(
    runs: Sequence[str], memory: int | None, held: str | None = None
) -> tuple[list[Named], int]:
    """The runs by their ids, and the budget. held: what matrices are held in. SettingsError where
    two have one id, or one does not fit; ModelError where a run is no model that can be served.
    """
    if not runs:
        raise SettingsError("no run is given", do="langue serve RUN")
    named: list[Named] = []
    for run in runs:
        one = _named(run, held)
        twin = next((each for each in named if each.id == one.id), None)
        if twin is not None:
            alike = str(twin.run) == str(run)
            raise SettingsError(
                f"{twin.run} and {run} would both be named {one.id}",
                do="name it once" if alike else "rename one of the folders",
            )
        named.append(one)
    if memory is None:
        memory = int(free_memory(device()) * SHARE)
    _divide(named, memory)
    return named, memory


def _named(run: str, held: str | None) -> Named:
    source = source_of(run, None, "auto" if held is None else "fp32", held)
    described = source.described
    config = family_of(described)[1]
    path = Path(run)
    id = run  # of the Hub
    if path.exists():
        id = path.resolve().stem if path.is_file() else path.resolve().name
    use = use_of(described, config)
    each_bytes = BYTES.get(str(source.held), source.kind.itemsize)
    size = int(sum(each.numel() for each in build_on_meta(config).parameters()) * each_bytes)
    if is_quantized(described.published) or described.original is not None:
        original = described.original
        size = _size_of([original] if original else described.folder.glob("*.safetensors"))
    adapter = 0 if source.adapter is None else _size_of(source.adapter.glob("*.safetensors"))
    page = 0
    if config.architecture != "encoder":
        writer = config if config.architecture == "decoder" else config.decoder()
        page = Pages.bytes_each(writer, source.kind)
    created = int(path.stat().st_mtime) if path.exists() else 0
    return Named(id, run, created, config, source, size, adapter, page, use)


def _size_of(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _divide(named: Sequence[Named], memory: int) -> None:
    """Give those that write what is left beside the weights, for keys and values: of all where all
    fit together, else of each alone.
    """
    writers = [each for each in named if each.page]
    weights = bytes_of(named)  # no keys are given yet
    least = sum(_least(each) for each in writers)
    together = weights + least <= memory
    for each in named:
        need = bytes_of([each]) + _least(each)
        if need > memory:
            raise SettingsError(
                f"the model and its cache take {need:,} bytes, and --memory is {memory:,}",
                where=each.run,
                do=f"give --memory {need} or more",
            )
        if each.page:
            spare = (memory - weights - least) // len(writers) if together else 0
            each.keys = _least(each) + (spare if together else memory - need)


def _least(named: Named) -> int:
    """Bytes of keys and values without which a model is of no use."""
    if not named.page:
        return 0
    return (min(named.config.longest, LEAST) // PAGE + 2) * named.page


def parse_size(text: str) -> int:
    """`"8GB"`, `"512 MB"`, `"1.5GiB"` or bytes. SettingsError where it is none."""
    units = {"": 1, "b": 1}
    for power, letter in enumerate("kmgt", 1):
        units |= {letter: 1000**power, f"{letter}b": 1000**power, f"{letter}ib": 1024**power}
    bare = text.strip().lower()
    number = bare.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = bare[len(number) :].strip()
    try:
        size = float(number) * units[unit]
        whole = int(size)
    except (ValueError, KeyError, OverflowError):
        whole = 0
    if whole < 1:
        raise SettingsError(f"--memory {text!r} is not a size", do="write 8GB or a number of bytes")
    return whole
