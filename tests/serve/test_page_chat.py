"""The page with models that write, in a real browser."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser import chromium, open_page, violations
from tests.serve.serving import serving, with_template
from tests.tiny_decoder import tiny_decoder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with_template(tiny_decoder(folder / "chat", "qwen3", max_position_embeddings=4096))
    tiny_decoder(folder / "base", "gpt2", n_positions=512)
    with serving(folder / "chat", folder / "base", "--memory", "200MB") as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def page(server, browser):
    found = open_page(browser, server.address)
    found.wait_for_selector(".composer")
    yield found
    assert found.complaints == []
    found.context.close()


def answers(page, *texts, thought="", size=7):
    """Have the server's answers be these, each in parts of a few characters, after a thought."""
    left = list(texts)

    def answer(route):
        asked.append(json.loads(route.request.post_data))
        text = left.pop(0)
        parts = [text[i : i + size] for i in range(0, len(text), size)]
        events = [{"choices": [{"delta": {"reasoning_content": each}}]} for each in thought]
        events += [{"choices": [{"delta": {"content": part}}]} for part in parts]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"completion_tokens": len(parts)}})
        body = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    asked: list = []
    page.route("**/v1/chat/completions", answer)
    return asked


def until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def say(page, text):
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_a_chat_is_streamed_stopped_and_kept(page, server) -> None:
    page.get_by_label("Settings").click()
    page.get_by_label("Temperature").fill("0")  # what it then writes has no end
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Type here…").focus()
    say(page, "Hello")
    body = page.locator(".assistant .markdown")
    expect(body).to_have_text(re.compile("^(?!The model is).{40}", re.DOTALL))
    page.keyboard.press("Escape")
    page.get_by_text("stopped").wait_for()
    written = body.inner_text()
    assert len(written) > 40
    # the server was told, and writes no more
    line = 'langue_requests_running{model="chat"} 0'
    until(lambda: line in server.http.get("/metrics").text)
    page.reload()
    assert body.inner_text() == written
    assert page.get_by_label("Settings").inner_text() == "Temperature 0 · System prompt"


def test_answers_are_written_again_and_messages_edited(page) -> None:
    asked = answers(page, "First.", "Second.", "Third.")
    say(page, "Hello")
    page.get_by_text("First.").first.wait_for()
    page.get_by_role("button", name="Regenerate").click()
    page.locator(".assistant").get_by_text("Second.").wait_for()
    assert asked[0]["messages"] == asked[1]["messages"]
    page.get_by_role("button", name="Previous version").click()
    page.locator(".assistant").get_by_text("First.").wait_for()
    page.get_by_role("button", name="Edit").click()
    page.keyboard.press("Control+A")
    say(page, "Good evening")
    page.locator(".assistant").get_by_text("Third.").wait_for()
    assert [each["content"] for each in asked[2]["messages"]] == ["Good evening"]
    # the first question has both of its answers still
    page.locator(".user").get_by_role("button", name="Previous version").click()
    page.locator(".assistant").get_by_text("Second.").wait_for()
    page.locator(".assistant").get_by_text("2 of 2").wait_for()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export").click()
    (line,) = saved.value.path().read_text("utf-8").splitlines()
    assert json.loads(line)["messages"][1] == {"role": "assistant", "content": "Second."}


def test_base_models_go_on_from_texts(page, server) -> None:
    page.get_by_label("Model").select_option("base")
    page.get_by_label("Prompt").fill("Once upon a time")
    page.get_by_label("Probabilities").check()
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("128 tokens").wait_for()
    tokens = page.locator(".output span")
    assert tokens.count() == 128
    tokens.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"\d%.* · .*\d%", page.locator(".token").inner_text())
    assert violations(page) == []


def test_thoughts_and_code_stand_apart(page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = "def f(x):\n    return x + 1"
    asked = answers(page, f"So:\n```python\n{code}\n```", "Yes.", thought="<b>Hm</b>.")
    say(page, "Hello")
    page.get_by_role("button", name="Copy the code").click()
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").strip() == code
    thoughts = page.locator(".assistant details")
    expect(thoughts.locator("p")).to_be_hidden()
    thoughts.get_by_text("Reasoning").click()
    expect(thoughts.locator("p")).to_have_text("<b>Hm</b>.")
    assert violations(page) == []
    # a model is not sent what it thought
    page.get_by_placeholder("Type here…").focus()
    say(page, "Is it right?")
    page.locator(".assistant").get_by_text("Yes.").wait_for()
    assert [each["role"] for each in asked[1]["messages"]] == ["user", "assistant", "user"]
    assert "Hm" not in json.dumps(asked[1])


HOSTILE = """<script>alert(1)</script> <img src=x onerror=alert(2)> <b onclick="alert(3)">bold</b>

[one](javascript:alert(4)) [two](data:text/html,<script>alert(5)</script>) [three](/v1/models)
[good](https://example.com/?a=1) ![picture](http://127.0.0.1:9/beacon) https://example.org/ .

# Title
### Deeper
```send icon" onload="alert(6)
<iframe src="javascript:alert(7)"></iframe>
```
| a | <svg/onload=alert(8)> |
|---|---|
| - [x] done | [x](vbscript:alert(9)) |

- [x] done

\u202eturned round\u2066
"""


@pytest.mark.parametrize(
    "text",
    ["*" * 300_000, "`" * 300_000, "> " * 150_000, "- a\n" * 20_000, "\u202e" * 300_000],
    ids=["rule", "code", "quotes", "list", "turned round"],
)
def test_masses_of_marks_stop_nothing(page, text) -> None:
    """The parser takes time by the square of what waits to become something, and a browser has no
    end of elements to lay out.
    """
    answers(page, text + "\n\nThe end", size=4000)
    say(page, "Hello")
    page.get_by_role("button", name="Regenerate").wait_for()
    body = page.locator(".assistant .markdown")
    assert body.evaluate("(it) => it.textContent.endsWith('The end')")
    assert body.evaluate("(it) => it.querySelectorAll('*').length") < 10_000


def test_what_turns_a_text_round_turns_nothing_else(page) -> None:
    answers(page, "First.")
    say(page, "\u202eHello")
    page.get_by_role("button", name="Regenerate").wait_for()
    page.locator(".history li").hover()
    page.get_by_role("button", name="Delete").click()
    ends = page.locator(".notice").evaluate("""(notice) => {
      const text = notice.firstChild;
      const left = (place) => {
        const range = document.createRange();
        range.setStart(text, place);
        range.setEnd(text, place + 1);
        return range.getBoundingClientRect().left;
      };
      return [left(text.data.indexOf("o")), left(text.data.indexOf("H")), left(text.length - 2)];
    }""")
    assert ends == sorted(ends)  # the title from right to left, then what is said of it


def test_what_a_model_writes_is_shown_and_never_run(page, server) -> None:
    asked_for = []
    page.on("request", lambda request: asked_for.append(request.url))
    deep = "> " * 200 + "deep " + "**[" * 200
    answers(page, HOSTILE, deep)
    say(page, "<img src=x onerror=alert(0)>")
    page.get_by_role("heading", name="Title").wait_for()
    say(page, "more")
    page.locator(".assistant").get_by_text("deep", exact=True).wait_for()
    page.get_by_role("button", name="Regenerate").nth(1).wait_for()
    body = page.locator(".assistant .markdown").first
    for shown in ("<script>alert(1)</script>", "onerror=alert(2)", "<iframe src=", "picture"):
        expect(body).to_contain_text(shown)
    made = page.locator(".messages").locator("script, img, iframe, svg[onload], [onclick]")
    assert made.count() == 0
    leads = [each.get_attribute("href") for each in body.locator("a[href]").all()]
    assert leads == [
        "https://example.com/?a=1",
        "http://127.0.0.1:9/beacon",
        "https://example.org/",
    ]
    assert body.locator("a[href]:not([rel~=noopener])").count() == 0
    assert body.locator("[class]:not(.code, .code > button)").count() == 0
    # as in a title of a conversation, and in what the server complains of
    fault = {"error": {"message": "<img src=x onerror=alert(10)>"}}
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=400, json=fault))
    say(page, "again")
    expect(page.get_by_role("alert")).to_have_text(fault["error"]["message"])
    assert all(each.startswith(server.address) for each in asked_for)
    assert violations(page) == []
    page.complaints[:] = [each for each in page.complaints if "400" not in each]


def test_keys_are_enough(page) -> None:
    answers(page, "First.", "Second.")
    press = page.keyboard.press
    say(page, "Hello")
    page.get_by_text("First.").first.wait_for()
    press("Shift+Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("aria-label", "Regenerate")
    press("Enter")
    page.locator(".assistant").get_by_text("Second.").wait_for()
    expect(focused).to_have_attribute("placeholder", "Type here…")
    press("Shift+Tab")
    press("Enter")  # the next version there is not, the previous one there is
    page.locator(".assistant").get_by_text("First.").wait_for()
    expect(page.locator(".assistant :focus")).to_have_attribute("aria-label", "Next version")
    page.get_by_placeholder("Type here…").focus()
    press("Tab")
    press("Tab")
    press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(focused).to_have_attribute("name", "system")
    press("Escape")
    expect(focused).to_have_accessible_name("Settings")
    page.get_by_role("button", name="Skip to the content").focus()
    press("Enter")
    expect(focused).to_have_id("main")
    # a reader of the screen is told what was answered
    answers(page, "# One\nA **bold** sentence. Another one")
    page.get_by_placeholder("Type here…").focus()
    say(page, "Hello")
    expect(page.get_by_role("log")).to_have_text("OneA bold sentence.Another one")


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 390, "height": 780}, "has_touch": True},
        {"color_scheme": "dark"},
        {"locale": "zh-CN", "viewport": {"width": 390, "height": 780}, "color_scheme": "dark"},
    ],
    ids=["phone", "dark", "Chinese"],
)
def test_it_is_fit_for(server, browser, options) -> None:
    page = open_page(browser, server.address, **options)
    chinese = "locale" in options
    page.get_by_role("button", name="设置" if chinese else "Settings").wait_for()
    assert page.evaluate("document.documentElement.lang") == ("zh" if chinese else "en")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = "rgb(22, 25, 30)"
    assert (page.evaluate(paper) == dark) == (options.get("color_scheme") == "dark")
    answers(page, HOSTILE + "a" * 300)
    page.get_by_role("button", name="设置" if chinese else "Settings").click()
    for field in page.get_by_role("spinbutton").all():
        field.fill("1")
    page.locator("dialog .main").click()
    page.locator(".composer textarea").focus()
    say(page, "Hello")
    page.locator(".assistant .info").wait_for()
    for each in ("html", "main"):
        assert page.locator(each).evaluate("(it) => it.scrollWidth <= it.clientWidth")
    assert violations(page) == []
    page.get_by_role("button", name="设置" if chinese else "Settings").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    if "viewport" in options:
        page.get_by_role("button", name="对话记录" if chinese else "Conversations").click()
        expect(page.get_by_role("dialog").get_by_role("listitem")).to_have_count(1)
        assert violations(page) == []
        page.keyboard.press("Escape")
    fault = {"error": {"message": "Too many.", "code": "rate_limit_exceeded"}}
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, json=fault))
    page.locator(".composer textarea").focus()
    say(page, "again")
    told = "请求过多，请稍后再试。（Too many.）" if chinese else "Too many."
    expect(page.get_by_role("alert")).to_have_text(told)
    page.complaints[:] = [each for each in page.complaints if "429" not in each]
    page.locator("#theme").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="English" if chinese else "中文").click()
    page.get_by_role("button", name="Settings" if chinese else "设置").wait_for()
    assert page.complaints == []
    page.context.close()
