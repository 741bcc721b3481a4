"""Training of the demonstration models: batches, and beginning with a saved model."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

import pytest
import torch

from bianque.cli.main import main
from bianque.minis import training
from bianque.minis.architectures import MINIS
from bianque.minis.dialogues import DialogueWriter
from bianque.minis.knowledge import load_knowledge
from bianque.minis.respond import FOLDER
from bianque.minis.training import Trainer, TrainingOptions, batches, read_weights


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


@pytest.fixture
def make(knowledge, tmp_path):
    """Return a model with the embedded tokenizer, which takes no time to make."""

    def of(speaker):
        return MINIS[speaker](knowledge, tmp_path / f"mini-{speaker}", 20, FOLDER / f"mini-{speaker}")

    return of


def test_processes_that_write_the_corpus_change_no_sample(make, knowledge, monkeypatch):
    """Batches may differ, since prompts are cut at random by a generator of each process."""
    monkeypatch.setattr(training, "CHUNK", 48)
    targets = []
    for num_workers in (0, 2):
        options = TrainingOptions(num_steps=1, batch_tokens=800, num_workers=num_workers)
        found = defaultdict(list)
        source = batches(make("asker"), DialogueWriter(knowledge), options, 3)
        for chunk, batch in source:
            if chunk == 6:
                break
            found[chunk] += [tuple(value for value in row if value != -100) for row in batch.labels.tolist()]
        source.close()
        targets.append({chunk: sorted(rows) for chunk, rows in found.items()})
    assert list(targets[0]) == [3, 4, 5]
    assert all(len(rows) == 48 for rows in targets[0].values())
    assert targets[0] == targets[1]


@pytest.mark.parametrize("speaker", ["asker", "adviser"])
def test_training_begins_with_a_saved_model_and_changes_it(make, knowledge, tmp_path, monkeypatch, speaker):
    saved = read_weights(FOLDER / f"mini-{speaker}")
    monkeypatch.setattr(training, "CHUNK", 48)
    mini = make(speaker)
    options = TrainingOptions(
        num_steps=2, batch_tokens=600, num_warmup_steps=1, start=FOLDER / f"mini-{speaker}", log_every=1
    )
    trainer = Trainer(mini, DialogueWriter(knowledge), options, tmp_path / "checkpoint.pt")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, saved[name].float()), name
    lines = []
    trainer.run(lines.append)
    assert [line.split(" · ")[0] for line in lines] == ["step 1", "step 2"]
    mini.save(trainer.averaged())
    written = read_weights(mini.folder)
    assert written.keys() == saved.keys()
    assert any(not torch.equal(written[name], saved[name]) for name in saved)


def test_an_opening_may_be_drawn_more_often(knowledge):
    from bianque.minis.dialogues import samples

    shares = []
    for weight in (2.0, 20.0):
        writer = DialogueWriter(knowledge, opening_weight=weight)
        drawn = islice(samples(writer, "asker", 1), 200)
        shares.append(sum(sample.before[-1].act == "opening" for sample in drawn) / 200)
    assert shares[0] < 0.45 < 0.65 < shares[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "1", "--start", "nowhere"], "must be a folder with config.json and *.safetensors"),
        (["--steps", "1", "--workers", "-1"], "must be at least 0, but it is -1"),
        (["--steps", "1", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(options, said, capsys):
    with pytest.raises(SystemExit):
        main(["minis", "train", "asker", *options])
    assert said in capsys.readouterr().err


def test_a_start_that_does_not_fit_is_refused_in_a_sentence(capsys):
    asker, adviser = FOLDER / "mini-asker", FOLDER / "mini-adviser"
    for options, said in (
        (["--start", str(adviser)], f"with spiece.model in it, and {adviser} has none"),
        (["--start", str(asker), "--output", str(FOLDER)], "choose another with --output"),
    ):
        assert main(["minis", "train", "asker", "--steps", "1", *options]) != 0
        assert said in capsys.readouterr().err
