"""Pictures of what a person sees, for README and docs: `make screenshots`.

Takes the newest runs of the store that the environment names (or makes two on the built-in
sounds), starts `l2i ui`, and looks at it with a headless Chromium.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from l2i.run.runs import list_runs  # noqa: E402
from l2i.run.search import RunInfo  # noqa: E402
from tests.browser import Browser, Tab, open_browser, program  # noqa: E402
from tests.servers import free_port  # noqa: E402

OUT = ROOT / ".screenshots"
_TRAIN = (("--dataset", "demo"), ("--dataset", "demo", "-o", "interpreter.pooling=max"))


def _l2i(*words: str) -> list[str]:
    return [sys.executable, "-m", "l2i", *words]


def _runs() -> list[RunInfo]:
    runs = [r for r in list_runs("demo", status="finished") if r.kind == "train"]
    if len(runs) < 2:
        for words in _TRAIN:
            subprocess.run(_l2i("train", *words), check=True)
        subprocess.run(_l2i("noise", "latest", "--snr-db", "0", "--limit", "24"), check=True)
        runs = [r for r in list_runs("demo", status="finished") if r.kind == "train"]
    return runs


def _shot(tab: Tab, name: str, *, whole: bool = False) -> None:
    path = OUT / f"{name}.png"
    tab.shot(path, whole=whole)
    # A palette is enough for pages, and a third of the size.
    from PIL import Image

    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    print(path.relative_to(ROOT))


def _open(browser: Browser, url: str, wait_for: str, height: int = 620) -> Tab:
    tab = browser.blank(1440, height)
    tab.call("Page.navigate", url=url)
    tab.until(f"document.body && document.body.innerText.includes({wait_for!r})", 60)
    browser.listen(3)  # MLflow's pages draw in several steps.
    return tab


def main() -> None:
    """Write all pictures."""
    chromium = program()
    if chromium is None:
        sys.exit("There is no Chromium on the path; Debian's package is called chromium.")
    runs = _runs()
    second, first = runs[:2]
    OUT.mkdir(exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(_l2i("ui", "--port", str(port)), start_new_session=True)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    sys.exit("l2i ui does not answer.")
                time.sleep(0.5)
        with (
            tempfile.TemporaryDirectory() as profile,
            open_browser(chromium, Path(profile)) as browser,
        ):
            experiment = f"{url}/mlflow#/experiments/{first.experiment_id}/runs"
            run, mode = f"{experiment}/{first.id}", "?workflowType=machine_learning"
            tab = _open(browser, url, first.name)
            _shot(tab, "start")
            tab = _open(browser, f"{experiment}{mode}", first.name)
            _shot(tab, "runs")
            # Not as far down as the tags, which name folders of this machine.
            tab = _open(browser, f"{run}{mode}", "Description", 540)
            _shot(tab, "run")
            compare = (
                f'{url}/mlflow#/compare-runs?runs=["{first.id}","{second.id}"]'
                f'&experiments=["{first.experiment_id}"]&workflowType=machine_learning'
            )
            tab = _open(browser, compare, "Comparing", 810)
            _shot(tab, "comparison")
            folder = Path(first.artifact_uri.removeprefix("file://"))
            tab = browser.open(folder / "explanations" / "index.html", 1280, 900)
            for _ in range(12):  # The page begins with what does not hold.
                browser.listen(0.5)
                if not tab.value("document.body.innerText.includes('does not hold')"):
                    break
                tab.press("j")
            _shot(tab, "listening")
            tab.scheme("dark")
            tab.resize(390, 844, mobile=True)
            browser.listen(0.3)
            _shot(tab, "listening-phone")
            tab = browser.open(folder / "figures.html", 1280, 900)
            browser.listen(0.3)
            _shot(tab, "figures")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    shutil.rmtree(OUT, ignore_errors=True)
    main()
