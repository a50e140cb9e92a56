"""A phone that learns is JAX that learns: the same weights after every step."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lepton_jax import config, metrics
from lepton_jax.checks import UserError
from lepton_jax.export import learning, open_model, ops
from lepton_jax.export.device import Device, open_device, read_facts
from lepton_jax.export.flatbuffer import schema
from lepton_jax.training.losses import make_loss
from tests.lepton_jax.export import learning_nets
from tests.lepton_jax.export.learning_nets import BATCH, CLASSES, MOMENTUM, RATE, SHAPE, Net

LOSSES = (
    config.CrossEntropy(),
    config.CrossEntropy(label_smoothing=0.1),
    config.MeanSquaredError(),
)
FOREIGN = ("TRANSPOSE_CONV", "BROADCAST_TO", "GATHER_ND", "SCATTER_ND", "CUSTOM")


@pytest.fixture(scope="module")
def net() -> Net:
    layout = learning_nets.blocks(stride=2, kernel=3)
    return learning_nets.make_net(layout, config.CrossEntropy(label_smoothing=0.1), norm="group")


@pytest.fixture
def device(net: Net) -> Device:
    return open_device(net.content)


@pytest.fixture
def batch() -> Any:
    return next(learning_nets.batches(1, seed=5))


def weighted(batch: Any, device: Device, weight: np.ndarray) -> np.ndarray:
    """The weights after one step from the file's own."""
    device.train(batch.images, batch.labels, weight.astype(np.float32), RATE)
    return device.get_weights()


def test_the_weights_stay_those_of_jax(net: Net) -> None:
    found = learning_nets.differences(net, 20)
    assert found[0] < 1e-6
    assert found[-1] < 1e-5


def test_without_momentum_as_well_and_with_windows_that_overlap() -> None:
    layout = learning_nets.blocks(kernel=5, padding="VALID", pool=3, pool_stride=2)
    net = learning_nets.make_net(
        layout,
        config.MeanSquaredError(),
        momentum=0.0,
        norm="none",
        activation="tanh",
        dense=(8,),
    )
    step, state = learning_nets.jax_step(net, momentum=0.0)
    device = open_device(net.content)
    for batch in learning_nets.batches(20):
        state, _ = step(state, batch, jax.random.key(0))
        learning_nets.learn(device, batch)
    flat = np.asarray(ravel_pytree(state.params)[0])
    np.testing.assert_allclose(device.get_weights(), flat, rtol=0, atol=1e-5)
    # With one vector of state, not two.
    assert len(net.content) < 4.1 * len(flat) + 200_000


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_the_weights_stay_those_of_jax_over_a_grid(norm: str, pooling: str, padding: str) -> None:
    # Of tanh: whether a ReLU within rounding of 0 lets its gradient through is not determined.
    for stride, kernel in itertools.product((1, 2), (1, 3, 5)):
        net = learning_nets.make_net(
            learning_nets.blocks(stride=stride, kernel=kernel, padding=padding),
            signatures=("train", "evaluate", "get_weights", "set_weights"),
            norm=norm,
            pooling=pooling,
            activation="tanh",
        )
        found = learning_nets.differences(net, 20)
        assert found[0] < 1e-6, (stride, kernel)
        assert found[-1] < 1e-5, (stride, kernel)


def test_padding_counts_nothing(device: Device, net: Net, batch: Any) -> None:
    mask = np.arange(BATCH) < 4
    step, state = learning_nets.jax_step(net)
    state, tally = step(state, batch._replace(mask=mask), jax.random.key(0))
    # Fewer rows than the file has, and rows that are there with weight 0.
    few = open_device(net.content)
    sums = few.train(batch.images[:4], batch.labels[:4], np.ones(4, np.float32), RATE)
    assert (sums.correct, sums.weight) == (int(tally.correct), 4)
    assert sums.loss == pytest.approx(float(tally.loss), rel=1e-5)
    flat = np.asarray(ravel_pytree(state.params)[0])
    np.testing.assert_allclose(few.get_weights(), flat, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(weighted(batch, device, mask), few.get_weights())


def test_a_batch_of_padding_alone_changes_nothing(device: Device, batch: Any) -> None:
    before = device.get_weights()
    np.testing.assert_array_equal(weighted(batch, device, np.zeros(BATCH)), before)


def test_an_example_of_weight_two_is_that_example_twice(net: Net, batch: Any) -> None:
    weight = np.array([2, 1, 1, 0, 0, 0])
    twice = type(batch)(*(x[[0, 0, 1, 2]] for x in batch))
    a = weighted(batch, open_device(net.content), weight)
    b = weighted(twice, open_device(net.content), np.ones(4))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert np.abs(a - weighted(batch, open_device(net.content), weight > 0)).max() > 1e-5


def test_evaluation_sums_what_jax_does(device: Device, net: Net, batch: Any) -> None:
    weight = np.array([1, 1, 1, 1, 1, 0], np.float32)
    found = device.evaluate(batch.images, batch.labels, weight)
    logits, labels = (
        net.model.apply(net.variables, jnp.asarray(batch.images)),
        jnp.asarray(batch.labels),
    )
    losses = make_loss(net.loss)(logits, labels)
    expected = metrics.tally(losses, logits, labels, jnp.asarray(weight > 0))
    assert found.loss == pytest.approx(float(expected.loss), rel=1e-5)
    assert (found.correct, found.weight) == (int(expected.correct), 5)


def test_the_vector_is_in_the_order_of_the_tree(device: Device, net: Net) -> None:
    leaves = jax.tree.leaves(net.variables.params)
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in leaves])
    np.testing.assert_array_equal(device.get_weights(), flat)
    assert read_facts(net.content) == learning.Facts(BATCH, MOMENTUM, net.loss, len(flat))


def test_setting_weights_is_to_begin_anew(device: Device, net: Net, batch: Any) -> None:
    start = device.get_weights()
    ones = np.ones(BATCH)
    first = weighted(batch, device, ones)
    assert np.abs(weighted(batch, device, ones) - first).max() > 1e-4
    device.set_weights(start)
    np.testing.assert_array_equal(device.get_weights(), start)
    np.testing.assert_array_equal(weighted(batch, device, ones), first)


def test_what_has_another_shape_is_refused_and_changes_nothing(device: Device, batch: Any) -> None:
    before = device.get_weights()
    with pytest.raises(UserError, match=rf"weights: expected float32 \[{len(before)}\], got"):
        device.set_weights(before[:-1])
    with pytest.raises(UserError, match=r"image: expected uint8 \[6, 11, 12, 2\], got .* 10, 12"):
        device.evaluate(batch.images[:, 1:], batch.labels, np.ones(BATCH, np.float32))
    np.testing.assert_array_equal(device.get_weights(), before)


def test_weights_can_be_set_before_anything_else(net: Net) -> None:
    device = open_device(net.content)
    other = np.random.default_rng(0).normal(size=read_facts(net.content).parameters)
    device.set_weights(other.astype(np.float32))
    np.testing.assert_array_equal(device.get_weights(), other.astype(np.float32))


def test_what_the_phone_answers_follows_what_it_learned(net: Net, batch: Any) -> None:
    opened = learning_nets.interpreter(net.content)
    infer, classify, train = map(opened.get_signature_runner, ("infer", "classify", "train"))
    step, state = learning_nets.jax_step(net)
    weight, rate = np.ones(BATCH, np.float32), np.array([RATE], np.float32)
    for _ in range(2):
        state, _ = step(state, batch, jax.random.key(0))
        train(image=batch.images, label=batch.labels, weight=weight, learning_rate=rate)
    logits = net.model.apply(net.variables._replace(params=state.params), jnp.asarray(batch.images))
    expected = np.asarray(jax.nn.softmax(logits))
    for i, image in enumerate(batch.images):
        answers = [each(image=image[None])["probabilities"] for each in (infer, classify)]
        np.testing.assert_array_equal(*answers)
        np.testing.assert_allclose(answers[0][0], expected[i], atol=1e-5)


def test_it_opens_as_any_phone_model(net: Net, batch: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.tflite"
    path.write_bytes(net.content)
    logits = net.model.apply(net.variables, jnp.asarray(batch.images))
    found = open_model(path)(np.asarray(batch.images))
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_every_op_and_tensor_is_one_that_phones_have(net: Net) -> None:
    found = ops(net.content)
    assert not {op for op in found if op in FOREIGN or op.startswith(("Flex", "STABLEHLO"))}
    assert {"CONV_2D", "MAX_POOL_2D", "READ_VARIABLE", "ASSIGN_VARIABLE"} <= set(found)
    content = schema().ModelT.InitFromObj(schema().Model.GetRootAs(net.content, 0))
    signed = {each.signatureKey.decode(): each for each in content.signatureDefs}
    assert set(signed) == {"classify", *learning.SIGNATURES}
    assert signed["infer"].subgraphIndex == signed["classify"].subgraphIndex
    types = schema().TensorType
    for each in signed.values():
        graph = content.subgraphs[each.subgraphIndex]
        assert len(each.outputs) > 0
        for tensor in (graph.tensors[one.tensorIndex] for one in (*each.inputs, *each.outputs)):
            assert len(tensor.shape) > 0
            assert tensor.type in (types.FLOAT32, types.INT32, types.UINT8)


def test_the_same_model_gives_the_same_bytes() -> None:
    layout = (config.ConvBlock(filters=2, kernel=1, pool=4),)
    a, b = (learning_nets.make_net(layout, signatures=("train",)).content for _ in range(2))
    assert a == b


@pytest.mark.parametrize("loss", LOSSES)
def test_a_phones_loss_is_the_runs(loss: config.Loss) -> None:
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(BATCH, CLASSES)), jnp.float32)
    labels = jnp.asarray(rng.integers(CLASSES, size=BATCH), jnp.int32)

    def both(losses: Callable) -> tuple:
        return losses(logits, labels), jax.grad(lambda x: losses(x, labels).sum())(logits)

    ours, theirs = both(lambda *a: learning._losses(loss, *a)), both(make_loss(loss))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


@pytest.mark.parametrize(
    ("model", "converter", "message"),
    [
        (config.Model(norm="batch"), "auto", "model.norm: expected 'group' or 'none'"),
        (config.Model(norm="group", dropout=0.5), "auto", "model.dropout: expected 0"),
        (config.Model(norm="group"), "litert", r"export\.converter: expected jax2tf"),
    ],
)
def test_what_phones_do_not_train_is_refused(
    model: config.Model, converter: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "choose", lambda name: "jax2tf" if name == "auto" else name)
    settings = config.Export(converter=converter, signatures=("infer", "train"))
    with pytest.raises(UserError, match=message):
        learning.check(settings, model)
    learning.check(config.Export(converter=converter), model)  # to infer, anything goes


def test_a_file_that_trains_has_one_graph_to_answer_with() -> None:
    learner = learning.Learner(lambda params, pixels: pixels[:, 0, 0], {}, SHAPE, LOSSES[0])
    for interface in (config.Interface(output="top_k"), config.Interface(batch="dynamic")):
        with pytest.raises(UserError, match=r"export\.interface: expected probabilities or logits"):
            learning.training_model(learner, config.TrainOnPhone(), ("train",), interface)


def test_frames_and_logits_are_as_the_interface_says() -> None:
    interface = config.Interface(frame=(20, 16), output="logits", batch=2)
    layout = (config.ConvBlock(filters=2, kernel=1, pool=4),)
    net = learning_nets.make_net(layout, signatures=("infer",), interface=interface)
    infer = learning_nets.interpreter(net.content).get_signature_runner("infer")
    frames = np.full((2, 20, 16, 2), 99, np.uint8)
    expected = net.model.apply(net.variables, jnp.asarray(frames[:, : SHAPE[0], : SHAPE[1]]))
    np.testing.assert_allclose(infer(image=frames)["logits"], expected, atol=1e-4)


def test_a_file_that_does_not_train_is_refused(device: Device, batch: Any) -> None:
    layout = (config.ConvBlock(filters=2, kernel=1, pool=4),)
    frozen = learning_nets.make_net(layout, signatures=("evaluate",)).content
    with pytest.raises(
        UserError, match=r"export\.signatures: expected train, .* none called train"
    ):
        open_device(frozen)
    many = type(batch)(*(np.concatenate([x, x]) for x in batch))
    with pytest.raises(UserError, match="batch: expected at most 6 examples, got 12"):
        weighted(many, device, np.ones(12))
