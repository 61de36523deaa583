"""TEMPORARY stand-in by the lead until helper TEXT's source.py lands (overwrite it)."""
from dataclasses import dataclass, field
import gzip, json
from pathlib import Path
import datasets

@dataclass(frozen=True)
class Table:
    rows: "datasets.Dataset"
    origin: str
    def __len__(self): return len(self.rows)
    def column(self, name): return list(self.rows[name])
    def where(self, i): return f"{self.origin}, line {i+1}"
    def select(self, idx): return Table(self.rows.select(list(idx)), self.origin)

@dataclass(frozen=True)
class Source:
    train: Table | None
    dev: Table | None
    test: Table | None
    notes: list = field(default_factory=list)

def read(data, *, columns=None, need=(), optional=(), stratify=None, dev_fraction=.1, test_fraction=.1, seed=0, split=True, invalid="error"):
    out = {}
    if isinstance(data, list):
        t = Table(datasets.Dataset.from_list(data), "rows")
        if not split: return Source(None, None, t, [])
        d = t.rows.train_test_split(test_fraction, seed=seed); e = d["train"].train_test_split(dev_fraction, seed=seed)
        return Source(Table(e["train"], "rows"), Table(e["test"], "rows"), Table(d["test"], "rows"), [])
    for n in ("train", "dev", "test"):
        for f in Path(data).glob(n + ".jsonl*"):
            op = gzip.open if f.suffix == ".gz" else open
            rows = [json.loads(l) for l in op(f, "rt")]
            keep = set(need) | set(optional)
            out[n] = Table(datasets.Dataset.from_list([{k: v for k, v in r.items() if k in keep} for r in rows]), f.name)
    if "dev" not in out and "train" in out:
        d = out["train"].rows.train_test_split(min(2000, int(len(out["train"]) * dev_fraction)), seed=seed)
        out["dev"] = Table(d["test"], "train"); out["train"] = Table(d["train"], "train")
    return Source(out.get("train"), out.get("dev"), out.get("test"), [])
