"""The public Python API: the commands of the command line as functions, with the same names and
defaults.

    run = langue.finetune(model="MODEL", data="reviews.csv", out="runs/reviews")
    langue.load("runs/reviews").predict(["A delight."])

A function is imported when it is first accessed, so that `import langue` does not load torch.
"""

import importlib.util
import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("fcntl") is None:  # file locks, which Windows lacks
    raise ImportError(
        "langue needs a POSIX system, such as Linux or macOS; on Windows install and run it within"
        " WSL (wsl --install)"
    )

if TYPE_CHECKING:
    from langue.errors import LangueError, LangueWarning
    from langue.estimators import Tagger, TextClassifier, TextEmbedder, TextRegressor
    from langue.runs.execute import Run
    from langue.runs.model import Model, load
    from langue.runs.train_tokenizer import train_tokenizer
    from langue.serve.server import serve
    from langue.verbs.chat import chat
    from langue.verbs.convert import convert
    from langue.verbs.evaluate import evaluate
    from langue.verbs.extract import extract
    from langue.verbs.fill_mask import fill_mask
    from langue.verbs.finetune import finetune
    from langue.verbs.generate import generate
    from langue.verbs.inspect import inspect
    from langue.verbs.inspect_data import inspect_data
    from langue.verbs.mine_negatives import mine_negatives
    from langue.verbs.plan import plan
    from langue.verbs.predict import predict
    from langue.verbs.pretrain import pretrain
    from langue.verbs.preview import preview
    from langue.verbs.quantize import quantize
    from langue.verbs.quickstart import quickstart
    from langue.verbs.rank import rank
    from langue.verbs.rate import rate
    from langue.verbs.settings import settings
    from langue.verbs.tokenize import tokenize
    from langue.verbs.tune import tune
    from langue.verbs.verify import verify
    from langue.verbs.zero_shot import zero_shot

__version__ = "0.1.0"
__all__ = [
    "LangueError",
    "Model",
    "Run",
    "convert",
    "evaluate",
    "finetune",
    "generate",
    "inspect",
    "load",
    "predict",
    "preview",
]
__all__ += ["plan"]
__all__ += ["pretrain", "quickstart", "tokenize", "train_tokenizer", "verify"]
__all__ += ["LangueWarning", "inspect_data", "mine_negatives", "quantize"]
__all__ += ["extract", "fill_mask", "rank", "zero_shot"]
__all__ += ["rate", "tune"]
__all__ += ["chat", "serve", "settings"]
__all__ += ["Tagger", "TextClassifier", "TextEmbedder", "TextRegressor"]

_HOMES = {
    "LangueError": "errors",
    "LangueWarning": "errors",
    "Model": "runs.model",
    "Run": "runs.execute",
    **dict.fromkeys(("Tagger", "TextClassifier", "TextEmbedder", "TextRegressor"), "estimators"),
    "load": "runs.model",
    "serve": "serve.server",
    "train_tokenizer": "runs.train_tokenizer",
}


# tqdm, which other libraries import, warns in a notebook without ipywidgets; our bars do not need
# it
warnings.filterwarnings("ignore", "IProgress not found")


class _Face(ModuleType):
    """Keeps a public function from being replaced by a subpackage of the same name: importing
    `langue.settings.sections` must not turn `langue.settings` into a module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def _imported(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'langue' has no attribute {name!r}")
    return getattr(import_module(f"langue.{_HOMES.get(name, f'verbs.{name}')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


if not TYPE_CHECKING:  # otherwise a type checker would accept any name
    __getattr__ = _imported
sys.modules[__name__].__class__ = _Face
