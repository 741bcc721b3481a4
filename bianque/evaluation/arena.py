"""A page on which a person judges blind pairs, for one researcher on their own computer.

`Arena` knows which pair comes next and keeps verdicts; `build_arena` is the page over it. The page holds nothing but
the id of the pair it shows, and sends it with each verdict: a second press while the first is on its way judges the
same pair again instead of the next one, unseen. What was judged before is found in the verdicts' file.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bianque.errors import InputError
from bianque.evaluation.battles import Battle
from bianque.evaluation.verdicts import Choice, Order, Verdict, VerdictBook
from bianque.texts import LOCALES, text
from bianque.texts.arena import ARENA

Side = Literal["left", "right", "tie", "both_bad"]
SIDES: tuple[Side, ...] = ("left", "right", "tie", "both_bad")
STYLE_FILE = Path(__file__).with_name("arena.css")
# Keys press the buttons, so that what is disabled or under way stays so; a held key and shortcuts do nothing.
_SCRIPT = """<script>
document.addEventListener("keydown", (event) => {
  const ids = {"1": "left", "2": "right", "3": "tie", "4": "both_bad", "0": "back"};
  const id = ids[event.key];
  if (!id || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.getElementById("choose_" + id);
  if (button && !button.disabled) { event.preventDefault(); button.click(); }
});
</script>"""


class Arena:
    """Which pairs one person has judged, and which comes next."""

    def __init__(self, battles: Sequence[Battle], book: VerdictBook, judge: str) -> None:
        """Take the pairs whose answers differ.

        Args:
            battles: in the order in which they are shown.
            book: takes the verdicts.
            judge: name of the person in the book.
        """
        self._battles = {battle.id: battle for battle in battles if not battle.is_equal}
        self._book = book
        self._judge = judge

    def order(self, battle: Battle) -> Order:
        """Return how a pair is shown: at random, but always the same to the same person."""
        digest = hashlib.blake2b(f"{self._judge}\n{battle.id}".encode(), digest_size=1).digest()
        return "ab" if digest[0] & 1 else "ba"

    def verdict_on(self, battle: Battle) -> Verdict | None:
        """Return what the person said about a pair, None if nothing yet."""
        return self._book.get(battle.id, self._judge, self.order(battle))

    def next(self) -> Battle | None:
        """Return the first pair that is not judged, None if all are."""
        return next((battle for battle in self._battles.values() if self.verdict_on(battle) is None), None)

    def last(self) -> Battle | None:
        """Return the pair judged most recently."""
        mine = [one for one in self._book.all() if one.judge == self._judge and one.battle in self._battles]
        return self._battles[mine[-1].battle] if mine else None

    def decide(self, battle_id: str, side: Side) -> None:
        """Keep a verdict.

        Raises:
            InputError: if there is no such pair.
        """
        battle = self._battles.get(battle_id)
        if battle is None:
            raise InputError("battle_unknown")
        order = self.order(battle)
        choice: Choice
        if side in ("tie", "both_bad"):
            choice = side
        else:
            choice = "a" if (side == "left") == (order == "ab") else "b"
        self._book.add(Verdict(battle.id, self._judge, order, 1, choice))

    @property
    def progress(self) -> tuple[int, int]:
        """How many pairs are judged, of how many."""
        done = sum(self.verdict_on(battle) is not None for battle in self._battles.values())
        return done, len(self._battles)


def build_arena(arena: Arena) -> Any:
    """Return the page as gradio Blocks; launch it with `arena_options()`."""
    import gradio as gr

    i18n = _translations()
    with gr.Blocks(title=text("arena_title", "zh"), analytics_enabled=False, fill_width=True) as demo:
        gr.Markdown(i18n("arena_intro"))
        shown = gr.Textbox(visible=False)
        progress = gr.Markdown(elem_id="progress")
        done = gr.Markdown(i18n("arena_done"), visible=False, elem_id="done")
        with gr.Column(visible=False) as pair:
            gr.Markdown(i18n("arena_prompt"), elem_classes="over")
            prompt = gr.HTML(elem_id="words", padding=False)
            with gr.Row():
                left, right = (_side(i18n, side) for side in ("left", "right"))
        with gr.Row():
            buttons = {side: gr.Button(i18n(f"arena_choose_{side}"), elem_id=f"choose_{side}") for side in SIDES}
        back = gr.Button(i18n("arena_back"), elem_id="choose_back", size="sm")
        outputs = [shown, progress, done, pair, prompt, left, right, *buttons.values(), back]
        view = partial(_view, arena)
        demo.load(lambda: view(arena.next()), None, outputs, api_name="next", show_progress="hidden")
        for side, button in buttons.items():
            judged = _deciding(arena, view, side)
            button.click(judged, shown, outputs, api_name=side, show_progress="hidden", concurrency_id="verdict")
        back.click(lambda: view(arena.last() or arena.next()), None, outputs, api_name="back", show_progress="hidden")
    demo.space_id = None  # without this, gradio may put a platform's header into the page, with requests to its hosts
    return demo


def _side(i18n: Any, side: str) -> Any:
    import gradio as gr

    with gr.Column(min_width=280):
        gr.Markdown(i18n(f"arena_{side}"), elem_classes="over")
        return gr.HTML(elem_id=side, padding=False)


def _deciding(arena: Arena, view: Callable[[Battle | None], list[Any]], side: Side) -> Callable[[str], list[Any]]:
    def decide(shown: str) -> list[Any]:
        import gradio as gr

        try:
            arena.decide(shown, side)
        except InputError as error:
            raise gr.Error(f"{error.text('zh')} {error.text('en')}", print_exception=False) from error
        return view(arena.next())

    return decide


def _view(arena: Arena, battle: Battle | None) -> list[Any]:
    """Return what every component shows for a pair, or for none."""
    import gradio as gr

    done, total = arena.progress
    buttons = [gr.update(interactive=battle is not None)] * len(SIDES) + [gr.update(interactive=done > 0)]
    around = [f"**{done} / {total}**", gr.update(visible=battle is None), gr.update(visible=battle is not None)]
    if battle is None:
        return ["", *around, "", "", "", *buttons]
    sides = (battle.a, battle.b) if arena.order(battle) == "ab" else (battle.b, battle.a)
    return [battle.id, *around, *map(_words, (battle.prompt, *sides)), *buttons]


def _words(said: str) -> str:
    """Return plain text as HTML; nothing a model wrote is markup."""
    return f'<div class="words">{html.escape(said)}</div>'


def _translations() -> Any:
    import gradio as gr

    tables = {locale: {key: text(key, language) for key in ARENA} for locale, language in LOCALES.items()}
    return gr.I18n(**tables)


def arena_options() -> dict[str, Any]:
    """Return the arguments of `Blocks.launch` other than address and port: nothing leaves this computer."""
    import gradio as gr

    return {
        "theme": gr.themes.Base(font=["sans-serif"], font_mono=["monospace"]),
        "css_paths": [STYLE_FILE],
        "head": _SCRIPT,
        "i18n": _translations(),
        "run_history": False,  # would keep health text in the browser
        "enable_monitoring": False,
        "max_file_size": 1,
        "state_session_capacity": 20,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "share": False,
        "show_error": False,
        "quiet": True,
    }
