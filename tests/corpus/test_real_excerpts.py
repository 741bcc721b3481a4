"""The converters on real excerpts of the published sets, where these lie beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from bianque.corpus.cleaning import Cleaner
from bianque.corpus.records import Dialogue, samples_of
from bianque.corpus.sources.reading import read_source
from bianque.errors import DataError

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real excerpts are not here")

# source, path, dialogues, problems, dialogues after cleaning, their samples
EXCERPTS = [
    ("toyhom", "toyhom_internal_medicine.gb18030.csv", 800, 0, 800, 800),
    ("user", "user_csv/cMedialog_example.csv", 128, 0, 107, 107),
    ("cmtmedqa", "cmtmedqa_multi_turn.json", 100, 0, 100, 424),
    ("meddialog_cn", "meddialog_cn/meddialog_zh_examples.json", 2, 0, 2, 2),
    ("meddg", "meddg", 21, 0, 21, 89),
    ("chip_mdcfnpc", "chip_mdcfnpc", 28, 0, 28, 277),
    ("imcs_v2", "imcs_v2/imcs_v2_record_shortened.json", 1, 0, 1, 5),
    ("imcs_v2", "imcs_v2/dxy_head.txt", 92, 1, 92, 257),
    ("imcs_v2", "imcs_v2/promptcblue_imcs.jsonl", 30, 30, 27, 257),
]


@pytest.mark.parametrize(("source", "path", "read", "problems", "kept", "samples"), EXCERPTS)
def test_a_real_excerpt_is_read_and_cleaned(source, path, read, problems, kept, samples):
    items = list(read_source(source, SAMPLES / path))
    dialogues = [item for item in items if isinstance(item, Dialogue)]
    assert (len(dialogues), len(items) - len(dialogues)) == (read, problems)
    cleaner = Cleaner()
    cleaned = [dialogue for dialogue in map(cleaner.clean, dialogues) if dialogue]
    made = [sample for dialogue in cleaned for sample in samples_of(dialogue)]
    assert (len(cleaned), len(made)) == (kept, samples)
    for text in (text for sample in made for text in (sample.prompt, sample.target)):
        assert "无法显示" not in text and "阴阳性" not in text and "答：" not in text
        assert "\\n" not in text and text.strip()


def test_the_word_cut_in_a_real_dialogue_is_whole_again():
    dialogues = [item for item in read_source("chip_mdcfnpc", SAMPLES / "chip_mdcfnpc") if isinstance(item, Dialogue)]
    texts = [message.text for dialogue in map(Cleaner().clean, dialogues) if dialogue for message in dialogue.messages]
    assert any("痒之类的感觉呢？" in text for text in texts)
    assert not any("郑鹭光医生" in text for text in texts)


def test_an_excerpt_without_dialogues_is_refused():
    with pytest.raises(DataError, match="Not one record"):
        list(read_source("imcs_v2", SAMPLES / "imcs_v2" / "pulse_imcs_dac.jsonl"))
