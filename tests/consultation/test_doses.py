"""Replies that say how much medicine to take are found; amounts of other things are not."""

from __future__ import annotations

import pytest

from bianque.consultation.doses import mentions_dose


@pytest.mark.parametrize(
    "reply",
    ["口服布洛芬，每次一片", "可用阿莫西林0.5g，每日三次", "服用 200 mg 即可", "每天两次涂药膏", "胰岛素 10 单位"],
)
def test_a_dose_is_found(reply):
    assert mentions_dose("您好。" + reply + "。")


@pytest.mark.parametrize(
    "reply",
    [
        "每天喝水1500毫升。不要自己用药。",
        "少吃盐，每天不超过5克",
        "每天散步2次，每次30分钟",
        "皮肤上有一片红疹，请到皮肤科就诊",
        "用药请听医生的",
        "",
    ],
)
def test_other_amounts_are_no_dose(reply):
    assert not mentions_dose(reply)
