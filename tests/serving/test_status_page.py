"""The status page in a real browser: the numbers move and the chat box talks to the model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.common.exceptions import ElementNotInteractableException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from serving.engines import KEY, MODEL, ServerProcess


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,800"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield session
    session.quit()


def text(browser: webdriver.Chrome, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def test_page_shows_the_state_and_chats(
    launched: ServerProcess, browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wait = WebDriverWait(browser, 30)
    browser.get(launched.url + "/")
    wait.until(lambda _: text(browser, "model") == MODEL)
    assert text(browser, "state") == "running"
    assert "2,097,152 tokens" in text(browser, "cachetitle")

    box = browser.find_element(By.ID, "text")
    box.send_keys("Hello\n")
    wait.until(lambda _: "API key" in text(browser, "talk"))  # said, as the key is missing

    browser.find_element(By.TAG_NAME, "summary").click()
    browser.find_element(By.ID, "key").send_keys(KEY)
    box.send_keys("Hello\n")
    wait.until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, "#talk .assistant")) == 1)
    wait.until(lambda _: browser.find_element(By.CSS_SELECTOR, "#talk .assistant").text)
    wait.until(lambda _: float(text(browser, "rate").replace(",", "")) > 0)
    browser.save_screenshot(str(tmp_path_factory.getbasetemp() / "status-page.png"))
    with contextlib.suppress(ElementNotInteractableException):  # it hides when the answer ends
        browser.find_element(By.ID, "stop").click()
    wait.until(lambda _: browser.find_element(By.ID, "send").is_displayed())
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    faults = [entry for entry in log if "401" not in entry["message"]]
    assert [entry for entry in faults if entry["level"] == "SEVERE"] == []
