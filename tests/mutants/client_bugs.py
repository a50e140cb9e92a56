"""Seeded bugs of the clients' privacy: bounds, noise, weights, cohorts."""

from tests.mutants.mutant import Audit, Law, Mutant, Refusal

_AGGREGATE = "federated/aggregate.py"
_NOISE = "federated/privacy/noise.py"
_BY_CLIENTS = "federated/privacy/client_noise.py"
_FTRL = "federated/privacy/ftrl.py"
_TERMS = "federated/privacy/test_promise.py"


def _test(of: str) -> Law:
    return Law(f"tests/{of}")


_SET_UP = """
from federated.parts import set_up
from lepton_jax import config
federated = config.Federated(
    noise=config.Gaussian(multiplier=1.0), sampling="poisson", weights="uniform",
    stages=(config.Clip(max_norm=1.0),), clients=6, clients_per_round=3, over="scan",
)
data = config.Data(normalization="unit")
set_up(config.Run(data=data, model=config.Model(norm="group"), federated=federated), None)
"""

CLIENTS = (
    Mutant(
        "clients: no noise",
        _NOISE,
        "(jax.tree.map(jnp.add, total, drawn), state)",
        "(total, state)",
        Audit("clients"),
    ),
    Mutant(
        "clients: the noise of a mean, on a sum",
        _NOISE,
        "rounded_normal(grid.deviation)",
        "rounded_normal(grid.deviation / clients)",
        Audit("clients"),
    ),
    Mutant(
        "clients: one seed for the noise of all rounds",
        "federated/parts.py",
        "seeded_source(run.seed, number, _NOISE)",
        "seeded_source(run.seed, _NOISE)",
        Audit("clients"),
    ),
    Mutant(
        "clients: secure noise from the run's seed",
        "lepton_jax/privacy/entropy.py",
        "algorithms.AES(os.urandom(32))",
        "algorithms.AES(bytes(32))",
        _test(
            "lepton_jax/privacy/test_entropy.py::test_no_word_comes_twice_from_one_source_or_two"
        ),
    ),
    Mutant(
        "clients: a fork goes on with its parent's noise",
        "lepton_jax/privacy/entropy.py",
        "owner != os.getpid() or left < 8 * n",
        "left < 8 * n",
        _test("lepton_jax/privacy/test_entropy.py::test_a_forked_process_has_words_of_its_own"),
    ),
    Mutant(
        "clients: clip per leaf",
        "federated/stages/clip.py",
        "passed = trees.select(clipped, trees.scale(unit, limit / length), update)",
        "passed = jax.tree.map(lambda x: x * jnp.minimum(1.0, limit / trees.norm(x)), update)",
        _test("federated/test_stages.py::test_every_stage_keeps_its_bound"),
    ),
    Mutant(
        "clients: a chain without the clip",
        "federated/parts.py",
        "stages = [make_stage(stage, run.seed) for stage in federated.stages]",
        "stages = []",
        Refusal(_SET_UP, "gaussian noise: expected a finite bound before it"),
    ),
    Mutant(
        "clients: noise for another bound than the chain's",
        _AGGREGATE,
        "noise.grid(bound) if noise",
        "noise.grid(0.1) if noise",
        _test("federated/test_aggregate.py::test_noise_takes_its_deviation_from_the_chain_s_bound"),
    ),
    Mutant(
        "clients: no bound is asked for",
        _AGGREGATE,
        "if not math.isfinite(bound):",
        "bound = min(bound, 1.0)\n    if not math.isfinite(bound):",
        _test("federated/test_aggregate.py::test_noise_needs_a_finite_bound"),
    ),
    Mutant(
        "clients: weights by example count in a noised sum",
        _AGGREGATE,
        "share = jnp.minimum(weight, 1.0)",
        "share = weight",
        _test(
            "federated/test_aggregate.py"
            "::test_with_noise_a_client_counts_1_and_the_divisor_is_the_expected_number"
        ),
    ),
    Mutant(
        "clients: divided by how many came, which is private",
        _AGGREGATE,
        "divisor = drawn.expected",
        "divisor = divisor.astype(jnp.float32) / _WEIGHT_UNITS",
        _test(
            "federated/test_aggregate.py"
            "::test_with_noise_a_client_counts_1_and_the_divisor_is_the_expected_number"
        ),
    ),
    Mutant(
        "clients: BatchNorm's statistics leave unprotected",
        _AGGREGATE,
        "if grid is not None and variables.stats:",
        "if noise is None and variables.stats:",
        _test("federated/test_aggregate.py::test_shared_statistics_are_refused_with_noise"),
    ),
    Mutant(
        "clients: what an adaptive clip tells is not accounted for",
        "federated/stages/adaptive_clip.py",
        "part = math.sqrt(1 - settings.share**2) * trees.NORM_ROOM",
        "part = trees.NORM_ROOM",
        _test(
            "federated/test_adaptive_clip.py"
            "::test_whatever_comes_the_norm_of_what_leaves_is_at_most_1"
        ),
    ),
    Mutant(
        "clients: dropouts weaken distributed noise",
        _BY_CLIENTS,
        "math.ceil(present * secure.dropouts)",
        "0",
        _test(
            "federated/privacy/test_client_noise.py"
            "::test_those_who_stay_have_all_the_noise_that_was_asked_for"
        ),
    ),
    Mutant(
        "clients: colluders' share counts as noise",
        _BY_CLIENTS,
        " + math.ceil(present * secure.colluders)",
        "",
        _test(
            "federated/privacy/test_client_noise.py"
            "::test_those_who_stay_have_all_the_noise_that_was_asked_for"
        ),
    ),
    Mutant(
        "clients: local noise that is enough only together",
        _BY_CLIENTS,
        "rounded_normal(grid.deviation)",
        "rounded_normal(grid.deviation / math.sqrt(slots))",
        _test(
            "federated/privacy/test_client_noise.py"
            "::test_local_noise_is_enough_on_each_client_whoever_else_is_there"
        ),
    ),
    Mutant(
        "clients: a tree's nodes serve for the next pass too",
        _FTRL,
        "trees.select(after == 0, trees.zeros_like(nodes), nodes)",
        "nodes",
        _test("federated/privacy/test_ftrl.py::test_every_pass_begins_a_tree_of_its_own"),
    ),
    Mutant(
        "clients: banded noise without the columns' norm",
        _FTRL,
        "float(np.linalg.norm(root)) * grid.bound",
        "grid.bound",
        _test(
            "federated/privacy/test_ftrl.py"
            "::test_what_is_drawn_covers_the_columns_norm_and_the_rounding"
        ),
    ),
    Mutant(
        "clients: who is chosen follows from the run's seed",
        "federated/sampling.py",
        "return lambda round: np.flatnonzero(bernoulli(source, rate, clients))",
        "return lambda round: np.flatnonzero(_rng(seed, round).random(clients) < rate)",
        _test(
            "federated/test_sampling.py"
            "::test_who_is_chosen_follows_from_no_seed_where_noise_is_secret"
        ),
    ),
    Mutant(
        "clients: distributed noise is parted among empty slots, too",
        "federated/privacy/client_noise.py",
        "math.sqrt(staying(present, secure))",
        "math.sqrt(staying(slots, secure))",
        _test(
            "federated/privacy/test_client_noise.py"
            "::test_those_who_stay_have_all_the_noise_that_was_asked_for"
        ),
    ),
    Mutant(
        "clients: who adds noise together follows from the run's seed",
        "federated/sampling.py",
        "not isinstance(federated.noise, config.Local)",
        "isinstance(federated.noise, config.Gaussian)",
        _test(
            "federated/test_sampling.py"
            "::test_who_is_chosen_follows_from_no_seed_where_noise_is_secret"
        ),
    ),
    Mutant(
        "clients: drawn oftener than is accounted for",
        "federated/sampling.py",
        "return lambda round: np.flatnonzero(bernoulli(source, rate, clients))",
        "return lambda round: np.flatnonzero(bernoulli(source, min(1.0, 1.5 * rate), clients))",
        _test(f"{_TERMS}::test_the_rate_that_is_accounted_for_is_that_of_the_cohorts"),
    ),
    Mutant(
        "clients: a pass that is told one round too long",
        "federated/sampling.py",
        "pass_length=length,",
        "pass_length=length + 1,",
        _test(f"{_TERMS}::test_no_client_takes_part_twice_in_a_pass_that_is_accounted_for"),
    ),
)

BUGS = CLIENTS
