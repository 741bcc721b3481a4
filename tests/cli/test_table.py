from __future__ import annotations

from bianque.cli.table import format_markdown, format_table, width_of

ROWS = [["模型", "GB"], ["BianQue-2.0", "6.7"], ["随项目附带", "0.01"]]


def test_columns_stand_in_line_where_characters_take_two_places():
    lines = format_table(ROWS).splitlines()
    assert [line.index(cell) + line.count("模") + line.count("型") for line, cell in [(lines[0], "GB")]] == [13]
    assert {width_of(line[: line.index(cell)]) for line, cell in zip(lines[2:], ("6.7", "0.01"), strict=True)} == {13}
    assert width_of(lines[1]) == 13 + 4


def test_markdown_lines_are_equally_wide():
    lines = format_markdown(ROWS).splitlines()
    assert len({width_of(line) for line in lines}) == 1
    assert lines[1].startswith("|--") and lines[2].startswith("| BianQue-2.0 |")


def test_width_of_combining_and_full_width_characters():
    assert (width_of("é"), width_of("e\u0301"), width_of("：中a")) == (1, 1, 5)
