"""Adapters as files: opened beside their base, merged into it, and refused where they do not belong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bianque.cli.main import main
from bianque.errors import DataError, SnapshotError
from bianque.finetune.base import resolve_base
from bianque.finetune.whole import merge_adapter
from bianque.manager.adapters import attach_adapter, find_base, fingerprint, read_adapter
from bianque.manager.catalogue import describe_source
from bianque.manager.download.snapshot import resolve_snapshot, snapshot_on_disk
from bianque.manager.loader import load_model
from bianque.manager.registry import MINI_ADVISER, MINI_ASKER, Job
from bianque.manager.weights.load import load_weights
from bianque.settings import ModelSource, Settings
from tests.finetune.conftest import CHATGLM, QUICK, T5

IDS = torch.tensor([[10, 20, 30, 40, 291, 294, 50, 60]])  # ends [gMASK] <sop> and two tokens of a reply


@pytest.fixture(scope="module")
def trained(tmp_path_factory, samples):
    """An adapter of the tiny ChatGLM, trained hard enough to change what it computes."""
    from bianque.finetune.run import FinetuneJob, finetune

    options = replace(QUICK, learning_rate=0.02, max_steps=10, save_every=0)
    output = tmp_path_factory.mktemp("trained") / "run"
    return Path(finetune(FinetuneJob(samples, output, ModelSource(str(CHATGLM)), device="cpu"), options).result)


@pytest.fixture
def adapter(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


@torch.no_grad()
def logits_of(model):
    return model(IDS).logits


def load(precision="fp32", folder=CHATGLM):
    return load_weights(folder, "chatglm", device="cpu", precision=precision)


def with_adapter(folder, precision="fp32"):
    model = load(precision)
    attach_adapter(model, read_adapter(folder), CHATGLM, "chatglm")
    return model


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def refused(call):
    with pytest.raises(SnapshotError) as caught:
        call()
    return caught.value


# peft reads a name that transformers is about to retire.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_application_computes_what_peft_computes(adapter):
    from peft import PeftModel

    expected = PeftModel.from_pretrained(load(), str(adapter)).eval()
    own = logits_of(with_adapter(adapter))
    assert torch.allclose(own, logits_of(expected), atol=1e-5)
    assert (own - logits_of(load())).abs().max() > 0.1


def test_an_adapter_says_what_it_belongs_to(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(CHATGLM) and config["peft_type"] == "LORA"
    origin = json.loads((adapter / "bianque_adapter.json").read_text())
    assert (origin["architecture"], origin["template"], origin["name"]) == ("chatglm", "bianque", "run")
    assert origin["base_fingerprint"] == fingerprint(CHATGLM)
    assert str(CHATGLM) in (adapter / "README.md").read_text()


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_merged_and_kept_apart_are_the_same_model(adapter, tmp_path, precision):
    base = resolve_base(ModelSource(str(CHATGLM)))
    assert merge_adapter(adapter, base, tmp_path / "merged") == 12
    merged = logits_of(load(precision, tmp_path / "merged"))
    apart = logits_of(with_adapter(adapter, precision))
    # Merged, the sum is rounded to the fp16 of the files, and then to integers as a whole.
    tolerance = {"fp32": 0.01, "int8": 0.15, "int4": 1.5}[precision]
    change_by_adapter = (apart - logits_of(load(precision))).abs().max()
    assert (merged - apart).abs().max() < tolerance * max(1.0, change_by_adapter)


def test_the_command_merges_from_what_the_adapter_remembers(adapter, tmp_path, capsys):
    assert main(["finetune", "merge", str(adapter), str(tmp_path / "merged")]) == 0
    loaded = load_model(tmp_path / "merged", replace(MINI_ADVISER, size=None), Settings(), has_cuda=False)
    loaded.engine.shutdown()
    assert main(["finetune", "merge", str(adapter), str(tmp_path / "merged")]) == 1
    assert "not empty" in capsys.readouterr().err


def test_an_adapter_is_a_model_of_the_catalogue(adapter):
    spec, source = describe_source(ModelSource(str(adapter)), Job.ADVISER)
    assert (spec.name, spec.family, spec.template, source.location) == ("run", "chatglm", "bianque", str(adapter))
    assert spec.num_parameters == resolve_base(ModelSource(str(CHATGLM))).spec.num_parameters
    assert resolve_snapshot(ModelSource(str(adapter))) == adapter
    assert snapshot_on_disk(ModelSource(str(adapter)))[0] == "complete"
    (adapter / "adapter_model.safetensors").unlink()
    assert snapshot_on_disk(ModelSource(str(adapter)))[0] == "partial"


def test_a_published_base_is_known_before_it_is_downloaded(adapter):
    change(adapter / "adapter_config.json", base_model_name_or_path="scutcyr/SoulChat")
    (adapter / "bianque_adapter.json").unlink()
    spec, _ = describe_source(ModelSource(str(adapter)), Job.LISTENER)
    assert (spec.name, spec.template, spec.family) == ("adapter", "soulchat", "chatglm")
    assert spec.num_parameters > 6e9
    assert refused(lambda: find_base(read_adapter(adapter))).key == "adapter_base_missing"


def test_another_base_is_refused(adapter, tmp_path):
    for other in (MINI_ADVISER.location, MINI_ASKER.location, str(T5)):
        base = resolve_base(ModelSource(other))
        error = refused(lambda base=base: merge_adapter(adapter, base, tmp_path / "merged"))
        assert error.key == "adapter_other_base" and str(CHATGLM) in str(error)
    assert not (tmp_path / "merged").exists()


def test_a_base_of_the_same_shape_with_other_weights_is_refused(adapter, tmp_path):
    other = Path(shutil.copytree(CHATGLM, tmp_path / "other"))
    path = other / "pytorch_model-00001-of-00002.bin"
    tensors = torch.load(path, weights_only=True)
    torch.save({name: value + 1 for name, value in tensors.items()}, path)
    change(adapter / "adapter_config.json", base_model_name_or_path=str(other))
    spec, _ = describe_source(ModelSource(str(adapter)), Job.ADVISER)
    error = refused(lambda: load_model(adapter, spec, Settings(), has_cuda=False))
    assert error.key == "adapter_other_base"


def test_the_same_weights_in_another_file_format_are_the_same_base(tmp_path):
    other = Path(shutil.copytree(CHATGLM, tmp_path / "other"))
    tensors = {}
    for path in other.glob("*.bin"):
        tensors |= torch.load(path, weights_only=True)
        path.unlink()
    (other / "pytorch_model.bin.index.json").unlink()
    save_file({name: value.clone() for name, value in tensors.items()}, other / "model.safetensors")
    assert fingerprint(other) == fingerprint(CHATGLM)


def test_shapes_are_looked_at_where_nothing_is_recorded(adapter):
    (adapter / "bianque_adapter.json").unlink()
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file(tensors | {name: tensors[name][:-2].clone()}, path)
    assert refused(lambda: with_adapter(adapter)).key == "adapter_other_base"
    save_file({name.replace("query_key_value", "qkv"): value for name, value in tensors.items()}, path)
    assert refused(lambda: with_adapter(adapter)).key == "adapter_other_base"


@pytest.mark.parametrize(
    "values",
    [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"peft_type": "PREFIX_TUNING"}],
)
def test_more_than_plain_lora_is_refused(adapter, values):
    change(adapter / "adapter_config.json", **values)
    error = refused(lambda: read_adapter(adapter))
    assert (error.key, error.params["name"]) == ("adapter_unsupported", next(iter(values)))


def test_damaged_adapters_are_refused(adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(dict(list(tensors.items())[1:]), path)
    assert refused(lambda: with_adapter(adapter)).key == "adapter_unsupported"
    path.write_bytes(path.read_bytes()[:200])
    assert refused(lambda: with_adapter(adapter)).key == "snapshot_shard_damaged"
    path.unlink()
    assert refused(lambda: with_adapter(adapter)).key == "snapshot_file_missing"
    change(adapter / "adapter_config.json", base_model_name_or_path=None)
    assert refused(lambda: read_adapter(adapter)).key == "snapshot_config_invalid"


def test_scales_follow_pefts_patterns(adapter):
    change(adapter / "adapter_config.json", lora_alpha=32, alpha_pattern={"attention.dense": 8}, use_rslora=True)
    read = read_adapter(adapter)
    assert read.scale_of("transformer.layers.0.attention.dense", 16) == 2
    assert read.scale_of("transformer.layers.0.mlp.dense_h_to_4h", 16) == 8


def test_an_adapter_is_no_base_and_quantized_weights_take_no_merge(adapter, tmp_path):
    with pytest.raises(DataError) as caught:
        resolve_base(ModelSource(str(adapter)))
    assert caught.value.key == "finetune_base_is_adapter"
    quantized = Path(shutil.copytree(CHATGLM, tmp_path / "quantized"))
    from bianque.quantization.scheme import quantize

    for path in quantized.glob("*.bin"):
        tensors = torch.load(path, weights_only=True)
        for name in [name for name in tensors if "dense" in name and name.endswith("weight")]:
            tensors[name], tensors[f"{name}_scale"] = quantize(tensors[name], 8)
        torch.save(tensors, path)
    (adapter / "bianque_adapter.json").unlink()
    with pytest.raises(DataError) as caught:
        merge_adapter(adapter, resolve_base(ModelSource(str(quantized))), tmp_path / "merged")
    assert caught.value.key == "adapter_merge_quantized"


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_pass_through_quantized_weights_without_keeping_a_float_copy(bits):
    from bianque.quantization.linear import QuantizedLinear
    from bianque.quantization.scheme import dequantize

    layer = QuantizedLinear(8, 6, bits=bits, bias=True, device="cpu", dtype=torch.float32)
    layer.load_weight(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    inputs = torch.randn(2, 3, 8, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: saved.append(value) or value, lambda value: value):
        outputs = layer(inputs)
    weight = dequantize(*layer.quantized(), bits, torch.float32)
    assert torch.allclose(outputs, inputs @ weight.T, atol=1e-5)
    assert {value.dtype for value in saved} == {torch.int8, torch.float16}
    gradient = torch.randn(2, 3, 6)
    outputs.backward(gradient)
    assert torch.allclose(inputs.grad, gradient @ weight, atol=1e-5)


def test_an_adapter_on_the_hub_is_fetched_with_its_base(adapter, tmp_path, monkeypatch, capsys):
    from bianque.manager.manager import ModelManager
    from tests.manager.hub_server import running_hub, use_hub

    def files(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    with running_hub() as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        commit = hub.push(
            "owner/base", {name: content for name, content in files(CHATGLM).items() if "exp" not in name}
        )
        change(adapter / "adapter_config.json", base_model_name_or_path="owner/base", revision=commit)
        hub.push("owner/adapter", files(adapter))
        assert main(["download", "owner/adapter"]) == 0
        assert find_base(read_adapter(Path(capsys.readouterr().out.strip()))).name == commit
        manager = ModelManager(Settings(models="demo", adviser=ModelSource("owner/adapter"), num_slots=1))
        try:
            manager.start()
            assert manager.wait(60)
            assert manager.get(Job.ADVISER).spec.name == "run"
            folder = resolve_snapshot(ModelSource("owner/adapter"))
            assert find_base(read_adapter(folder)).name == commit
        finally:
            manager.shutdown()
