"""Train the two tokenizer files from the project's own corpus and write them in Hub layout.

Every distinct sentence counts once: counted by frequency, the templates of questions and advice would become whole
pieces and leave none for the words in which patients differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import sentencepiece

from bianque.minis.dialogues import DialogueWriter, samples
from bianque.minis.ice_text import IceTextIds, build_ice_text_model
from bianque.minis.knowledge import Knowledge
from bianque.minis.prompts import prompt_of

NUM_SAMPLES = 8000
ASKER_PIECES = 4200
ADVISER_PIECES = 4000


def build_asker_tokenizer(knowledge: Knowledge, folder: Path, seed: int) -> None:
    """Write `spiece.model` and its two JSON files to `folder`, with the ids of BianQue-1.0: pad 0, eos 1, unk 2."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(_sentences(knowledge, "asker", seed)),
            model_writer=file,
            vocab_size=ASKER_PIECES,
            model_type="unigram",
            character_coverage=1.0,
            # Full-width marks stay full-width, so that questions read as written.
            normalization_rule_name="identity",
            max_sentencepiece_length=6,
            split_by_unicode_script=False,  # so that the role markers become one piece each
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece="<pad>",
            eos_piece="</s>",
            unk_piece="<unk>",
            num_threads=1,
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    specials = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", specials)
    settings: dict[str, object] = {
        "additional_special_tokens": None,
        "extra_ids": 0,
        "model_max_length": 2048,
        "sp_model_kwargs": {},
    }
    write_json(folder / "tokenizer_config.json", {**settings, **specials, "tokenizer_class": "T5Tokenizer"})


def build_adviser_tokenizer(knowledge: Knowledge, folder: Path, seed: int) -> IceTextIds:
    """Write `ice_text.model` and its two JSON files to `folder`; return the ids for the model's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = _sentences(knowledge, "adviser", seed)
    ids = build_ice_text_model(sentences, ADVISER_PIECES, folder / "ice_text.model", character_coverage=1.0)
    specials = {
        "bos_token": "<sop>",
        "eos_token": "<eop>",
        "mask_token": "[MASK]",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    write_json(folder / "special_tokens_map.json", specials)
    settings = {
        "do_lower_case": False,
        "end_token": "</s>",
        "gmask_token": "[gMASK]",
        "num_image_tokens": 0,
        "padding_side": "left",
        "remove_space": False,
        "tokenizer_class": "ChatGLMTokenizer",
    }
    write_json(folder / "tokenizer_config.json", {**settings, **specials})
    return ids


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as the Hub's files look: sorted keys, two blanks of indentation, a final newline."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n", "utf-8")


def _sentences(knowledge: Knowledge, speaker: str, seed: int) -> list[str]:
    writer = DialogueWriter(knowledge)
    utterances: dict[str, None] = dict.fromkeys(text.replace("{", "").replace("}", "") for text in knowledge.texts())
    prompts = []
    for number, sample in enumerate(
        islice(samples(writer, "asker" if speaker == "asker" else "adviser", seed), NUM_SAMPLES)
    ):
        utterances.update(dict.fromkeys(step.text for step in sample.before if step.speaker == "patient"))
        if number < 300:
            prompts.append(prompt_of(sample))
    return [*utterances, *prompts]
