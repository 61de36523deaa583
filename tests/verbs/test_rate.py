"""Votes on pairs of answers: the page, the file that survives, and a model as judge."""

import http.client
import json
import os
import signal
import threading
from collections import Counter

import pytest
from playwright.sync_api import expect

from langue.cli import run as command
from langue.errors import DataError, SettingsError
from langue.runs.rating import Item, VotesFile, items_of, judge_pairs, order_of, read_votes
from langue.statistics.votes import BAD, LEFT, RIGHT, TIE
from langue.verbs.rate import rate
from tests import forked
from tests.browser import chromium, open_page, violations
from tests.tiny import write_jsonl

HOSTILE = "<script>alert(1)</script> & \u2028 \U0001f600"


@pytest.fixture
def files(tmp_path):
    prompts = [{"prompt": f"question {i}"} for i in range(8)]
    first = [{"text": f"first {i}"} for i in range(8)]
    second = [{"text": f"second {i}"} for i in range(8)]
    second[5] = first[5]
    first[2] = {"text": HOSTILE}
    return {
        "systems": [
            str(write_jsonl(tmp_path / "secret-a.jsonl", first)),
            str(write_jsonl(tmp_path / "secret-b.jsonl", second)),
        ],
        "data": str(write_jsonl(tmp_path / "prompts.jsonl", prompts)),
        "out": str(tmp_path / "votes.jsonl"),
    }


class Page:
    """What a browser does. All that it has received stays in `seen`."""

    def __init__(self, address):
        self.host = address.removeprefix("http://").strip("/")
        self.seen = ""

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", **headers}
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        self.seen += text + str(answer.getheaders())
        self.headers = dict(answer.getheaders())
        return answer.status, text

    def next(self):
        return json.loads(self.ask("GET", "/next")[1])

    def vote(self, place, vote):
        return json.loads(self.ask("POST", "/vote", {"place": place, "vote": vote})[1])


def by_the_first(page):
    """Votes for whatever the first system says."""
    state = page.next()
    while not state["finished"]:
        is_first = state["left"].startswith(("first", "<script"))
        state = page.vote(state["place"], LEFT if is_first else RIGHT)


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def rated(files, act, **options):
    """Rate with a page in another thread."""
    threads = []
    pages = []

    def show(address):
        pages.append(Page(address))
        threads.append(threading.Thread(target=act, args=(pages[0],)))
        threads[0].start()

    found = rate(**files, show=show, **options)
    for thread in threads:
        thread.join()
    return found, pages[0]


def test_votes_are_kept_and_said(files):
    policies = []

    def act(page):
        page.ask("GET", "/")
        policies.append(page.headers["Content-Security-Policy"])
        by_the_first(page)

    found, page = rated(files, act, rater="me")
    kept = lines(files["out"])
    assert len(kept) == 8
    assert all(set(each) == {"item", "rater", "left", "right", "vote", "time"} for each in kept)
    assert {each["item"] for each in kept} == set(range(1, 9))
    (equal,) = [each for each in kept if each["vote"] == TIE]
    assert equal["item"] == 6  # equal texts are a tie, and are not shown
    (pair,) = found["pairs"]
    assert (pair["wins"], pair["losses"], pair["ties"]) == (7, 0, 1)
    assert abs(sum(each["left"] == files["systems"][0] for each in kept) - 4) <= 1
    # blind, in the page and in all that it is sent; and what is said is text alone
    assert "secret" not in page.seen and "votes" not in page.seen
    assert json.dumps(HOSTILE)[1:-1] in page.seen and "question 3" in page.seen
    assert "script-src 'nonce-" in policies[0]
    assert rate(report=files["out"]) == found


def test_the_page_takes_its_own_requests_alone(files):
    seen = {}

    def act(page):
        for name, headers in {
            "rebound": {"Host": "evil.example:80"},
            "other site": {"Origin": "http://evil.example"},
        }.items():
            seen[name] = page.ask("GET", "/next", **headers)[0]
            seen[name + " posts"] = page.ask("POST", "/vote", {"place": 0, "vote": LEFT}, **headers)
        seen["form"] = page.ask(
            "POST", "/vote", {"place": 0, "vote": LEFT}, **{"Content-Type": "text/plain"}
        )[0]
        seen["elsewhere"] = page.ask("GET", "/../votes.jsonl")[0]
        seen["no vote"] = page.vote(0, "both")["place"]
        seen["twice"] = page.vote(7, LEFT)["place"]
        seen["votes"] = len(lines(files["out"]))
        by_the_first(page)

    rated(files, act)
    assert seen["rebound"] == seen["other site"] == 403
    assert seen["rebound posts"][0] == seen["other site posts"][0] == 403
    assert (seen["form"], seen["elsewhere"]) == (400, 404)
    assert seen["no vote"] == seen["twice"] == 0 and seen["votes"] == 1  # the equal pair's


def test_back_shows_a_pair_again_and_the_later_vote_counts(files):
    def act(page):
        page.next()
        page.vote(0, LEFT)
        again = json.loads(page.ask("POST", "/back", {})[1])
        assert again["place"] == 0
        page.vote(0, BAD)
        by_the_first(page)

    found, _ = rated(files, act)
    assert len(lines(files["out"])) == 9 and found["votes"] == 8
    assert found["pairs"][0]["both_bad"] == 1


def test_raters_have_orders_and_sides_of_their_own_which_are_balanced():
    items = [Item(i, "", {"A": f"a {i}", "B": f"b {i}", "C": f"c {i}"}) for i in range(40)]
    orders = {who: order_of(items, "ABC", who, 0) for who in ("me", "you")}
    assert orders["me"] != orders["you"] and orders["me"] == order_of(items, "ABC", "me", 0)
    assert order_of(items, "ABC", "me", 1) != orders["me"]
    assert len(orders["me"]) == 120
    sides = Counter((pair.left, pair.right) for pair in orders["me"])
    assert set(sides.values()) == {20} and len(sides) == 6


def test_a_share_comes_again_with_the_sides_exchanged(files):
    found, page = rated(files, by_the_first, rater="me", repeat=0.5)
    assert found["votes"] == 8 and found["both_orders"]["me"]["agreed"] == 4
    assert found["both_orders"]["me"]["of"] == 4 and len(lines(files["out"])) == 12

    found, _ = rated(files, by_one_key, rater="you", repeat=1.0)
    assert found["both_orders"]["you"]["agreed"] == 1  # the pair of equal texts


def by_one_key(page):
    state = page.next()
    while not state["finished"]:
        state = page.vote(state["place"], LEFT)


@pytest.mark.parametrize("again", ["", '{"item": 1, "rat'])
def test_what_was_judged_is_not_shown_again(files, again, capsys):
    first = {}

    def three(page):
        for place in range(3):
            page.vote(place, TIE)
        first.update(page.next())
        os.kill(os.getpid(), signal.SIGINT)

    rated(files, three)
    assert "the same command goes on" in capsys.readouterr().err
    with open(files["out"], "a") as file:
        file.write(again)

    def act(page):
        assert page.next() == first
        by_the_first(page)

    found, _ = rated(files, act)
    assert found["votes"] == 8 and len(lines(files["out"])) == 8
    assert ("cut off" in capsys.readouterr().err) == bool(again)


def test_a_kill_loses_no_vote(files):
    words = ["rate", *files["systems"], "--data", files["data"], "--out", files["out"]]
    started = forked.Piped(forked.command, [*map(str, words)])
    said = ""
    while "http://" not in said:
        said = started.stderr.readline()
        assert said or started.poll() is None
    page = Page(next(word for word in said.split() if word.startswith("http")))
    for place in range(3):
        page.vote(place, LEFT)
    started.kill()
    assert [each["vote"] for each in lines(files["out"])] == [TIE, LEFT, LEFT, LEFT]


def test_two_raters_are_compared(files, capsys):
    rated(files, by_the_first, rater="me")
    rated(files, by_the_first, rater="you")
    assert command(["rate", "--report", files["out"]]) == 0
    said = capsys.readouterr().out
    assert "16 votes on 8 items by 2 raters" in said and "Krippendorff" in said
    assert "me and you" in said and "The left was chosen in" in said
    assert command(["rate", "--report", files["out"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"]["krippendorff"] == 1


class Judge:
    """Says what `choose` makes of the prompt, among the choices."""

    class tokenizer:  # noqa: N801
        has_chat_template = False

    def __init__(self, choose):
        self.choose = choose
        self.asked = []

    def generate(self, prompts, choices):
        assert choices == ["1", "2", "tie"]
        self.asked += prompts
        return [self.choose(prompts[0])]


def test_a_judge_is_asked_in_both_orders(files, tmp_path):
    items = [Item(i, "{left}?", {"A": f"good {i}", "B": f"bad {i}"}) for i in range(6)]
    pairs = order_of(items, "AB", "judge", 0)

    def votes(choose, name):
        file = VotesFile(tmp_path / name)
        judge = Judge(choose)
        judge_pairs(judge, pairs, "judge", file)
        asked = len(judge.asked)
        judge_pairs(judge, pairs, "judge", file)  # nothing is asked twice
        assert len(judge.asked) == asked == 12
        assert "{left}?" in judge.asked[0] and "good" in judge.asked[0]
        file.close()
        return rate(report=tmp_path / name)

    fair = votes(lambda p: "1" if p.index("good") < p.index("bad") else "2", "fair.jsonl")
    assert fair["pairs"][0]["wins"] == 6 and fair["both_orders"] == {
        "judge": {"agreed": 6, "of": 6}
    }
    biased = votes(lambda p: "1", "biased.jsonl")
    assert biased["pairs"][0]["ties"] == 6 and biased["both_orders"]["judge"]["agreed"] == 0
    assert biased["position"]["share"] == 1 and biased["position"]["p_value"] < 0.001
    with pytest.raises(SettingsError, match="{right}"):
        judge_pairs(Judge(str), pairs, "judge", VotesFile(tmp_path / "n"), "{left}")


def test_models_answer_and_judge(tmp_path):
    from tests.tiny_decoder import tiny_decoder

    model = str(tiny_decoder(tmp_path / "model", "llama", max_position_embeddings=2048))
    data = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"the {i}"} for i in range(3)])
    other = write_jsonl(tmp_path / "b.jsonl", [{"text": f"b {i}"} for i in range(3)])
    out = tmp_path / "votes.jsonl"
    found = rate([model, other], data=data, out=out, judge=model, max_tokens=4)
    assert found["votes"] == 3 and found["raters"] == [model]
    assert len(lines(tmp_path / "votes-system-1.jsonl")) == 3 and len(lines(out)) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"systems": None}, "two or more"),
        ({"systems": ["a.jsonl", "a.jsonl"]}, "compares systems, and 1 system is given"),
        ({"out": None}, "--out votes.jsonl"),
        ({"report": "votes.jsonl"}, "leave report out"),
        ({"judge": "m", "rater": "me"}, "leave --rater out"),
        ({"judge_prompt": "p.txt"}, "--judge MODEL"),
        ({"repeat": 2.0}, "no share of the pairs"),
    ],
)
def test_what_cannot_be_rated(files, change, said):
    with pytest.raises(SettingsError, match=said):
        rate(**{**files, **change})


def test_files_that_do_not_fit(files, tmp_path):
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"numbers of lines differ.*8.*1"):
        rate([files["systems"][0], short], out=files["out"])
    with pytest.raises(DataError, match=r"line 1: there is no answer"):
        rate([write_jsonl(tmp_path / "x.jsonl", [{"said": "a"}]), short], out=files["out"])
    asked = [{"a": [{"prompt": "x", "text": "1"}], "b": [{"prompt": "y", "text": "2"}]}]
    with pytest.raises(DataError, match="do not answer the same"):
        items_of(asked[0], None)
    with pytest.raises(SettingsError, match="--data FILE"):
        rate(["some/model", short], out=files["out"])


def test_an_answer_that_failed_is_left_out_and_counted(capsys):
    lines_of = {"a": [{"error": "too long"}, {"text": "x"}], "b": [{"text": "y"}, {"text": "z"}]}
    (item,) = items_of(lines_of, [{"prompt": "p"}, {"prompt": "q", "id": "seven"}])
    assert (item.name, item.question) == ("seven", "q")
    assert "1 answers are errors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "line 2: not JSON"),
        ('{"item": 1}', "line 2: a vote has"),
        ('{"item": 1, "rater": "a", "left": "x", "right": "y", "vote": "1"}', "no vote is '1'"),
        ('{"item": 1, "rater": "a", "left": "x", "right": "x", "vote": "tie"}', "between 'x'"),
    ],
)
def test_what_is_no_vote_is_named(tmp_path, line, said):
    good = '{"item": 1, "rater": "a", "left": "x", "right": "y", "vote": "tie"}'
    path = tmp_path / "votes.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=said):
        read_votes(path)


def test_the_page_in_a_browser(files):
    """By keys and by clicks; what was said is text, and nothing comes from elsewhere."""

    is_whole = []

    def look(page):
        with chromium() as browser:
            shown = open_page(browser, f"http://{page.host}/")
            asked_for = []
            shown.on("request", lambda request: asked_for.append(request.url))
            texts = []
            for place in range(1, 8):
                expect(shown.locator("#count")).to_have_text(f"{place} / 7")
                texts += shown.locator("#left, #right").all_text_contents()
                assert violations(shown) == []
                if place == 3:
                    shown.keyboard.press("Backspace")
                    expect(shown.locator("#count")).to_have_text("2 / 7")
                    shown.keyboard.press("0")
                    expect(shown.locator("#count")).to_have_text("3 / 7")
                if place % 2:
                    shown.keyboard.press("1")
                else:
                    shown.get_by_role("button", name="the second").click()
            expect(shown.get_by_role("status")).to_contain_text("All are judged")
            assert violations(shown) == []
            assert HOSTILE in texts and shown.complaints == []
            assert page.host.startswith("127.0.0.1:")
            assert all(each.startswith(f"http://{page.host}/") for each in asked_for)
            is_whole.append(True)

    def act(page):
        try:
            look(page)
        finally:
            by_the_first(page)  # so that it ends in any case

    found, _ = rated(files, act)
    assert is_whole and found["votes"] == 8
    votes = Counter(each["vote"] for each in lines(files["out"]))
    assert votes == {LEFT: 4, RIGHT: 3, BAD: 1, TIE: 1}
