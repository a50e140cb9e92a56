"""A phone model that learns: training, evaluation and the weights' way in and out, in one file.

Its state is one vector of weights and, with momentum, one of the same length: TFLite's resource
variables, which an interpreter fills from the file when it is opened. Everything else is pure
functions of that state, in built-in ops.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from lepton_jax import config, models, trees
from lepton_jax.checks import UserError
from lepton_jax.data.splits import DatasetInfo
from lepton_jax.export.convert import Entry, choose, convert_module
from lepton_jax.export.convert.entry import refusal
from lepton_jax.export.extras import quiet, tensorflow
from lepton_jax.export.flatbuffer import add_notes, add_signature
from lepton_jax.export.interface import classify
from lepton_jax.export.interpreter import SIGNATURE
from lepton_jax.training.losses import make_loss
from lepton_jax.typing import Labels, Logits, Pixels, PyTree

SIGNATURES: tuple[config.Signature, ...] = get_args(config.Signature)
NOTE = "lepton_training"  # what the file says of itself, as JSON
_WEIGHTS, _TRACE = "weights", "trace"

Arrays = dict[str, Array]
Apply = Callable[[Pixels], Logits]
_Pure = Callable[[Arrays, Arrays], tuple[Arrays, Arrays]]


class Learner(NamedTuple):
    """A model as a phone trains it.

    Attributes:
      logits: (params, pixels [B,H,W,F] on 0..255) -> logits [B,K].
      params: to begin with.
      image_shape: (H, W, F).
      loss: which one.
    """

    logits: Callable[[PyTree, Pixels], Logits]
    params: PyTree
    image_shape: tuple[int, int, int]
    loss: config.Loss


class Facts(msgspec.Struct, forbid_unknown_fields=True):
    """What a training file says of itself: its batch, its momentum, its loss, its weights' number."""

    batch_size: int
    momentum: float
    loss: config.Loss
    parameters: int


def check(settings: config.Export, model: config.Model) -> None:
    """Refuses what can't be trained on a phone, before any work is done.

    Raises:
      UserError: a model with BatchNorm or dropout, an interface that needs another file, or a
        converter that has no variables.
    """
    if set(settings.signatures) <= {"infer"}:
        return
    models.check_learner(model)
    _check_interface(settings.interface)
    if choose(settings.converter) != "jax2tf":
        raise UserError(
            "export.converter",
            f"jax2tf for the signatures {', '.join(settings.signatures)}",
            "litert, which has no variables",
            "pip install 'lepton-jax[export]' and set export.converter=jax2tf",
        )


def _check_interface(interface: config.Interface) -> None:
    if interface.output == "top_k" or interface.batch == "dynamic":
        expected = "probabilities or logits, and a batch of a fixed size, in a file that trains"
        got = f"output {interface.output}, batch {interface.batch}"
        remedy = "set export.interface.output=probabilities and export.interface.batch=1"
        raise UserError("export.interface", expected, got, remedy)


def make_learner(
    run: config.Run, info: DatasetInfo, image_shape: tuple[int, int, int], params: PyTree
) -> Learner:
    """The learner of a run.

    Args:
      run: its config.
      info: of its data.
      image_shape: (H, W, F).
      params: where the phone begins.

    Raises:
      UserError: a model with BatchNorm or dropout.
    """
    logits = models.learner(run.model, image_shape, len(info.classes), mean=info.mean, std=info.std)
    return Learner(logits, params, image_shape, run.loss)


def training_model(
    learner: Learner,
    settings: config.TrainOnPhone,
    signatures: Sequence[str] = SIGNATURES,
    interface: config.Interface = config.Interface(),  # noqa: B008 # frozen
) -> bytes:
    """Converts a model that a phone can train to a TFLite model of built-in ops.

    With P weights and batches of B images, the file has `classify`, and of these what is asked for:

    | signature     | takes                                                    | gives                      |
    |---------------|----------------------------------------------------------|----------------------------|
    | `infer`       | as `classify`                                            | as `classify`              |
    | `train`       | `image` uint8 [B,H,W,F], `label` int32 [B], `weight`     | `loss`, `correct`          |
    |               | float32 [B], `learning_rate` float32 [1]                 |                            |
    | `evaluate`    | `image`, `label`, `weight`                               | `loss`, `correct`, `weight`|
    | `get_weights` | nothing                                                  | `weights` float32 [P]      |
    | `set_weights` | `weights` float32 [P]                                    | `norm`, their L2 norm      |

    `train` takes one step of gradient descent, with momentum as Optax has it (trace = gradient +
    momentum trace), on the mean loss weighted by `weight`; rows of weight 0 are padding and count
    nothing. Its `loss` is that mean before the step, `correct` the weight of what was classified
    rightly; those of `evaluate` are sums. All of them are float32 [1]. `set_weights` also clears
    the momentum. The order of the P weights is that of `jax.tree.leaves(params)`, parameters by
    their names in alphabetical order, each one in row-major order. Until they are set, the weights
    are those of `learner`, and each opened interpreter begins with them anew.

    Args:
      learner: the model, its weights and its loss.
      settings: batch size and momentum.
      signatures: some of the above.
      interface: of `classify`.

    Returns:
      The content of a .tflite file. The same arguments give the same bytes.

    Raises:
      UserError: TensorFlow is not installed, the model has an op that TFLite lacks, or the
        interface is one that needs another file.
    """
    _check_interface(interface)
    tf = tensorflow()
    from tensorflow.lite.python.convert import ConverterError

    answering = partial(_classify, learner.image_shape, interface)
    wanted = [SIGNATURE, *(each for each in signatures if each != "infer")]
    with quiet():
        module = _module(tf, learner, settings, answering, wanted)
    try:
        content = convert_module(module, wanted)
    except ConverterError as error:
        raise refusal([], str(error)) from error
    if "infer" in signatures:
        content = add_signature(content, "infer", SIGNATURE)
    size = trees.size(learner.params)
    facts = Facts(settings.batch_size, settings.momentum, learner.loss, size)
    return add_notes(content, {NOTE: msgspec.json.encode(facts).decode()})


def _classify(
    image_shape: tuple[int, int, int], interface: config.Interface, apply: Apply
) -> Entry:
    batch = 1 if interface.batch == "dynamic" else interface.batch
    return classify(apply, image_shape, interface, batch)


# --- pure functions of the state ------------------------------------------------------------------


def _functions(
    learner: Learner, settings: config.TrainOnPhone, answer: Callable[[Apply], Entry]
) -> dict[str, _Pure]:
    """(state, inputs) -> (what changes of the state, outputs), by signature."""
    unravel = ravel_pytree(learner.params)[1]

    def train(state: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        def objective(params: PyTree) -> tuple[Array, tuple[Array, Array]]:
            loss, correct, weight = _sums(learner, params, given)
            mean = loss / jnp.where(weight > 0, weight, 1.0)
            return jnp.sum(mean), (mean, correct)

        gradient, (loss, correct) = jax.grad(objective, has_aux=True)(unravel(state[_WEIGHTS]))
        trace = ravel_pytree(gradient)[0]
        changed = {}
        if settings.momentum:
            trace = changed[_TRACE] = trace + settings.momentum * state[_TRACE]
        changed[_WEIGHTS] = state[_WEIGHTS] - given["learning_rate"] * trace
        return changed, {"loss": loss, "correct": correct}

    def evaluate(state: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        sums = _sums(learner, unravel(state[_WEIGHTS]), given)
        return {}, dict(zip(("loss", "correct", "weight"), sums, strict=True))

    def get_weights(state: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        return {}, {"weights": state[_WEIGHTS]}

    def set_weights(state: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        weights = given["weights"]
        cleared = {_TRACE: jnp.zeros_like(weights)} if settings.momentum else {}
        norm = jnp.sqrt(jnp.sum(jnp.square(weights), keepdims=True))
        return {_WEIGHTS: weights, **cleared}, {"norm": norm}

    def infer(state: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        return {}, answer(partial(learner.logits, unravel(state[_WEIGHTS]))).function(**given)

    every = (train, evaluate, get_weights, set_weights)
    return {SIGNATURE: infer, **{each.__name__: each for each in every}}


def _sums(learner: Learner, params: PyTree, given: Arrays) -> tuple[Array, Array, Array]:
    """Loss, hits and weight [1] of a batch, summed; padding adds nothing, not even NaN."""
    labels, weight = given["label"], given["weight"]
    logits = learner.logits(params, given["image"])
    losses = jnp.where(weight > 0, _losses(learner.loss, logits, labels), 0.0)
    hits = jnp.argmax(logits, axis=-1).astype(jnp.int32) == labels
    each = (weight * losses, jnp.where(hits, weight, 0.0), weight)
    # No scalars: the interpreter of some phones crashes on them.
    loss, correct, total = (jnp.sum(x, keepdims=True) for x in each)
    return loss, correct, total


def _losses(settings: config.Loss, logits: Logits, labels: Labels) -> Float[Array, "B"]:
    """Each example's loss as of `make_loss`, but that the gradient of a choice is no scatter."""
    if not isinstance(settings, config.CrossEntropy):
        return make_loss(settings)(logits, labels)
    smoothing, scores = settings.label_smoothing, jax.nn.log_softmax(logits)
    own = labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)[None]
    chosen = jnp.sum(jnp.where(own, scores, 0.0), axis=-1)
    return -(1 - smoothing) * chosen - smoothing * jnp.mean(scores, axis=-1)


# --- TensorFlow's module around them --------------------------------------------------------------


def _module(
    tf: Any,
    learner: Learner,
    settings: config.TrainOnPhone,
    answer: Callable[[Apply], Entry],
    wanted: Sequence[str],
) -> Any:
    flat = np.asarray(ravel_pytree(learner.params)[0])
    module = tf.Module()
    module.state = {_WEIGHTS: tf.Variable(flat, name=_WEIGHTS)}
    if settings.momentum:
        module.state[_TRACE] = tf.Variable(np.zeros_like(flat), name=_TRACE)
    functions, inputs = _functions(learner, settings, answer), _inputs(learner, settings, answer)
    for name in wanted:
        setattr(module, name, _bound(tf, module.state, functions[name], inputs[name]))
    return module


def _inputs(
    learner: Learner, settings: config.TrainOnPhone, answer: Callable[[Apply], Entry]
) -> dict[str, Mapping[str, jax.ShapeDtypeStruct]]:
    batch, of = settings.batch_size, jax.ShapeDtypeStruct
    examples = {
        "image": of((batch, *learner.image_shape), jnp.uint8),
        "label": of((batch,), jnp.int32),
        "weight": of((batch,), jnp.float32),
    }
    return {
        SIGNATURE: answer(partial(learner.logits, learner.params)).inputs,
        "train": {**examples, "learning_rate": of((1,), jnp.float32)},
        "evaluate": examples,
        "get_weights": {},
        "set_weights": {"weights": of((trees.size(learner.params),), jnp.float32)},
    }


def _bound(tf: Any, state: Any, pure: _Pure, inputs: Mapping[str, jax.ShapeDtypeStruct]) -> Any:
    """A function of TensorFlow's that reads the state, and assigns what changes of it."""
    from jax.experimental import jax2tf

    names = list(inputs)
    lowered = jax2tf.convert(pure, with_gradient=False, native_serialization_platforms=("cpu",))

    def call(*arrays: Any) -> Any:
        now = {name: variable.read_value() for name, variable in state.items()}
        changed, given = lowered(now, dict(zip(names, arrays, strict=True)))
        for name, value in changed.items():
            state[name].assign(value)
        return given

    specs = [
        tf.TensorSpec(each.shape, tf.as_dtype(each.dtype), name=name)
        for name, each in inputs.items()
    ]
    return tf.function(call, input_signature=specs, autograph=False)
