"""A headless Chromium, spoken to in its own protocol through two pipes: no driver, no port.

Every call waits for its answer; what the browser tells meanwhile (messages of the console,
errors, requests) is kept, so that a test can ask for it at the end.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# All that goes to the loudspeaker goes through an analyser first.
_TAP = """
(() => {
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    const { context } = this;
    if (to !== context.destination) return connect.call(this, to, ...rest);
    if (!context.tap) {
      context.tap = window.tap = new AnalyserNode(context, {
        fftSize: 8192, smoothingTimeConstant: 0,
      });
      connect.call(context.tap, to);
    }
    return connect.call(this, context.tap, ...rest);
  };
})();
"""


def program() -> str | None:
    """The Chromium of this machine, if it has one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One process; see `open_browser`."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._buffer, self._last = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._read(lambda reply: reply.get("id") == self._last, 20)
        if answer is None:
            raise TimeoutError(f"{method} was not answered")
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def listen(self, seconds: float) -> None:
        """Keep what the browser tells in some time."""
        self._read(lambda reply: False, seconds)

    def _read(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> Any:
        end = time.monotonic() + seconds
        while True:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._back], [], [], left)[0]:
                return None
            piece = os.read(self._back, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece

    def blank(self, width: int = 1200, height: int = 800) -> Tab:
        """A new tab without a page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, target)
        tab.prepare()
        tab.resize(width, height)
        return tab

    def open(self, path: Path, width: int = 1200, height: int = 800) -> Tab:
        """A new tab with a page from a file; it has been loaded."""
        tab = self.blank(width, height)
        tab.call("Page.navigate", url=path.resolve().as_uri())
        tab.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return tab


class Tab:
    """A page, or a frame of one."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target

    def prepare(self) -> None:
        """Hear all that is told of it, from the start."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_TAP)
        self.call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True
        )

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.browser.call(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """What an expression gives; promises are waited for."""
        reply = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def until(self, expression: str, seconds: float = 10) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"it never came to be that {expression}"
            self.browser.listen(0.02)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """The window's inner size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def scheme(self, word: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": word}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        """A key down and up, as a user's."""
        code = {" ": 32, "Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        number = code.get(key) or ord(key.upper()[0])
        text = {"text": {"Enter": "\r"}.get(key, key)} if len(key) == 1 or key == "Enter" else {}
        both = {"key": key, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", **both, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **both)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """A click of the mouse, at shares of an element's width and height."""
        box = self.value(
            f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "center"}}); const b = e.getBoundingClientRect();
            return [b.left, b.top, b.width, b.height]; }})()"""
        )
        self.click_at(box[0] + x * box[2], box[1] + y * box[3])

    def click_at(self, x: float, y: float) -> None:
        """A click of the mouse, in pixels."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector: str, value: str) -> None:
        """An option of a select."""
        self.value(
            f"""(() => {{ const s = document.querySelector({json.dumps(selector)});
            s.value = {json.dumps(value)}; s.dispatchEvent(new Event("change")); }})()"""
        )

    def shot(self, path: Path, whole: bool = True) -> None:
        """A picture of the page."""
        reply = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(reply["data"]))

    def frame(self) -> Tab:
        """Its first frame that has a process of its own."""
        for event in self.browser.events:
            if event["method"] == "Target.attachedToTarget":
                about = event["params"]["targetInfo"]
                if about["type"] == "iframe" and event.get("sessionId") == self.session:
                    return Tab(self.browser, event["params"]["sessionId"], about["targetId"])
        raise AssertionError("the page has no frame of its own process")

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.browser.listen(0.05)
        return [
            event["params"]
            for event in self.browser.events
            if event["method"] == method and event.get("sessionId") == self.session
        ]

    def complaints(self) -> list[str]:
        """All that stands in the console, and errors that nothing caught."""
        complaints = [str(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]
        complaints += [str(e["args"]) for e in self._events("Runtime.consoleAPICalled")]
        return complaints + [e["entry"]["text"] for e in self._events("Log.entryAdded")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for those within the page (``data:``)."""
        asked = [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith("data:")]

    def close(self) -> None:
        """The tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)


@contextmanager
def open_browser(executable: str, profile: Path) -> Iterator[Browser]:
    """Start a browser, and end it.

    Parameters
    ----------
    executable : str
    profile : Path
        An empty folder, for what it writes.
    """
    # Its end of each pipe must be number 3 and 4: first out of their way.
    ends = [*os.pipe(), *os.pipe()]
    its_in, to, back, its_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in ends)
    for fd in ends:
        os.close(fd)

    def as_three_and_four() -> None:
        os.dup2(its_in, 3)
        os.dup2(its_out, 4)

    process = subprocess.Popen(
        [
            executable,
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",  # Needs rights that containers lack; the pages are our own.
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={profile}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_three_and_four,
        pass_fds=(3, 4),
    )
    os.close(its_in)
    os.close(its_out)
    browser = Browser(process, to, back)
    try:
        yield browser
    finally:
        try:
            browser.call("Browser.close")
            process.wait(10)
        except (TimeoutError, RuntimeError, OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        os.close(to)
        os.close(back)
