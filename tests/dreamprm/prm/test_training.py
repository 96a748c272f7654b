"""The PRM under bilevel.Lookahead: every parameter counted, tiles mapped to their examples; and with adapters."""

import pytest
import torch

import bilevel
from dreamprm.loss import example_losses, outer_loss
from dreamprm.prm.model import PRM
from dreamprm.weigher import InstanceTable, from_batch


@pytest.fixture
def records(make_record, make_image):
    return [
        make_record("a", labels=(1.0, 0.0), correct=True, images=(make_image(),)),
        make_record("b", ("x", "y", "z"), labels=(0.5, None, 1.0), correct=False),
        make_record("c", labels=(0.0, 1.0), correct=True, images=(make_image(64, 32, (0, 9, 9)), make_image())),
    ]


@pytest.mark.parametrize("head", ["generative", "vocabulary", "linear"])
@pytest.mark.parametrize("tied", [False, True])
def test_hypergradient_of_a_table(build_internvl, tiny_processor, records, head, tied):
    prm = PRM(build_internvl(tied), tiny_processor, head)
    if head == "linear":  # it starts at zero, where nothing below it has a gradient
        torch.nn.init.normal_(prm.head.score.weight)
    parameters = {name: value for name, value in prm.named_parameters() if value.requires_grad}
    lr, table = 0.05, InstanceTable(3, sparse=False)
    batch = prm.collator()(list(enumerate(records)))
    optimizer = torch.optim.SGD(parameters.values(), lr=lr)
    each = example_losses(prm(batch), batch)
    gradients = [
        torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True) for loss in each
    ]

    lookahead = bilevel.Lookahead(prm, optimizer)
    optimizer.zero_grad()
    with lookahead.inner(rows=prm.row_examples(batch)):
        logits = prm(batch)
        losses = example_losses(logits, batch)
        lookahead.backward(losses, table(from_batch(batch, logits, losses)) / 3)
    lookahead.step()
    loss = outer_loss(prm(batch), batch)
    outer = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    lookahead.backward_outer(loss)

    expected = []
    for own in gradients:
        pairs = [(v, g) for v, g in zip(outer, own) if v is not None and g is not None]
        expected.append(-lr / 3 * sum((v * g).sum() for v, g in pairs))
    # float32; the products are sums over some ten thousand parameters.
    torch.testing.assert_close(table.table.grad[:, 0], torch.stack(expected), rtol=1e-3, atol=1e-7)
    assert lookahead.report["check"] < 0.01


# peft 0.21 reads a property that transformers 5 renames.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_are_merged_into_the_folder(build_internvl, tiny_processor, records, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build_internvl(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    prm = PRM(model, tiny_processor)
    prm.eval()
    for name, parameter in prm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    batch = prm.collator()(records)
    names = {name for name, _ in prm.named_modules()}
    assert set(prm.row_examples(batch)) <= names
    with torch.no_grad():
        expected = prm.step_scores(batch)
        prm.save_pretrained(tmp_path)
        again = PRM.from_pretrained(tmp_path)
        torch.testing.assert_close(again.step_scores(again.collator()(records)), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(prm.step_scores(batch), expected, atol=0, rtol=0)
        with model.disable_adapter():
            assert (prm.step_scores(batch) - expected).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_on_a_four_bit_base_become_a_full_model(build_internvl, tiny_processor, records, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    PRM(build_internvl(), tiny_processor).save_pretrained(tmp_path / "base")
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    prm = PRM.from_pretrained(tmp_path / "base", quantization_config=four_bit)
    prm.model = get_peft_model(prm.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    prm.eval()
    for name, parameter in prm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    batch = prm.collator()(records)
    with torch.no_grad():
        expected = prm.step_scores(batch)
        prm.save_pretrained(tmp_path / "prm")
        again = PRM.from_pretrained(tmp_path / "prm")
        # The dequantized weights are kept, so only the order of sums differs.
        torch.testing.assert_close(again.step_scores(again.collator()(records)), expected, atol=1e-4, rtol=0)
    assert not getattr(again.transformer, "is_quantized", False)
    assert prm.transformer.is_quantized


def test_judging_leaves_a_four_bit_base_as_it_was(build_internvl, tiny_processor, records, tmp_path):
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    build_internvl().save_pretrained(tmp_path)
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    base = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32, quantization_config=four_bit)
    layers = [module for module in base.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    assert layers
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as on a CPU with AVX512-BF16, whichever runs this
    held = [(layer.weight.data.clone(), layer.weight.quant_state.absmax.clone()) for layer in layers]
    prm = PRM(base, tiny_processor)
    batch = prm.collator()(records)
    with torch.no_grad():
        training = prm.train().step_scores(batch)
        torch.testing.assert_close(prm.eval().step_scores(batch), training, atol=0, rtol=0)
    for layer, (codes, scales) in zip(layers, held, strict=True):
        torch.testing.assert_close(layer.weight.data, codes, atol=0, rtol=0)
        torch.testing.assert_close(layer.weight.quant_state.absmax, scales, atol=0, rtol=0)
