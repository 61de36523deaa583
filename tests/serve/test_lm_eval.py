"""lm-evaluation-harness over HTTP, by its own client, gives our scores."""

import pytest

from langue.runs.model import load
from tests.serve.serving import serving
from tests.tiny_decoder import tiny_decoder

PAIRS = [("the ball is", " in the web"), ("a bat", " and the others"), ("there", " is a ball.")]


@pytest.mark.slow
def test_its_scores_are_ours(tmp_path) -> None:
    pytest.importorskip("tenacity", reason="lm_eval's client needs it: pip install 'lm_eval[api]'")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    folder = tiny_decoder(tmp_path / "tiny", "qwen3", max_position_embeddings=1024)
    likelihoods = load(folder, dtype="auto").likelihoods
    expected = likelihoods.score(likelihoods.encode_pairs(PAIRS))
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(PAIRS)]
    with serving(folder, "--memory", "100MB") as server:
        client = LocalCompletionsAPI(
            model="tiny",
            base_url=f"{server.address}/v1/completions",
            tokenizer=str(folder),
            tokenizer_backend="huggingface",
            batch_size=2,
        )
        found = client.loglikelihood(asked)
    for (score, greedy), ours in zip(found, expected, strict=True):
        assert score == pytest.approx(ours.logprob, abs=1e-4) and greedy == ours.greedy
