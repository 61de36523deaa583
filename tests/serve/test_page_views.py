"""The page's view of each kind of result, in a real browser, with what models really answer."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser import chromium, open_page, violations
from tests.serve.serving import serving
from tests.serve.tiny_runs import TEXTS, tiny_runs

KEY = "a-key-of-this-test"
NAMES = ("labels", "tagger", "answers", "scores", "bert", "t5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def server(folder):
    given = [folder / name for name in NAMES]
    with serving(*given, "--memory", "200MB", LANGUE_API_KEYS=KEY) as found:
        yield found


@pytest.fixture(scope="module")
def page(server):
    with chromium() as browser:
        page = open_page(browser, server.address)
        page.get_by_role("textbox", name="API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_label("Model").wait_for()
        # the answer without a key was in the console
        assert [each for each in page.complaints if "401" not in each] == []
        page.complaints.clear()
        yield page
        assert page.complaints == []


HANGING = """() => {
  const ask = window.fetch;
  window.fetch = (path, options) => {
    if (path !== "v1/summarise") return ask(path, options);
    const event = { data: [{ index: 0, text: "Ein guter", finish_reason: null }] };
    const text = new TextEncoder().encode(`data: ${JSON.stringify(event)}\\n\\n`);
    const start = (stream) => {
      stream.enqueue(text);
      options.signal.onabort = () => stream.error(options.signal.reason);
    };
    return Promise.resolve(new Response(new ReadableStream({ start })));
  };
}"""


def run(page, model, **given):
    """What a view shows of what a model answers, filled in by labels. The answer."""
    page.get_by_label("Model").focus()
    page.get_by_label("Model").select_option(model)
    expect(page.get_by_label("Model")).to_be_focused()  # keys go on choosing
    for label, text in given.items():
        page.get_by_label(re.compile("^" + label.replace("_", " "))).fill(text)
    with page.expect_response("**/v1/*") as answered:
        page.keyboard.press("Control+Enter")
    page.locator(".result[aria-busy=false]").wait_for()
    assert violations(page) == []
    return answered.value


def test_labels_have_bars(page) -> None:
    labels = run(page, "labels", Text=TEXTS[1]).json()["data"][0]["labels"]
    rows = page.locator(".bars li")
    assert rows.count() == len(labels) == 2
    for row, label in zip(rows.all(), labels, strict=True):
        shown = f"{100 * label['score']:.1f}%"
        assert row.inner_text().split() == [label["label"], shown]
        bar = row.locator("i").bounding_box()["width"]
        assert bar / row.locator(".track").bounding_box()["width"] == pytest.approx(
            label["score"], abs=0.02
        )
    # one text, and no second: the run was trained on single ones
    assert page.get_by_role("textbox").count() == 1


def test_a_number_is_large(page) -> None:
    found = run(page, "scores", Text=TEXTS[1], Second_text="a film")
    score = found.json()["data"][0]["labels"][0]["score"]
    assert page.locator(".figure").inner_text() == f"{score:.3f}"


def test_spans_are_marked_in_the_text(page) -> None:
    """Python counts characters, and a browser halves of them."""
    text = f"😀 {TEXTS[1]}"
    spans = run(page, "tagger", Text=text).json()["data"][0]["entities"]
    assert spans
    shown = page.locator("mark").all_inner_texts()
    assert shown == [each["word"] + each["entity_group"] for each in spans]
    # what was given stays where another model is chosen, or another language
    page.locator("#language").click()
    page.locator("#language").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value(text)
    page.get_by_label("Text", exact=True).press("Control+Enter")
    page.get_by_text("As a table").click()
    assert page.locator(".list-of tr").count() == len(spans)


def test_answers_are_marked_in_their_context(page) -> None:
    found = run(page, "answers", Question="what was it", Text=TEXTS[1])
    answers = found.json()["data"][0]["answers"]
    expect(page.locator("mark")).to_have_text(answers[0]["answer"])
    page.locator(".choices button").nth(1).click()
    expect(page.locator("mark")).to_have_text(answers[1]["answer"])
    assert page.locator(".passage").inner_text() == TEXTS[1]


def test_texts_stand_beside_their_source(page, server) -> None:
    expected = server.http.post(
        "/v1/summarise",
        json={"model": "t5", "input": TEXTS[0], "beams": 2},
        headers={"Authorization": f"Bearer {KEY}"},
    ).json()
    run(page, "t5", Source=TEXTS[0], Beams="2")
    assert page.locator(".passage").text_content() == expected["data"][0]["text"]
    tokens = expected["usage"]["completion_tokens"]
    expect(page.locator(".result .info")).to_contain_text(f"t5 · {tokens} tokens")
    source, written = (page.locator(each).bounding_box() for each in ("form", ".result"))
    assert written["x"] > source["x"] + source["width"]


def test_the_nearest_text_stands_first(page) -> None:
    run(page, "bert", Query=TEXTS[1], Texts_to_search="\n".join(TEXTS))
    assert page.locator(".bars bdi").first.inner_text() == TEXTS[1]
    assert page.locator(".bars span").last.inner_text() < "1.000"


def test_what_is_too_long_is_told_and_cut_if_asked(page) -> None:
    long = "a film " * 100
    run(page, "labels", Text=long)
    expect(page.get_by_role("alert")).to_contain_text("tokens")
    page.complaints.clear()  # of the 400
    page.get_by_label("Truncate texts that are too long").check()
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".result .info")).to_contain_text("texts truncated: 1")
    assert page.locator(".bars li").count() == 2


def test_a_text_is_shown_while_it_is_written_and_until_it_is_stopped(page) -> None:
    """With a server that writes the beginning and waits."""
    page.get_by_label("Model").select_option("t5")
    page.evaluate(HANGING)
    page.get_by_label("Source").fill(TEXTS[0])
    page.get_by_label("Source").press("Control+Enter")
    expect(page.locator(".passage")).to_have_text("Ein guter")
    expect(page.locator(".result .info")).to_have_text(re.compile(r"running… [1-9] s"))
    assert violations(page) == []
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".result .info")).to_contain_text("stopped")
    expect(page.locator(".passage")).to_have_text("Ein guter")
    expect(page.get_by_role("log")).to_have_text("Ein guter")
    page.reload()
    page.get_by_label("Model").wait_for()


def test_a_report_runs_no_script(page, server, folder) -> None:
    """Also where somebody has put one into it."""
    report = folder / "labels" / "report.html"
    hostile = "<script>top.document.title = 'taken'</script><img src=x onerror=alert(1)>"
    report.write_text(report.read_text("utf-8").replace("</h1>", f"</h1>{hostile}"), "utf-8")
    page.get_by_label("Model").select_option("labels")
    page.get_by_role("button", name="Report").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="How good it is").wait_for()
    assert frame.locator(".curves img").count() == 2
    assert page.title() == "labels · langue"
    said = [each for each in page.complaints if "sandbox" in each or "Policy" in each]
    assert said == page.complaints and said
    page.complaints.clear()
    address = server.address + "/" + page.locator("iframe").get_attribute("src")
    # the link is the key; another opens nothing, and the log does not tell it
    assert server.http.get(address).status_code == 200
    assert server.http.get(address[:-1]).status_code == 404
    lines = [json.loads(each) for each in server.said if '"/report/' in each]
    assert {each["path"] for each in lines} == {"/report/"}
    assert server.http.get("/v1/models").status_code == 401
