"""`python -m benchmarks WORD` runs a benchmark and writes its tables to stdout and to
benchmarks/results. WORD is one of finetune, encode, parallel, pretrain,
gpt2, masked, shards, load, products, generate, transfer, imdb, tag, extract, embed, adapter, chat,
summary, walk, hostile, schemas, serve.

Without a word, finetune and encode. parallel (one process and two), pretrain (beside a checkout of
nanoGPT), gpt2 (beside the same, for a GPU), masked (beside transformers, ten minutes each), shards
(beside the tokenizers library), load (beside transformers; needs 8 GB of disk and as much memory),
products (of inference, by kind of weights; beside llama.cpp where its libraries are), generate
(beside transformers; a minute), transfer (what pretraining buys; over an hour), imdb (about an
hour), tag and extract (entities and answers beside transformers; a quarter of an hour an epoch on a
core, or half of one), embed, adapter and chat (beside sentence-transformers, PEFT and trl; some
minutes an epoch) and summary (a new T5 beside transformers' Seq2SeqTrainer, --minutes each) are run
by name only. walk counts the files that a command crosses; it times
nothing. hostile (a server under hostile callers, for --minutes), schemas (what of the
JSON-Schema-Test-Suite in --folder output is held to) and serve (a server beside a plain FastAPI
route and `transformers serve`) are of `langue serve`.
"""

import argparse
from pathlib import Path

from benchmarks import (
    encode_speed,
    extract_peers,
    finetune_speed,
    generate_peers,
    gpt2_speed,
    hostile_load,
    imdb,
    library_peers,
    load_speed,
    masked_peers,
    material,
    parallel_speed,
    pretrain_peers,
    products_speed,
    schema_suite,
    serve_peers,
    shards,
    summary_peers,
    tag_peers,
    transfer,
    walk,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=[
            "all",
            "finetune",
            "encode",
            "parallel",
            "pretrain",
            "gpt2",
            "masked",
            "shards",
            "load",
            "products",
            "generate",
            "transfer",
            "imdb",
            "tag",
            "extract",
            "embed",
            "adapter",
            "chat",
            "summary",
            "walk",
            "hostile",
            "schemas",
            "serve",
        ],
        default="all",
    )
    parser.add_argument(
        "--model", help="model folder; default: the MiniLM-L6 of the quickstart extra"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every peer, in turn")
    parser.add_argument(
        "--patience",
        type=float,
        default=30.0,
        help="seconds to wait for a quiet machine each round",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="finetune: multiplies the steps of a round"
    )
    parser.add_argument(
        "--profile", action="append", choices=["review-like", "sentence-like"], help="finetune: one"
    )
    parser.add_argument(
        "--pooling",
        default="first",
        choices=["first", "mean"],
        help="finetune: first is HF's model",
    )
    parser.add_argument(
        "--data",
        help="imdb, tag, extract: folder with train and test; default: theirs in $LANGUE_DATA",
    )
    parser.add_argument(
        "--hf-steps", type=int, default=0, help="imdb: time so many of HF's steps and extrapolate"
    )
    parser.add_argument(
        "--side", action="append", choices=["langue", "hf"], help="imdb: one side only"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="imdb, tag, extract, summary: settings of langue, as train.lr=3e-5",
    )
    parser.add_argument(
        "--nanogpt", type=Path, help="pretrain, gpt2: a checkout of github.com/karpathy/nanoGPT"
    )
    parser.add_argument("--text", type=Path, help="pretrain: tinyshakespeare's input.txt")
    parser.add_argument(
        "--setting", default="cpu", choices=["cpu", "gpu"], help="pretrain: nanoGPT's for which"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="masked, summary: of each side; hostile: of all",
    )
    parser.add_argument("--megabytes", type=float, default=100.0, help="shards: of text")
    parser.add_argument(
        "--folder",
        type=Path,
        help="load, transfer: where models are made, and left; schemas: of the suite",
    )
    parser.add_argument("--steps", type=int, default=3600, help="transfer: of pretraining")
    parser.add_argument("--seeds", type=int, default=3, help="transfer: runs of each side")
    parser.add_argument(
        "--epochs", type=float, default=3.0, help="tag, extract, embed, adapter, chat: of training"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="tag, extract, embed, adapter, chat, summary: of the training rows that is used",
    )
    parser.add_argument(
        "--sequences", type=int, default=32, help="gpt2: of 1,024 tokens, in a step"
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 16], help="products: rows of a product"
    )
    parser.add_argument(
        "--shape",
        default="gpt2",
        choices=list(generate_peers.SHAPES),
        help="generate: of the model",
    )
    parser.add_argument("--layers", type=int, default=12, help="products: of GPT-2's")
    parser.add_argument("--ggml", type=Path, help="products: folder with libggml-base.so")
    parser.add_argument(
        "--llama-server", type=Path, help="serve: llama.cpp's server, to be measured too"
    )
    given = parser.parse_args()
    if given.what in ("all", "finetune"):
        profiles = given.profile or ["review-like", "sentence-like"]
        finetune_speed.run(
            given.model, given.rounds, given.scale, profiles, given.pooling, given.patience
        )
    if given.what in ("all", "encode"):
        encode_speed.run(given.model, given.rounds, given.patience)
    if given.what == "parallel":
        parallel_speed.run(given.rounds, given.scale, given.patience)
    if given.what == "pretrain":
        both = pretrain_peers.needs(given.setting)
        if given.text is None or both and given.nanogpt is None:
            parser.error("pretrain needs --text FILE" + " and --nanogpt FOLDER" * both)
        pretrain_peers.run(
            given.nanogpt if both else None, given.text, given.rounds, given.patience, given.setting
        )
    if given.what == "gpt2":
        if given.nanogpt is None:
            parser.error("gpt2 needs --nanogpt FOLDER")
        gpt2_speed.run(given.nanogpt, given.rounds, given.patience, given.sequences)
    if given.what == "masked":
        imdb_folder = Path(given.data or material.data_folder() / "imdb")
        masked_peers.run(
            str(material.model_folder(given.model)), imdb_folder, given.minutes, given.patience
        )
    if given.what == "shards":
        shards.run(given.megabytes, given.patience)
    if given.what == "load":
        load_speed.run(given.rounds, given.patience, given.folder)
    if given.what == "products":
        products_speed.run(given.rows, given.rounds, given.layers, given.ggml)
    if given.what == "generate":
        generate_peers.run(given.shape, given.rounds)
    if given.what == "transfer":
        transfer.run(given.folder or Path("runs/transfer"), given.steps, given.seeds)
    if given.what == "imdb":
        imdb.run(given.model, given.data, given.hf_steps, given.set, given.side or ["langue", "hf"])
    if given.what in ("tag", "extract"):
        usual, peers = {
            "tag": ("conll2003", tag_peers.run),
            "extract": ("squad", extract_peers.run),
        }[given.what]
        folder = Path(given.data or material.data_folder() / usual)
        settings = dict(word.split("=", 1) for word in given.set)
        peers(given.model, folder, given.epochs, given.share, settings)
    if given.what in library_peers.PAIRS:
        settings = dict(word.split("=", 1) for word in given.set)
        data = Path(given.data) if given.data else None
        library_peers.run(given.what, given.model, data, given.epochs, given.share, settings)
    if given.what == "summary":
        settings = dict(word.split("=", 1) for word in given.set)
        data = Path(given.data) if given.data else None
        summary_peers.run(data, given.minutes, given.share, settings)
    if given.what == "hostile":
        hostile_load.run(given.minutes)
    if given.what == "schemas":
        if given.folder is None:
            parser.error("schemas needs --folder, a checkout of the JSON-Schema-Test-Suite")
        schema_suite.run(given.folder)
    if given.what == "serve":
        serve_peers.run(given.model, given.rounds, given.scale, given.llama_server)
    if given.what == "walk":
        walk.run(str(material.model_folder(given.model)))


if __name__ == "__main__":
    main()
