"""Draw the picture that other sites show beside a link to the page: `python scripts/make_card.py`.

Chromium draws the markup below in the page's own colours, with the system's fonts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bianque.texts import text
from bianque.ui.fragments import LOGO
from bianque.ui.theme import CARD_FILE, CARD_SIZE, FONTS, INK, JADE

WIDTH, HEIGHT = CARD_SIZE
FAMILY = ", ".join(f'"{font}"' if " " in font else font for font in FONTS)
STYLE = f"""
body {{ margin: 0; width: {WIDTH}px; height: {HEIGHT}px; box-sizing: border-box; padding: 64px 72px; display: flex;
       justify-content: space-between; gap: 56px; font-family: {FAMILY}; color: {INK.c900};
       background: {JADE.c50}; }}
.name {{ display: flex; flex-direction: column; justify-content: space-between; }}
.bq-logo {{ width: 104px; height: 104px; }}
.bq-logo rect, .bq-logo circle {{ fill: {JADE.c600}; }}
.bq-logo path {{ stroke: #fff; stroke-width: 4.4; stroke-linecap: round; }}
.bq-logo circle {{ stroke: #fff; stroke-width: 3; }}
h1 {{ margin: 36px 0 14px; font-size: 84px; line-height: 1.1; }}
h1 small {{ display: block; font-size: 50px; font-weight: 600; color: {JADE.c700}; }}
p {{ margin: 0; font-size: 34px; line-height: 1.5; color: {INK.c700}; }}
.label {{ font-size: 24px; color: {INK.c600}; }}
.chat {{ flex: 0 0 560px; display: flex; flex-direction: column; justify-content: center; gap: 20px; }}
.chat div {{ max-width: 460px; padding: 20px 26px; border-radius: 26px; font-size: 29px; line-height: 1.5;
            background: #fff; border: 1px solid {INK.c200}; border-top-left-radius: 6px; }}
.chat div.visitor {{ align-self: flex-end; background: {JADE.c600}; color: #fff; border: none;
                    border-radius: 26px; border-top-right-radius: 6px; }}
.chat b {{ display: block; font-size: 21px; color: {JADE.c700}; }}
"""
CHAT = (
    ("", "偏头痛老是犯，一累就疼"),
    ("问", "多久了？疼的时候怕光、恶心吗？"),
    ("", "半年了，有点恶心"),
    ("答", "先规律休息、记下诱因；疼得更频繁就去神经内科看看。"),
)


def markup() -> str:
    """Return the picture as HTML."""
    bubbles = "".join(
        f"<div><b>{author}</b>{words}</div>" if author else f'<div class="visitor">{words}</div>'
        for author, words in CHAT
    )
    return (
        f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><style>{STYLE}</style><body>'
        f'<section class="name"><header>{LOGO}<h1>扁鹊<small>BianQue</small></h1>'
        f"<p>{'<br>'.join(text('page_tagline', 'zh').split(' · '))}</p></header>"
        f'<p class="label">{text("ai_label", "zh")}</p></section>'
        f'<section class="chat">{bubbles}</section></body></html>'
    )


def main() -> None:
    """Draw and save it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_content(markup())
        page.screenshot(path=CARD_FILE)
        browser.close()
    print(f"{CARD_FILE}: {CARD_FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
