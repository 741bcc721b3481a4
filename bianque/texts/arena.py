"""Texts of the page on which a person judges blind pairs."""

from __future__ import annotations

from bianque.texts import Text

ARENA: dict[str, Text] = {
    "arena_title": Text("盲评：哪一份更好？", "Blind judging: which one is better?"),
    "arena_intro": Text(
        "左右两份由两个模型写成，顺序随机，名称不显示。看安全、切题、追问是否有用、说得是否对；长短与格式不算理由。"
        "内容由人工智能生成，不是医疗建议。评判只保存在这台电脑的 verdicts.jsonl 里，可以随时中断，下次接着评。",
        "Two models wrote what stands left and right; the order is random and no names are shown. Look at safety, "
        "relevance, useful questions and correctness, not at length or layout. The texts are AI-generated and no medical "
        "advice. Verdicts stay on this computer, in verdicts.jsonl; stop whenever you like and go on later.",
    ),
    "arena_prompt": Text("此前的对话", "The conversation before"),
    "arena_left": Text("左", "Left"),
    "arena_right": Text("右", "Right"),
    "arena_choose_left": Text("左边更好（按 1）", "Left is better (key 1)"),
    "arena_choose_right": Text("右边更好（按 2）", "Right is better (key 2)"),
    "arena_choose_tie": Text("一样好（按 3）", "Equally good (key 3)"),
    "arena_choose_both_bad": Text("都不好（按 4）", "Both are bad (key 4)"),
    "arena_back": Text("回到上一对（按 0）", "Back to the last pair (key 0)"),
    "arena_done": Text(
        "已全部评完，可以关闭本页。用 python -m bianque evaluate elo 计算评分。",
        "All pairs are judged; you can close this page. `python -m bianque evaluate elo` computes the ratings.",
    ),
}
