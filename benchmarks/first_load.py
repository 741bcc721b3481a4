"""What a first visit of the page costs: `python benchmarks/first_load.py [ADDRESS]` with the app running.

Headless Chromium opens the page with an empty cache, several times. Prints requests, bytes as they came over the wire,
hosts that were asked, and the time until the box can be written in, with the load of the machine: on a busy one the
times say little, while counts and bytes stay the same.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

from playwright.sync_api import Browser, expect, sync_playwright

VISITS = 3
PATIENCE_MS = 120_000


def visit(browser: Browser, address: str) -> tuple[Counter[str], int, float]:
    """Open the page once; return requests by host, bytes received and seconds until it can be used."""
    context = browser.new_context(locale="zh-CN", viewport={"width": 1280, "height": 860})
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    num_bytes: list[float] = []
    network.on("Network.loadingFinished", lambda event: num_bytes.append(event["encodedDataLength"]))
    hosts: Counter[str] = Counter()
    page.on("request", lambda request: hosts.update([urlsplit(request.url).netloc or request.url[:5]]))
    begin = time.perf_counter()
    page.goto(address, timeout=PATIENCE_MS)
    expect(page.locator("#message textarea")).to_be_editable(timeout=PATIENCE_MS)
    expect(page.locator("#chat [data-testid=bot]")).to_have_count(1, timeout=PATIENCE_MS)
    seconds = time.perf_counter() - begin
    page.wait_for_timeout(2000)
    context.close()
    return hosts, int(sum(num_bytes)), seconds


def main() -> None:
    """Measure and print."""
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        visits = [visit(browser, address) for _ in range(VISITS)]
        version = browser.version
        browser.close()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {load}, Chromium {version}")
    for hosts, num_bytes, seconds in visits:
        asked = ", ".join(f"{host} {count}" for host, count in hosts.most_common())
        print(f"{hosts.total():4} requests ({asked}), {num_bytes / 1000:.0f} kB, usable after {seconds:.1f} s")
    print(f"median {statistics.median(seconds for *_, seconds in visits):.1f} s")


if __name__ == "__main__":
    main()
