"""Colours, fonts and measures of the page; no font comes from the network."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent / "assets"
STYLE_FILE = ASSETS / "style.css"
OUTSIDE_STYLE_FILE = ASSETS / "outside.css"
SCRIPT_FILE = ASSETS / "page.js"
PICTURE_SCRIPT_FILE = ASSETS / "picture.js"
FAVICON_FILE = ASSETS / "favicon.svg"
# What other sites show beside a link to the page; drawn by scripts/make_card.py.
CARD_FILE = ASSETS / "card.png"
CARD_SIZE = (1200, 630)

FONTS = (
    "-apple-system",
    "BlinkMacSystemFont",
    "Segoe UI",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "sans-serif",
)

JADE = gr.themes.Color(
    c50="#eef8f4",
    c100="#d7efe6",
    c200="#b0dfd0",
    c300="#7fcab4",
    c400="#49af94",
    c500="#1f9378",
    c600="#0d7a63",
    c700="#0a6552",
    c800="#0b5143",
    c900="#0b4338",
    c950="#052620",
    name="jade",
)
INK = gr.themes.Color(
    c50="#f5f8f6",
    c100="#ebf1ee",
    c200="#dbe4df",
    c300="#c0cdc6",
    c400="#94a59d",
    c500="#6b7d75",
    c600="#52605a",
    c700="#3b4843",
    c800="#232e2a",
    c900="#16201c",
    c950="#0e1513",
    name="ink",
)


def make_theme() -> gr.themes.Base:
    """Return the page's theme; text and background keep a contrast of at least 4.5, light and dark."""
    theme = gr.themes.Base(
        primary_hue=JADE,
        secondary_hue=JADE,
        neutral_hue=INK,
        radius_size=gr.themes.sizes.radius_lg,
        font=list(FONTS),
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="#e6eeea",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a5b5ad",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#1b2622",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="#2b3934",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2b3934",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="#a5b5ad",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="#a5b5ad",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="#a5b5ad",
        input_background_fill="white",
        input_background_fill_dark="#1b2622",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="#93a49c",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*primary_50",
        button_secondary_background_fill_dark="#1b2622",
        button_secondary_background_fill_hover_dark="#24332d",
        button_secondary_border_color="*neutral_200",
        button_secondary_border_color_dark="#34443d",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#123a31",
        border_color_accent_subdued="*primary_200",
        border_color_accent_subdued_dark="#1f5648",
    )
