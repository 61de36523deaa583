"""The models of a server: takes the runs to serve, and a memory budget; provides a model by its id,
loads it on demand, and unloads it when others need the memory or nobody uses it.
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

# bytes per weight of a matrix; integers are in groups of 32 with a scale in fp16
BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0625, "int4": 0.5625}
SHARE = 0.8  # fraction of the free memory, if no budget is given
LEAST = 512  # minimum KV cache, in tokens, of a model that generates
LEAST_CHARACTERS = 100_000  # minimum limit of a text's length, for any model
RETRY = 5.0  # seconds until a retry may find free memory


@dataclass
class Named:
    """A run that is served under an id."""

    id: str
    run: str
    created: int
    config: ModelConfig
    source: WeightSource
    weights: int  # bytes of weights; of the base model, for an adapter
    adapter: int  # bytes of an adapter's weights
    page: int  # bytes of a KV cache page; 0: the model does not generate
    use: Use
    keys: int = 0  # bytes of its KV cache


def bytes_of(models: Iterable[Named]) -> int:
    """Return the memory of several models; adapters of the same base share its weights."""
    every = list(models)
    bases = {each.source.key: each.weights for each in every}
    return sum(bases.values()) + sum(each.adapter + each.keys for each in every)


@dataclass
class Loaded:
    """A loaded model, and the thread that owns it."""

    named: Named
    model: Model
    worker: Worker
    tokens: TokenTexts
    templates: Templates  # renders conversations in a separate process
    base: Model  # for an adapter, the model whose weights it shares; else the model itself
    active: int = 0  # number of calls that use it
    used: float = field(default_factory=time.monotonic)
    # a multilingual tokenizer is shared, and its special tokens are set for each text's language
    lock: Lock = field(default_factory=Lock)

    @property
    def id(self) -> str:
        return self.named.id

    def close(self) -> None:
        """Stop its thread and its template process."""
        self.worker.close()
        self.templates.close()

    @cached_property
    def template(self) -> str | None:
        """The chat template."""
        return self.model.tokenizer.chat_template

    @cached_property
    def thought_marks(self) -> tuple[str, str] | None:
        """The marks that it puts around its reasoning."""
        added = self.model.tokenizer.backend.get_added_tokens_decoder().values()
        return marks_of(self.template, {token.content for token in added if token.special})

    @cached_property
    def most_characters(self) -> int:
        """Maximum number of characters of a text to tokenize: the context length times the length
        of the longest token.
        """
        longest = max(map(len, self.model.tokenizer.backend.get_vocab()), default=1)
        return max(LEAST_CHARACTERS, self.model.inputs.room.tokens * longest)

    def check_size(self, text: str, param: str) -> None:
        """Raise ApiError for texts so long that tokenizing them would take seconds and much
        memory.
        """
        if len(text) > self.most_characters:
            room = self.model.inputs.room.tokens
            what = (
                f"This model's maximum context length is {room:,} tokens. However, you sent a text"
                f" of {len(text):,} characters, and the limit is {self.most_characters:,}"
            )
            raise ApiError(400, what, param=param, code="context_length_exceeded")

    @property
    def writes(self) -> bool:
        """Whether the model generates text."""
        return self.worker.engine is not None


class Shelf:
    """The loaded and loadable models of a server."""

    def __init__(self, named: Sequence[Named], memory: int, idle: float, metrics: Metrics) -> None:
        """memory: budget in bytes for weights and KV caches of all loaded models. idle: seconds
        after which an unused model is unloaded; 0: never.
        """
        self.named = {each.id: each for each in named}
        self.memory = memory
        self.idle = idle
        self.metrics = metrics
        self.loaded: dict[str, Loaded] = {}
        # base models in memory, by the key of everything that adapters of one base share
        self._bases: WeakValueDictionary[tuple[str, ...], Model] = WeakValueDictionary()
        self._lock = asyncio.Lock()

    def find(self, id: str) -> Named:
        """Return a model by its id; raise ApiError if there is none."""
        found = self.named.get(id)
        if found is None:
            known = ", ".join(self.named)
            what = f"The model '{id[:200]}' does not exist; available: {known}"
            raise ApiError(404, what, param="model", code="model_not_found")
        return found

    @asynccontextmanager
    async def use(self, id: str) -> AsyncIterator[Loaded]:
        """Provide a model, and keep it loaded meanwhile."""
        named = self.find(id)
        found = self.loaded.get(id)
        if found is not None and not found.worker.is_alive:  # its thread has died; load it again
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
        """Load as many models as fit, in their order."""
        async with self._lock:
            first = list[Named]()
            for named in self.named.values():
                first.append(named)
                if bytes_of(first) > self.memory:
                    break
                await self._load(named)

    async def unload_idle(self) -> None:
        """Regularly unload models that have not been used for a while."""
        while self.idle:
            await asyncio.sleep(max(0.05, min(self.idle / 4, 15.0)))
            async with self._lock:
                since = time.monotonic() - self.idle
                idle = [each for each in self.loaded.values() if each.used < since]
                for each in idle:
                    if not each.active:
                        await self._unload(each)

    async def close(self) -> None:
        """Unload all models."""
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
        """Unload the least recently used models until there is room."""
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
    """Load a model; base: the loaded model whose weights it shares, if there is one."""
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
    """Raise TooSlow if the model's chat template never terminates, because the engine renders it
    once without a time limit.

    Any other error of the template is reported to callers who use it.
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
    """Return the runs with their ids, and the memory budget.

    held: the format in which weight matrices are held. Raises SettingsError if two runs have the
    same id, or one does not fit; ModelError if a run cannot be served.
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
    _divide_memory(named, memory)
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


def _divide_memory(named: Sequence[Named], memory: int) -> None:
    """Divide the remaining memory among the KV caches of the models that generate: what all weights
    leave if all models fit together, else what each model leaves on its own.
    """
    writers = [each for each in named if each.page]
    weights = bytes_of(named)  # at this point no model has a KV cache
    least = sum(_least_cache(each) for each in writers)
    together = weights + least <= memory
    for each in named:
        need = bytes_of([each]) + _least_cache(each)
        if need > memory:
            raise SettingsError(
                f"the model and its cache take {need:,} bytes, and --memory is {memory:,}",
                where=each.run,
                do=f"give --memory {need} or more",
            )
        if each.page:
            spare = (memory - weights - least) // len(writers) if together else 0
            each.keys = _least_cache(each) + (spare if together else memory - need)


def _least_cache(named: Named) -> int:
    """Return the minimum KV cache of a model, in bytes."""
    if not named.page:
        return 0
    return (min(named.config.longest, LEAST) // PAGE + 2) * named.page


def parse_size(text: str) -> int:
    """Parse `"8GB"`, `"512 MB"`, `"1.5GiB"` or bytes; raise SettingsError if it is no size."""
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
