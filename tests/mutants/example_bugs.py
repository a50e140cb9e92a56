"""Seeded bugs of DP-SGD: what bounds, hides and draws examples."""

from tests.mutants.mutant import Audit, Law, Mutant

_PRIVATE = "lepton_jax/training/private.py"
_SECURE_RUN = "lepton_jax/training/private_run.py"
_ON_CLIENTS = "federated/test_example_privacy.py"
_BATCHES = "lepton_jax/data/batches.py"


def _test(of: str) -> Law:
    return Law(f"tests/{of}")


EXAMPLES = (
    Mutant(
        "examples: no noise",
        _PRIVATE,
        "trees.add(total, batch.noise)",
        "total",
        _test("lepton_jax/training/test_private_secure.py::test_noise_is_added_to_the_sum_once"),
    ),
    Mutant(
        "examples: noise / sqrt(B)",
        _PRIVATE,
        "deviation = (settings.noise_multiplier or 0.0) * settings.clip_norm",
        "deviation = (settings.noise_multiplier or 0.0) * settings.clip_norm / batch_size**0.5",
        Audit("examples"),
    ),
    Mutant(
        "examples: one key for the noise of all leaves",
        "lepton_jax/privacy/noise.py",
        "jax.random.normal(each,",
        "jax.random.normal(key,",
        Audit("examples"),
    ),
    Mutant(
        "examples: clip after the sum",
        _PRIVATE,
        "    factors = jnp.where(norms > limit, limit / norms, 1.0)",
        "    there = jax.tree.map(lambda x: jnp.einsum('b,b...->...', mask * 1.0, x), gradients)\n"
        "    norms = jnp.full_like(norms, trees.norm(there))\n"
        "    factors = jnp.where(norms > limit, limit / norms, 1.0)",
        Audit("examples"),
    ),
    Mutant(
        "examples: clip per leaf",
        _PRIVATE,
        "steps = jnp.round(rows * factors[:, None])",
        "own = jnp.linalg.norm(rows, axis=1)\n"
        "        long = own > limit * grid.unit\n"
        "        steps = jnp.round(rows * jnp.where(long, limit / own, 1 / grid.unit)[:, None])",
        _test(
            "lepton_jax/training/test_private_secure.py"
            "::test_no_gradient_is_longer_on_the_grid_than_the_bound"
        ),
    ),
    Mutant(
        "examples: divided by how many came, which is private",
        _PRIVATE,
        "noised = off_grid(trees.add(total, batch.noise), grid)",
        "noised = off_grid(trees.add(total, batch.noise), grid)\n"
        "        noised = trees.scale(noised, batch_size / counts.count.astype(jnp.float32))",
        _test(
            "lepton_jax/training/test_private_secure.py"
            "::test_on_the_grid_an_example_moves_the_sum_by_no_more_than_the_bound"
        ),
    ),
    Mutant(
        "examples: the key reused between steps",
        "lepton_jax/training/step.py",
        "key = jax.random.fold_in(key, state.step)",
        "key = jax.random.fold_in(key, 0)",
        Audit("examples"),
    ),
    Mutant(
        "examples: secure noise drawn once an epoch",
        _SECURE_RUN,
        "        for batch in drawn.epoch(epoch):\n"
        "            yield PrivateBatch(batch, noise_like(shapes, sampler, source))",
        "        noise = noise_like(shapes, sampler, source)\n"
        "        for batch in drawn.epoch(epoch):\n"
        "            yield PrivateBatch(batch, noise)",
        _test(
            "lepton_jax/training/test_private_secure.py"
            "::test_secure_noise_has_the_deviation_that_was_said_and_is_fresh_at_each_step"
        ),
    ),
    Mutant(
        "examples: drawn at twice the rate that is accounted for",
        _SECURE_RUN,
        "choose = secure_choice(source, count, sampling_rate(count, size))",
        "choose = secure_choice(source, count, min(1.0, 2 * size / count))",
        _test(
            "lepton_jax/training/test_charged_epochs.py"
            "::test_an_epoch_is_charged_as_the_batches_that_it_has_at_their_rate"
        ),
    ),
    Mutant(
        "examples: batches of a fixed size, accounted for as Poisson's",
        _BATCHES,
        "size = np.random.default_rng([seed, epoch]).binomial(n_examples, rate, steps)[step]",
        "size = batch_size",
        _test(
            "lepton_jax/training/test_private_batches.py"
            "::test_every_example_is_in_a_poisson_batch_with_the_same_probability[drawn0]"
        ),
    ),
    Mutant(
        "examples: a batch above the capacity is cut",
        _BATCHES,
        "index = choose(number, step)",
        "index = choose(number, step)[:capacity]",
        _test(
            "lepton_jax/training/test_private_batches.py"
            "::test_a_batch_above_the_capacity_raises_and_is_not_cut"
        ),
    ),
    Mutant(
        "examples: the padded last step of an epoch isn't charged",
        _SECURE_RUN,
        "    steps = steps_per_epoch(examples, size)\n",
        "    steps = examples // size\n",
        _test(
            "lepton_jax/training/test_charged_epochs.py"
            "::test_an_epoch_is_charged_as_the_batches_that_it_has_at_their_rate"
        ),
    ),
    Mutant(
        "examples: clients' secure noise from the run's seed",
        "federated/parts.py",
        "randomness = privacy.randomness if privacy else run.federated.randomness",
        'randomness = "reproducible" if privacy else run.federated.randomness',
        _test(
            f"{_ON_CLIENTS}::test_its_noise_follows_from_the_run_s_seed_only_where_that_is_asked_for"
        ),
    ),
    Mutant(
        "examples: all of a client's steps have the first one's noise",
        "federated/example_privacy.py",
        "noise_like(each, sampler, source)",
        "jax.tree.map(lambda x: x[:, :1] + 0 * x, noise_like(each, sampler, source))",
        _test(f"{_ON_CLIENTS}::test_no_step_of_any_client_or_round_has_another_s_noise"),
    ),
    Mutant(
        "examples: a client's batches are drawn at twice the rate",
        "federated/example_privacy.py",
        "bernoulli(source, rate, len(own))",
        "bernoulli(source, 2 * rate, len(own))",
        _test(f"{_ON_CLIENTS}::test_each_step_takes_each_of_the_client_s_examples_at_the_rate"),
    ),
    Mutant(
        "examples: a run stops for one example's loss",
        _PRIVATE,
        "told = jnp.where(jnp.isfinite(losses), losses, 0.0)",
        "told = losses",
        _test("lepton_jax/training/test_private.py::test_a_loss_that_is_not_finite_is_told_as_0"),
    ),
    Mutant(
        "examples: BatchNorm's statistics leave unprotected",
        _PRIVATE,
        'if resolve(run.model).norm == "batch":',
        "if False:",
        _test("mutants/test_misuses.py"),
    ),
    Mutant(
        "examples: normalization tells the mean of the training pixels",
        _PRIVATE,
        'if run.data.normalization == "standard":',
        "if False:",
        _test("mutants/test_misuses.py"),
    ),
)

BUGS = EXAMPLES
