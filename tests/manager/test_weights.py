"""Loading of whole checkpoints, random ones in the published layouts: values, ties, and every kind of misfit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration

from bianque.errors import SnapshotError
from bianque.manager.weights.load import load_weights
from bianque.models.chatglm import ChatGLMForConditionalGeneration
from bianque.quantization.digits import encode
from bianque.quantization.linear import QuantizedLinear
from bianque.quantization.scheme import dequantize, quantize
from scripts.make_checkpoint import make_checkpoint

FAMILIES = {"bianque-1": "t5", "bianque-2": "chatglm"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QKV = "transformer.layers.1.attention.query_key_value"
EMBEDDING = "transformer.word_embeddings.weight"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Make each tiny checkpoint once; nobody changes these folders."""
    made = {}

    def get(model: str, file_format: str = "bin", bits: int = 0) -> Path:
        key = (model, file_format, bits)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint") / f"{model}-{file_format}-{bits}"
            make_checkpoint(made[key], model, "tiny", file_format, bits=bits)
        return made[key]

    return get


@pytest.fixture
def copy(checkpoints, tmp_path):
    """Give a copy that a test may change, its weights in one safetensors file."""

    def get(model: str, bits: int = 0) -> Path:
        folder = Path(shutil.copytree(checkpoints(model, "safetensors", bits), tmp_path / "model"))
        tensors = {}
        for shard in folder.glob("*.safetensors"):
            tensors |= load_file(shard)
            shard.unlink()
        save_file(tensors, folder / "model.safetensors")
        return folder

    return get


def change(folder: Path, edit) -> None:
    """Apply `edit` to the tensors of a one-file snapshot."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def load(folder, family, precision="fp32", **options):
    return load_weights(folder, family, device="cpu", precision=precision, **options)


def refused(folder, family, precision="fp32") -> SnapshotError:
    with pytest.raises(SnapshotError) as caught:
        load(folder, family, precision)
    return caught.value


def state(model) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def same_state(one, other) -> bool:
    first, second = state(one), state(other)
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def logits(model, family) -> torch.Tensor:
    with torch.inference_mode():
        if family == "t5":
            return model(input_ids=torch.tensor([[5, 6, 7, 1]]), decoder_input_ids=torch.tensor([[0, 9]])).logits
        ids = model.config
        return model(torch.tensor([[9, 8, 7, ids.gmask_token_id, ids.bos_token_id]])).logits


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("file_format", ["bin", "safetensors"])
@pytest.mark.parametrize("model", FAMILIES)
def test_weights_are_those_that_transformers_reads(checkpoints, model, file_format, precision):
    folder, family = checkpoints(model, file_format), FAMILIES[model]
    reference_class = T5ForConditionalGeneration if family == "t5" else ChatGLMForConditionalGeneration
    reference = reference_class.from_pretrained(folder, dtype=DTYPES[precision], local_files_only=True).eval()
    loaded = load(folder, family, precision)
    assert same_state(loaded, reference)
    assert torch.equal(logits(loaded, family), logits(reference, family))
    assert loaded.dtype == reference.dtype and not loaded.training
    assert loaded.generation_config.eos_token_id == reference.generation_config.eos_token_id


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("model", FAMILIES)
def test_linears_are_quantized_from_the_stored_values(checkpoints, model, precision, bits):
    family = FAMILIES[model]
    loaded = load(checkpoints(model, "safetensors"), family, precision)
    stored = {}
    for shard in checkpoints(model, "safetensors").glob("*.safetensors"):
        stored |= load_file(shard)
    layers = {name: each for name, each in loaded.named_modules() if isinstance(each, QuantizedLinear)}
    assert len(layers) == (8 if family == "chatglm" else 36)
    for name, layer in layers.items():
        for got, wanted in zip(layer.quantized(), quantize(stored[f"{name}.weight"], bits), strict=True):
            assert torch.equal(got, wanted), name
    assert logits(loaded, family).isfinite().all()


def test_quantized_weights_stay_close(checkpoints):
    for model, family in FAMILIES.items():
        exact, close = (logits(load(checkpoints(model), family, precision), family) for precision in ("fp32", "int8"))
        assert (exact - close).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
def test_a_published_quantized_checkpoint_loads_as_it_is(checkpoints, precision, bits):
    published = load(checkpoints("bianque-2", "bin", bits), "chatglm", precision)
    assert same_state(published, load(checkpoints("bianque-2"), "chatglm", precision))


def test_a_published_quantized_checkpoint_loads_at_other_precisions(checkpoints):
    folder = checkpoints("bianque-2", "safetensors", 8)
    stored = {}
    for shard in folder.glob("*.safetensors"):
        stored |= load_file(shard)
    weight = dequantize(stored[f"{QKV}.weight"], stored[f"{QKV}.weight_scale"], 8, torch.float32)
    assert torch.equal(state(load(folder, "chatglm", "fp32"))[f"{QKV}.weight"], weight)
    lower = load(folder, "chatglm", "int4").get_submodule(QKV)
    assert torch.equal(lower.quantized()[0], quantize(weight.half(), 4)[0])


def test_scales_may_be_in_another_shard(checkpoints, tmp_path):
    folder = Path(shutil.copytree(checkpoints("bianque-2", "safetensors", 8), tmp_path / "model"))
    expected = load(folder, "chatglm", "int8")
    tensors = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
        shard.unlink()
    weight_map = {name: f"model-0000{1 + name.endswith('scale')}-of-00002.safetensors" for name in tensors}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same_state(load(folder, "chatglm", "int8"), expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_chatglm_head_is_the_embedding_whatever_is_stored(copy, precision):
    folder = copy("bianque-2")
    change(folder, lambda tensors: tensors["lm_head.weight"].zero_())
    model = load(folder, "chatglm", precision)
    head, table = dict(model.lm_head.state_dict()), dict(model.transformer.word_embeddings.state_dict())
    assert len(head) == (4 if precision == "int8" else 1)
    for name, array in head.items():
        assert array.data_ptr() == table[name].data_ptr() and array.any()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_chatglm_embedding_is_held_in_two_digits(copy, precision):
    folder = copy("bianque-2")
    weight = load_file(folder / "model.safetensors")[EMBEDDING]
    table = load(folder, "chatglm", precision).transformer.word_embeddings
    for got, expected in zip(vars(table.digits).values(), vars(encode(weight)).values(), strict=True):
        assert torch.equal(got, expected)


def test_an_embedding_that_is_stored_quantized_is_held_in_two_digits(copy):
    folder = copy("bianque-2")

    def edit(tensors):
        tensors[EMBEDDING], tensors[f"{EMBEDDING}_scale"] = quantize(tensors[EMBEDDING], 8)
        tensors.pop("lm_head.weight")

    change(folder, edit)
    stored = load_file(folder / "model.safetensors")
    weight = dequantize(stored[EMBEDDING], stored[f"{EMBEDDING}_scale"], 8, torch.float32)
    table = load(folder, "chatglm", "int8").transformer.word_embeddings
    assert torch.allclose(table(torch.arange(len(weight))), weight, rtol=0, atol=float(weight.abs().max()) * 2e-5)


def test_second_digits_that_nothing_asks_for_are_refused(copy):
    folder = copy("bianque-2")
    change(folder, lambda tensors: tensors.update({f"{QKV}.weight_low": torch.zeros(2, 2, dtype=torch.int8)}))
    assert refused(folder, "chatglm", "int8").params["unexpected"] == f"{QKV}.weight_low"


@pytest.mark.parametrize("absent", [EMBEDDING, "lm_head.weight"])
def test_chatglm_needs_one_of_embedding_and_head(copy, absent):
    folder = copy("bianque-2")
    expected = load(folder, "chatglm")
    change(folder, lambda tensors: tensors.pop(absent))
    assert same_state(load(folder, "chatglm"), expected)


def test_t5_embeddings_share_memory_and_the_head_does_not(checkpoints):
    model = load(checkpoints("bianque-1"), "t5")
    tables = {model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens}
    assert len({table.weight.data_ptr() for table in tables}) == 1
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()


def test_t5_embeddings_stored_once_are_used_everywhere(copy):
    folder = copy("bianque-1")
    expected = load(folder, "t5")
    change(folder, lambda tensors: [tensors.pop(f"{part}.embed_tokens.weight") for part in ("encoder", "decoder")])
    assert same_state(load(folder, "t5"), expected)


def test_t5_embeddings_stored_differently_stay_apart(copy):
    folder = copy("bianque-1")
    change(folder, lambda tensors: tensors["decoder.embed_tokens.weight"].add_(1))
    model = load(folder, "t5")
    assert torch.equal(model.decoder.embed_tokens.weight, model.shared.weight + 1)


def test_an_untied_t5_head_must_be_there(copy):
    folder = copy("bianque-1")
    change(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "lm_head.weight" in refused(folder, "t5").params["missing"]


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_every_misfit_is_named(copy, precision):
    folder = copy("bianque-2")

    def edit(tensors):
        tensors.pop(f"{QKV}.bias")
        tensors["adapter.weight"] = torch.zeros(2)
        tensors[f"{QKV}.weight"] = torch.zeros(3, 64, dtype=torch.float16)
        tensors["lm_head.weight"] = torch.zeros(5, 64, dtype=torch.float16)

    change(folder, edit)
    error = refused(folder, "chatglm", precision)
    assert error.key == "snapshot_tensors_mismatch"
    assert (error.params["missing"], error.params["unexpected"]) == (f"{QKV}.bias", "adapter.weight")
    assert error.params["misshapen"] == f"lm_head.weight, {QKV}.weight"


def test_a_missing_scale_is_named(copy):
    folder = copy("bianque-2", bits=8)
    change(folder, lambda tensors: tensors.pop(f"{QKV}.weight_scale"))
    assert refused(folder, "chatglm", "int8").params["missing"] == f"{QKV}.weight_scale"


@pytest.mark.parametrize("name", [f"{QKV}.weight", EMBEDDING])
def test_numbers_that_cannot_be_quantized_are_named(copy, name):
    folder = copy("bianque-2")
    change(folder, lambda tensors: tensors[name][1].fill_(torch.nan))
    error = refused(folder, "chatglm", "int8")
    assert error.key == "snapshot_tensor_invalid" and name in str(error)


def test_the_damaged_one_of_many_shards_is_named(checkpoints, tmp_path):
    for file_format in ("bin", "safetensors"):
        folder = Path(shutil.copytree(checkpoints("bianque-2", file_format), tmp_path / file_format))
        shard = sorted(folder.glob(f"*00003-of-*.{file_format}"))[0]
        shard.write_bytes(shard.read_bytes()[:-100])
        error = refused(folder, "chatglm")
        assert error.key == "snapshot_shard_damaged" and shard.name in str(error)


def test_a_shard_that_is_no_table_of_tensors_is_named(copy):
    folder = copy("bianque-1")
    (folder / "model.safetensors").unlink()
    torch.save({"epoch": 3}, folder / "pytorch_model.bin")
    assert refused(folder, "t5").key == "snapshot_shard_damaged"


def test_shards_of_the_old_pickled_format_load(copy):
    folder = copy("bianque-1")
    expected = load(folder, "t5")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert same_state(load(folder, "t5"), expected)


@pytest.mark.parametrize(
    ("key", "value", "entry"),
    [
        ("quantization_bit", 3, "config_value_unsupported"),
        ("pre_seq_len", 128, "config_value_unsupported"),
        ("num_layers", "many", "snapshot_config_invalid"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(copy, key, value, entry):
    folder = copy("bianque-2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    assert refused(folder, "chatglm").key == entry


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("model", FAMILIES)
def test_progress_ends_at_all_bytes(checkpoints, model, precision):
    reports = []
    load(checkpoints(model), FAMILIES[model], precision, report=lambda done, total: reports.append((done, total)))
    done, totals = zip(*reports, strict=True)
    assert list(done) == sorted(done) and len(done) > 20
    assert set(totals) == {done[-1]}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_no_shard_stays_mapped(checkpoints, precision):
    for model, file_format in (("bianque-1", "bin"), ("bianque-2", "safetensors")):
        folder = checkpoints(model, file_format)
        loaded = load(folder, FAMILIES[model], precision)
        assert str(folder) not in Path("/proc/self/maps").read_text()
        del loaded
