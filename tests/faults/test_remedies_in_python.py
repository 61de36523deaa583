"""Each remedy for a wrong call in Python is obeyed word for word, and the call then works.

What a remedy names as Python is run as it stands there: `[text]`, with `text` being one.
"""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

import langue
from langue import Tagger, TextClassifier, TextEmbedder, TextRegressor
from langue.errors import LangueError, LangueWarning
from tests.faults.obeying import Case, named, obey
from tests.tiny import PLAIN, SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder
from tests.tiny_kinds import tiny_model

FEW = SHORT | {"train.max_steps": 1}
TEXTS = {"text": "film", "prompt": "a", "pair": "plot", "ids": [5, 6], "texts": {"a": "film"}}
MESSAGE = {"role": "user", "content": "a"}
LISTS = [
    ("run.predict(«'film'»)", r"give a list: (\[text\])"),
    ("run.encode(«{'a': 'film'}»)", r"as of its values: (list\(texts\.values\(\)\))"),
    ("talker.generate(«message», 2)", r"give a list of conversations: (\[\[message\]\])"),
    ("talker.generate(«messages», 2)", r"give a list of conversations: (\[messages\])"),
    ("run.hidden(«[5, 6]»)", r"give a list of lists: (\[ids\])"),
    ("run.hidden(['film'«, [5, 6]»])", "give one kind at a time"),
    ("run.hidden([«('film', 3)»])", r"give (\(text, pair\)), two strings"),
    ("run.hidden([«3.5»])", "give one of these", "text"),
    ("run.hidden(['film ' * «99»])", "shorten it", "9"),
    ("run.hidden(«messages»)", "give a list of texts", "[text]"),
    ("run.hidden(«message»)", "give a list of texts", "[text]"),
    ("decoder.rank(«[3]», ['b'])", "give a list of texts", "[text]"),
    ("talker.generate([[{«'says'»: 'a', 'role': 'user'}]], 2)", r'"user", ("content")'),
    ("«decoder».generate([messages], 2)", "or a model for conversation", "talker"),
]
PREDICT = [
    ("run.predict(['film'], top=«0»)", r"give (\d) or more"),
    ("run.predict(['film'], top=«0»)", r"(None) for all"),
    ("run.predict(['film'], top=«0»)", r'or ("auto")'),
    ("pairs.predict([«'film'»])", "give what it was trained on", "(text, pair)"),
    ("«decoder».predict(['film'])", "fine-tune it first", "run"),
    ("«base».generate(['a'])", r"load a model saved with its head \(ForCausalLM", "decoder"),
    ("langue.load(folder / 'base', dtype='«fp64»')", r"give (\w+)"),
    ("langue.load(folder / 'base', weights='int8', «dtype='bf16'»)", "leave one of them out"),
    ("langue.load(folder / '«int8»', weights='int4')", "take the model .* made from", "decoder"),
    ("langue.load(folder / 'base').use_adapter(«'one'»)", "known: (none)", "None"),
    ("adapted().add_adapter(folder / 'lora', «'one'»)", "give it another name", "'two'"),
    ("adapted().use_adapter(«'two'»)", r"known: ('\w+')"),
    (
        "«adapted().add_adapter(folder / 'base', 'x')»",
        "load it by itself",
        "langue.load(folder / 'base')",
    ),
    ("base.save(folder / '«run»')", "choose another", "saved"),
]
ENCODE = [
    ("base.encode(['film'], pool='«middle»')", r"use one of: (\w+)"),
    ("base.encode(['film'], dim=«99»)", r"a number from 1 to (\d+)"),
    ("base.encode(['film'], prompt='a'«, prompt_name='b'»)", "give one of them"),
    ("base.encode(['film'], «prompt_name»='query')", r"give the text itself: (prompt)="),
    ("base.encode([«[5, 6]»], prompt='a')", "give strings", "text"),
    ("base.encode([[5, 6]]«, prompt='a'»)", "leave prompt out"),
    ("decoder.encode(['film'«, ''»])", "leave empty texts out"),
]
GENERATE = [
    ("decoder.generate(['a'], 2, regex='a'«, choices=['a']»)", "give one of them"),
    ("decoder.generate(['a'], 2, seed=«[1, 2]»)", "give one seed, or one a prompt", "1"),
    ("decoder.generate(['a'], 2, seed=«[1, 2]»)", "give one seed, or one a prompt", "[1]"),
    ("list(decoder.stream('a', «most»=2))", r"known are (\w+)"),
    ("decoder.generate(['a'], «0»)", r"give a whole number from (\d) on"),
    ("decoder.generate(['a'], 2, temperature=«-1»)", r"give (\d),"),
    ("decoder.generate(['a'], 2, top_p=«2»)", r"at most (\d)"),
    ("decoder.generate(['a'], 2, repetition_penalty=«0»)", r"(\d) is none"),
    ("decoder.generate(['a'], 2, min_tokens=«9»)", "lower min_tokens", "1"),
    ("decoder.generate(['a'], min_tokens=9, max_tokens=«2»)", "raise max_tokens", "9"),
    (
        "decoder.generate(['a'], 2, logit_bias=«[5]»)",
        "a mapping from token ids to numbers",
        "{5: 1}",
    ),
    ("decoder.generate(['a'], 2, logit_bias={«'a'»: 1})", "give token ids", "5"),
    ("decoder.generate(['a'], 2, logit_bias={5: «'much'»})", r"\((-inf): never\)"),
    ("decoder.generate(['a'], 2, logit_bias={5: 1«, 999: 1»})", "take it out"),
    ("decoder.generate([[«999»]], 2)", "token ids must lie in 0 to (271)"),
    (
        "decoder.generate(['a'], 2, choices=['a']«, logit_bias=dict.fromkeys(range(272), -inf)»)",
        "leave one of them out",
    ),
    ("decoder.generate(['a'], 2«, stop=''»)", "leave it out"),
    ("decoder.generate(['a'], 2«, source_language='de'»)", "leave the languages out"),
    ("decoder.generate(['a'], 2, n=«0»)", r"give (\d) or more"),
    ("decoder.generate(['a'], 2, draft=«base»)", "take another", "decoder"),
    ("decoder.generate(['a'], 2, draft=«masked»)", "take one with the same tokenizer", "decoder"),
    ("decoder.generate(['a'], 2, beams=2«, temperature=1.0»)", "give one of the two"),
    ("decoder.generate(['a'], 2, beams=2«, logprobs=1»)", "leave them out"),
    ("decoder.generate(['a'], 2, n=3, beams=«2»)", "n <= beams", "3"),
    ("decoder.generate(['a'], 2, beams=2, length_penalty=«inf»)", r"give a finite number; (0)"),
    ("decoder.generate(['a'], 2, beams=2, early_stopping=«'maybe'»)", 'give True, False or (".*")'),
    (
        "«decoder.engine().submit('a', draft='prompt')»",
        "give it to Model.engine",
        "decoder.engine(draft='prompt').submit('a')",
    ),
    ("decoder.engine().submit('a'«, n=2»)", "submit the prompt n times"),
    ("decoder.engine(rows=2).submit('a', beams=«4»)", "give fewer beams", "2"),
    ("decoder.engine(rows=«2»).submit('a', beams=4)", "or the engine more rows", "4"),
    ("decoder.engine(memory=«1»).submit('a', max_tokens=2)", "or give more memory", "10**6"),
]
FORMS = [
    ("decoder.generate(['a'], 2, regex=«5»)", "give a regular expression", "'a+'"),
    ("decoder.generate(['a'], 2, regex='«(»')", "write it otherwise", "a"),
    ("decoder.generate(['a'], 2, choices=«[]»)", r"give (\[.*\])"),
    ("decoder.generate(['a'], 2, grammar=«7»)", "rules in llguidance's Lark, as ('start.*')$"),
    ("decoder.generate(['a'], 2, grammar='start: «(»\"a\"')", "write it otherwise", ""),
    ("decoder.generate(['a'], 2, choices=['a«\\ud800»'])", "leave lone surrogates out"),
    ("decoder.generate(['a'], 2, json_schema=«{'enum': {1}}»)", "give what JSON can hold", "{}"),
    (
        "decoder.generate(['a'], 2, json_schema={'$ref': '#/$defs/a', '$defs': {'a': {'type': "
        "'object', 'properties': {'a': {'$ref': '#/$defs/a'}}«, 'required': ['a']»}}})",
        "let the recursive part be left out",
    ),
]
PROMPTED = [
    ("decoder.rank('a', ['b'], normalize='«words»')", r"use one of: (\w+)"),
    ("decoder.rank(['a', 'b'], «[['c']]»)", "give one list for all", "['c']"),
    ("decoder.rank(['a', 'b'], «[['c']]»)", "or one list a prompt", "[['c'], ['d']]"),
    ("decoder.rank('a', ['b'«, 3»])", "give a list of texts"),
    ("t5.rank('«»', ['b'])", "the context has no tokens; fill it in", "a"),
    ("«masked».rank('a', ['b'])", "take a decoder", "decoder"),
    ("masked.«rank»(['the [MASK]'], ['b'])", "use (fill_mask)", "fill_mask(['the [MASK]']) or len"),
    ("decoder.zero_shot(['a'], ['b'], template=«'It is so.'»)", r'as (".*")'),
    ("decoder.zero_shot(['a'], ['b'], template='«{}, {text}»')", "before the label", "{text}, {}"),
    ("decoder.zero_shot(['a'], «['']»)", "give a list of labels", "['b']"),
    ("decoder.zero_shot(['a'], ['b'«, 'b'»])", "give each label once"),
    ("decoder.zero_shot(['a'«, ' '»], ['b'])", "leave it out"),
    ("decoder.zero_shot(['a'], ['b']«, multi_label=True»)", "leave multi_label out"),
    ("«decoder».zero_shot(['film'], ['b'], multi_label=True)", "a model trained on NLI", "pairs"),
    ("pairs.zero_shot(['film'], ['b']«, calibrate=True»)", "leave them out"),
    ("«pairs».zero_shot(['a'], ['b'], calibrate=True)", "or take a language model", "decoder"),
    ("pairs.zero_shot(['film'], ['b'], template=«'{text} {}'»)", r'as (".*")'),
    ("«run».zero_shot(['film'], ['b'])", "take a model trained on NLI", "pairs"),
    ("decoder.extract(['q'], 'a b', examples=[«('q', 'a b', '')»])", "leave it out"),
    (
        "decoder.extract(['q'], 'a b', template='{context} {question}',"
        " examples=[('q', 'a', '')], no_answer=«None»)",
        r'give no_answer, as ("\w+")',
    ),
    ("decoder.extract(['q', 'r'], ['a', 'b'«, 'c'»])", "give one context for each question"),
    ("decoder.extract(['q'«, ''»], 'a b')", "leave it out"),
    ("decoder.extract(['q'], 'a b', template=«'{question}'»)", r"where they go, as ('.*')$"),
    ("decoder.extract(['q'], 'a b', top=«0»)", r"give (\d) or more"),
    ("decoder.extract(['q'], 'a b', max_tokens=«0»)", r"from (\d) on"),
    ("«decoder».fill_mask(['the [MASK]'])", "take a masked model", "masked"),
    ("decoder.«fill_mask»(['the [MASK]'])", r"use (generate) or rank"),
    ("masked.fill_mask(['the [MASK]'], top=«0»)", r"give (\d) or more"),
    ("masked.fill_mask(['the «film»'])", r"write (\S+) for"),
    ("masked.fill_mask(['the [MASK]'], targets=«[]»)", "name at least one", "['film']"),
    ("masked.fill_mask(['the [MASK]'], targets=['film'«, 'goods'»])", "leave it out"),
    ("decoder.logits(['a']«, ['b']»)", r"others logits\(texts\)"),
    ("t5.logits(['a']«»)", r"takes logits\(sources, targets\)", ", ['b']"),
    ("t5.logits(['a', 'b'], ['c'«»])", "give one target a source", ", 'd'"),
]
LOOK = "langue.preview(model=folder / 'base', data="
ROWS = f"{LOOK}[*rows, {{'label': 'pos', 'text': "
DATA = [
    (f"{LOOK}«5»)", "give .* a list of records", "rows"),
    (f"{LOOK}query«»)", r"give data(\.collect\(\))"),
    (f"{LOOK}«[]»)", "give at least one record", "rows"),
    (f"{LOOK}{{«'alpha'»: rows}})", r'give \{("train")'),
    (f"{LOOK}{{'train': rows«, 'test': []»}})", "give at least one record", ", 'test': rows"),
    (f"{LOOK}rows, columns={{'text': «3»}})", r'text = "review"', "'text'"),
    (f"{ROWS}«b'film'»}}])", "write it as a string", "'film'"),
    (f"{ROWS}«['film']»}}])", "write it as a string", "'film'"),
    (f"{LOOK}'«»')", "name a file", "a.jsonl"),
    ("langue.inspect_data(«iter(rows)»)", "or a list of rows", "rows"),
    ("langue.inspect_data([«»])", "name a file", "'a.jsonl'"),
    ("langue.inspect_data([{'text': «['a']»}])", "write it as text", "'a'"),
    ("langue.inspect_data([{'text': 'a «\\ud800»'}])", "correct it"),
    (
        "langue.inspect_data([{'text': 'a \\ud800'}, {'text': 'b'}]«»)",
        r"drop such rows with (data\.invalid=drop)",
        ", data__invalid='drop'",
    ),
    ("langue.predict(folder / 'run', texts=['film'], batch_tokens=«0»)", "give more", "64"),
    (
        f"{LOOK}«hot», task__multi_label=True)",
        r'give their names: \["a", "c"\], or a\|c',
        "several",
    ),
    ("langue.predict(folder / 'run', texts=«'film'»)", r"give a list: (\[text\])"),
    (
        "langue.rank(folder / 'decoder', prompts=«'a'», choices=['b'])",
        r"give a list: \[prompt\]",
        "['a']",
    ),
    (
        "langue.evaluate(folder / 'decoder', task_file=folder / 't.json', data=asked, limit=«0»)",
        r"limit from (\d) on",
    ),
    ("langue.evaluate(folder / 'run'«»)", r"give (--data)", ", data=folder / 'a.jsonl'"),
    (
        "langue.finetune(recipe=folder / 'run' / 'recipe.toml', out=folder / 'again'«»)",
        r"give them again: (data=)\.\.\.",
        ", data=rows",
    ),
]
FIT = "TextClassifier(model, max_steps=1).fit("
REGRESS = "TextRegressor(model, max_steps=1).fit("
TAG = "Tagger(model, max_steps=1).fit("
ESTIMATORS = [
    (f"{FIT}«'film'», y)", "put it into a list", "['film'] * 4"),
    (f"{FIT}«iter(X)», y)", "give a list or an array", "list(X)"),
    (f"{FIT}«[]», y)", "give some", "X"),
    (f"{FIT}[«3», *X[1:]], y)", "give a list of strings", "'film'"),
    (f"{FIT}[*X«, ' '»], y)", "take it out"),
    (f"{FIT}X, «None»)", "give (y)"),
    (f"{FIT}X, [*y«, 'a'»])", "give as many of both"),
    (f"{FIT}X, «['a'] * 4»)", "give rows of at least two classes", "y"),
    (f"{FIT}[*X«, 'day'], [*y, None»])", "take the row out", "], [*y"),
    (f"{FIT}[*X«, 'day'], [1.0, 2.0, 1.0, 2.0, nan»])", "take the row out", "], [1, 2, 1, 2"),
    (
        "«TextClassifier(model).fit(X, sparse)»",
        r"use langue.finetune\(\.\.\., task__multi_label=True\)",
        "langue.finetune(**few, data=several, out=folder / 'many', task__multi_label=True)",
    ),
    (
        "«TextClassifier(model).fit(X, [['a', 'b']] * 4)»",
        r"use langue.finetune\(\.\.\., task__multi_label=True\)",
        "langue.finetune(**few, data=several, out=folder / 'more', task__multi_label=True)",
    ),
    (
        "TextClassifier(model, max_steps=1, validation_fraction=«2»).fit(X, y)",
        r"give ([\d.]+)",
    ),
    (f"{REGRESS}['film'«], [1.0»])", "give more rows", ", *X], [1, 2, 3, 4, 5"),
    (f"{REGRESS}X, [1, 2, 3, «'b'»])", "give numbers", "4"),
    (f"{REGRESS}[*X«, 'day'], [1, 2, 3, 4, inf»])", "take it out", "], [1, 2, 3, 4"),
    (f"{TAG}[«'a film'», *words], [['A', 'B']] * 5)", r"give (\[.*\])"),
    (f"{TAG}words, [['A', 'B']] * 3 + [['A'«»]])", "give a tag for each word", ", 'B'"),
    ("TextEmbedder(«»).fit(X)", r"give a Hub name or a folder: (model=)\.\.\.", "model=model"),
    ("fitted.predict(['film'«, ' '»])", "take it out"),
    ("«TextClassifier».load(folder / 'run')", "use (langue.load) for a model", "langue"),
    ("«Tagger».load(folder / 'fitted')", "load it as what it is", "TextClassifier"),
    ("fitted_with(«random»).save(folder / 'kept')", "set random_state to a number", "3"),
]


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """The names in the calls: models, rows, and what remedies name."""
    folder = tmp_path_factory.mktemp("models")
    rows = reviews(24)
    file = write_jsonl(folder / "a.jsonl", rows)
    bert = tiny_bert(folder / "base")
    tiny_decoder(folder / "decoder", "gpt2", n_positions=256)
    tiny_model(folder / "t5", "t5")
    tiny_decoder(folder / "talker", "gpt2")
    (folder / "talker" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    langue.quantize(folder / "decoder", out=folder / "int8", weights="int8")
    kinds = ["entailment", "neutral"]
    pairs = [{"text": a, "pair": b, "label": kinds[len(b) % 2]} for a, b in pairwise(PLAIN)]
    langue.finetune(model=bert, data=rows, out=folder / "run", **FEW)
    langue.finetune(model=bert, data=pairs, out=folder / "pairs", **FEW)
    adapter = {"model.adapter": "lora"}
    langue.finetune(model=bert, data=file, out=folder / "lora", **FEW, **adapter)
    (folder / "t.txt").write_text("".join(f"{row['text']}\n" for row in rows))
    masked = {"train.max_steps": 1, "data.seq_len": 32}
    langue.pretrain("masked", model=bert, data=folder / "t.txt", out=folder / "masked", **masked)
    (folder / "t.json").write_text(
        '{"output_type": "loglikelihood", "doc_to_text": "text", "doc_to_target": "label"}'
    )
    texts = ["film", "plot", "scene", "actor"]
    labels = ["a", "b", "a", "b"]
    names = ("base", "run", "pairs", "decoder", "t5", "talker", "masked")

    def adapted():
        model = langue.load(folder / "base")
        model.add_adapter(folder / "lora", "one")
        return model

    def fitted_with(random_state):
        made = TextClassifier(str(bert), max_steps=1, random_state=random_state)
        return made.fit(texts, labels)

    fitted = fitted_with(3)
    fitted.save(folder / "fitted")

    return {
        **{name: langue.load(folder / name) for name in names},
        **TEXTS,
        **{"message": MESSAGE, "messages": [MESSAGE], "inf": math.inf, "nan": math.nan},
        **{
            "langue": langue,
            "folder": folder,
            "model": str(bert),
            "rows": rows,
            "few": {"model": bert, **FEW},
        },
        "asked": rows,
        "query": SimpleNamespace(collect=lambda: rows),
        "hot": [row | {"label": [0, 1, 1]} for row in rows],
        "several": [row | {"label": [row["label"], "c"]} for row in rows],
        "sparse": scipy.sparse.eye(2),
        **{"X": texts, "y": labels, "words": [["a", text] for text in texts]},
        "random": np.random.RandomState(3),
        "adapted": adapted,
        "fitted_with": fitted_with,
        "fitted": fitted,
        **{each.__name__: each for each in (Tagger, TextClassifier, TextEmbedder, TextRegressor)},
    }


@pytest.mark.filterwarnings(f"ignore::{LangueWarning.__module__}.LangueWarning")
@pytest.mark.parametrize(
    "case",
    LISTS + PREDICT + ENCODE + GENERATE + FORMS + PROMPTED + DATA + ESTIMATORS,
    ids=named,
)
def test_remedies_in_python(case: Case, scope, monkeypatch):
    monkeypatch.chdir(scope["folder"])

    def attempt(call: str) -> str:
        try:
            eval(call, dict(scope))
        except LangueError as error:
            return str(error)
        return ""

    obey(case, attempt)
