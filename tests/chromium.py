"""Drive a headless Chromium over a pipe with its own protocol: no driver, no port."""

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT = 60


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page of the browser."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._numbers = count(1)
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.requests: list[str] = []
        self.messages: list[str] = []
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method, and return its result; note requests and messages until then."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer.get("method"), answer.get("params"))

    def _read(self):
        read = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "Chromium ended"
            read += byte
        return json.loads(read)

    def _note(self, event, params):
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))

    def run(self, script):
        """Return the value of a script, also of a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script):
        """Wait until a script has a value that is true, and return it."""
        end = time.monotonic() + TIMEOUT
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script}: {self.messages}"
            time.sleep(0.1)
        return value

    def open(self, url, width=1280, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def drop(self, *paths: Path):
        """Drop files in the middle of the page, as from a file manager."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)


@contextmanager
def open_tab(profile: Path):
    """Yield a tab of a Chromium whose files lie in the folder `profile`."""
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    # The protocol uses the descriptors 3 and 4.
    command = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    browser = subprocess.Popen(
        ["bash", "-c", command, "bash", find_chromium(), "--headless", "--no-sandbox",
         "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
         f"--user-data-dir={profile}"],
        pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    try:
        with os.fdopen(our_out, "wb") as send, os.fdopen(our_in, "rb") as receive:
            tab = Tab(send, receive)
            yield tab
            tab._session = {}
            tab.call("Browser.close")
            browser.wait(TIMEOUT)
    finally:
        browser.kill()
        browser.wait()
