"""The page with models that write, in a real browser."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from tests.serve.browser import chromium, open_page, violations
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


def answers(page, *texts):
    """Have the server's answers be these, each in parts of a few characters."""
    left = list(texts)

    def answer(route):
        asked.append(json.loads(route.request.post_data))
        text = left.pop(0)
        parts = [text[i : i + 7] for i in range(0, len(text), 7)]
        events = [{"choices": [{"delta": {"content": part}}]} for part in parts]
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
    page.get_by_label("Temperature").fill("1")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Write here…").focus()
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
    assert page.get_by_label("Settings").inner_text() == "Temperature 1 · System prompt"


def test_answers_are_written_again_and_messages_edited(page) -> None:
    asked = answers(page, "First.", "Second.", "Third.")
    say(page, "Hello")
    page.get_by_text("First.").first.wait_for()
    page.get_by_role("button", name="Write again").click()
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
    page.get_by_label("Text to go on from").fill("Once upon a time")
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
