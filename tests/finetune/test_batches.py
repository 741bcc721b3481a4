"""Batches, their order and their loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bianque.finetune.collators import IGNORED, ChatGLMCollator, T5Collator
from bianque.finetune.encoding import SampleEncoder, load_tokens
from bianque.finetune.trainer import LengthGroupedSampler, name_rows
from bianque.manager.weights.load import load_weights
from bianque.models.chatglm_positions import build_position_ids
from tests.finetune.conftest import CHATGLM, T5
from tests.finetune.dialogues import dialogues


def rows_of(folder, family, texts=("短", "稍微长一点的回答，有两行。\n第二行", "中等的回答")):
    encoder = SampleEncoder(load_tokens(folder, family), "bianque", 512, 512)
    conversations = [dialogue.messages[:1] for dialogue in dialogues()]
    encoded = [encoder.encode(conversations[index], text) for index, text in enumerate(texts)]
    return [{"row": number, "prompt": one.prompt, "target": one.target} for number, one in enumerate(encoded, 1)]


@pytest.fixture(scope="module")
def chatglm():
    return load_weights(CHATGLM, "chatglm", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def t5():
    return load_weights(T5, "t5", device="cpu", precision="fp32")


def test_chatglm_rows_are_padded_on_the_left_with_the_models_positions(chatglm):
    rows = rows_of(CHATGLM, "chatglm")
    batch = ChatGLMCollator(chatglm.config, chatglm.config.pad_token_id)(rows)
    for index, row in enumerate(rows):
        ids = torch.tensor([row["prompt"] + row["target"]])
        length = ids.shape[1]
        assert batch["input_ids"][index, -length:].tolist() == ids[0].tolist()
        assert batch["attention_mask"][index].sum() == length
        assert torch.equal(batch["position_ids"][index, :, -length:], build_position_ids(ids, chatglm.config)[0])
        learnt = batch["labels"][index][batch["labels"][index] != IGNORED]
        assert learnt.tolist() == row["target"]
    assert batch["rows"].tolist() == [1, 2, 3]
    assert batch["labels"].shape[1] == 1 + max(len(row["target"]) for row in rows)


@torch.no_grad()
def test_chatglm_loss_is_that_of_each_row_alone_over_its_whole_target(chatglm):
    rows = rows_of(CHATGLM, "chatglm")
    batch = ChatGLMCollator(chatglm.config, chatglm.config.pad_token_id)(rows)
    batch.pop("rows")
    loss = chatglm(**batch, logits_to_keep=batch["labels"].shape[1]).loss
    total, count = 0.0, 0
    for row in rows:
        # Written out: what stands before a target token predicts it, the first one too.
        logits = chatglm(torch.tensor([row["prompt"] + row["target"]])).logits[0]
        start = len(row["prompt"])
        expected = torch.tensor(row["target"])
        total += functional.cross_entropy(logits[start - 1 : -1], expected, reduction="sum").item()
        count += len(row["target"])
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


@torch.no_grad()
def test_t5_rows_are_padded_on_the_right_and_the_first_target_token_is_learnt(t5):
    rows = rows_of(T5, "t5")
    batch = T5Collator(0)(rows)
    assert batch["labels"][0].tolist() == rows[0]["target"] + [IGNORED] * (
        batch["labels"].shape[1] - len(rows[0]["target"])
    )
    batch.pop("rows")
    loss = t5(**batch).loss
    total, count = 0.0, 0
    for row in rows:
        decoder_ids = torch.tensor([[0, *row["target"][:-1]]])
        logits = t5(input_ids=torch.tensor([row["prompt"]]), decoder_input_ids=decoder_ids).logits[0]
        total += functional.cross_entropy(logits, torch.tensor(row["target"]), reduction="sum").item()
        count += len(row["target"])
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_the_order_groups_like_lengths_and_depends_on_seed_and_epoch_alone():
    lengths = [(index * 37) % 101 for index in range(1003)]
    sampler = LengthGroupedSampler(lengths, 8, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(1003)) and len(sampler) == 1003
    assert list(sampler) == first == list(LengthGroupedSampler(lengths, 8, seed=1))
    assert max(lengths) in [lengths[row] for row in first[:8]]
    batches = [first[at : at + 8] for at in range(0, 1000, 8)]
    spread = sum(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in batches)
    assert spread / len(batches) < 10  # of about 80 in random order
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthGroupedSampler(lengths, 8, seed=2)) != first


def test_rows_are_named_shortly():
    assert name_rows([3, 1]) == "3, 1"
    assert name_rows(list(range(10))) == "0, 1, 2, 3, 4, 5, 6, 7 (+2)"
