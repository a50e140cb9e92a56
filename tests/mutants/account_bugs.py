"""Seeded bugs of accounting, and of the whole numbers that noise is made of."""

from tests.mutants.mutant import Law, Mutant, Refusal

_PROMISE = "federated/privacy/promise.py"
_RUNNING = "lepton_jax/privacy/running.py"
_GRID = "lepton_jax/privacy/grid.py"
_LATTICE = "lepton_jax/privacy/lattice.py"
_TERMS = "federated/privacy/test_promise.py"


def _test(of: str) -> Law:
    return Law(f"tests/{of}")


ACCOUNTING = (
    Mutant(
        "accounting: a rate that no cohort has",
        _PROMISE,
        "return meant.clients_per_round / meant.clients",
        "return meant.clients_per_round / (2 * meant.clients)",
        _test(f"{_TERMS}::test_the_rate_that_is_accounted_for_is_that_of_the_cohorts"),
    ),
    Mutant(
        "accounting: local noise by add-remove",
        _PROMISE,
        '"replace-one" if local else federated.adjacency',
        "federated.adjacency",
        Refusal(
            "from lepton_jax import config\n"
            "from federated.privacy.promise import promise\n"
            "from federated.sampling import make_sampler\n"
            "local = config.Federated(noise=config.Local(multiplier=3.0), weights='uniform',\n"
            "                         stages=(config.Clip(max_norm=1.0),))\n"
            "promise(local, make_sampler(local, 0), 1.0)\n",
            "adjacency: expected replace-one with local noise",
        ),
    ),
    Mutant(
        "accounting: a round done again within a pass counts once",
        _PROMISE,
        "(sampler.pass_length or 1) if again else 1",
        "1",
        _test(
            f"{_TERMS}"
            "::test_a_cyclic_round_done_again_is_charged_a_whole_pass_and_a_poisson_one_once"
        ),
    ),
    Mutant(
        "accounting: a client's local steps count as one release",
        _PROMISE,
        "lambda number, again: steps * by_client(number, again)",
        "by_client",
        _test(f"{_TERMS}::test_every_local_step_is_a_release_of_the_examples_in_it"),
    ),
    Mutant(
        "accounting: discrete noise as if it were normal",
        _RUNNING,
        'discrete=terms.mechanism == "distributed"',
        "discrete=False",
        _test("lepton_jax/privacy/test_running.py::test_terms_are_accounted_for_what_they_say"),
    ),
    Mutant(
        "accounting: discrete noise by privacy loss distributions",
        _RUNNING,
        'if discrete and accountant == "pld":',
        "if False:",
        _test(
            "lepton_jax/privacy/test_accounting.py"
            "::test_what_no_accountant_knows_is_refused_with_a_reason"
        ),
    ),
    Mutant(
        "accounting: a replaced unit as one added",
        _RUNNING,
        'noise_multiplier, adjacency = noise_multiplier / 2, "add-remove"',
        'adjacency = "add-remove"',
        _test(
            "lepton_jax/privacy/test_accounting.py"
            "::test_a_replaced_unit_that_is_always_there_needs_twice_the_noise"
        ),
    ),
    Mutant(
        "accounting: a sampled unit that is replaced as one added",
        "lepton_jax/privacy/composition.py",
        'relation.REPLACE_ONE if adjacency == "replace-one" else relation.ADD_OR_REMOVE_ONE',
        "relation.ADD_OR_REMOVE_ONE",
        _test(
            "lepton_jax/privacy/test_accounting.py"
            "::test_known_figures_of_a_replaced_unit_and_of_a_tree"
        ),
    ),
    Mutant(
        "accounting: a tree's nodes count as one a pass",
        "lepton_jax/privacy/events.py",
        "return whole * event.length.bit_length() + rest.bit_length()",
        "return whole + (rest > 0)",
        _test("lepton_jax/privacy/test_events.py"),
    ),
    Mutant(
        "accounting: Poisson's epsilon for shuffled cohorts",
        _RUNNING,
        'if terms.sampler == "fixed":',
        "if False:",
        _test(
            "lepton_jax/privacy/test_running.py::test_terms_that_nothing_accounts_for_are_refused"
        ),
    ),
    Mutant(
        "accounting: noise a little less than the budget needs",
        "lepton_jax/privacy/accounting.py",
        "    return enough\n",
        "    return little\n",
        _test(
            "lepton_jax/privacy/test_accounting.py::test_the_noise_found_is_enough_and_hardly_more"
        ),
    ),
)

GRID = (
    Mutant(
        "grid: rounding enlarges the norm",
        _GRID,
        "return trees.select(fits, nearest, trees.select(falls, shorter, zeros))",
        "return nearest",
        _test(
            "lepton_jax/privacy/test_grid.py"
            "::test_many_small_numbers_are_rounded_towards_zero_where_the_nearest_are_too_long"
        ),
    ),
    Mutant(
        "grid: no room for the rounding of an example's gradient",
        _GRID,
        "limit = grid.bound * trees.NORM_ROOM - math.sqrt(size) / 2",
        "limit = float(grid.bound)",
        _test(
            "lepton_jax/privacy/test_grid.py"
            "::test_a_share_clipped_to_the_sure_limit_stays_within_the_bound"
        ),
    ),
    Mutant(
        "grid: a step longer than was said, with the noise of the shorter",
        _GRID,
        "return Grid(bound / steps, steps, multiplier * steps)",
        "return Grid(bound / steps, steps, multiplier * (steps // 2))",
        _test("lepton_jax/privacy/test_grid.py::test_the_grid_is_as_fine_as_it_may_be"),
    ),
    Mutant(
        "grid: the modulus wraps",
        _GRID,
        "room = most / (shares + (REACH + 1) * multiplier)",
        "room = most / (1 + (REACH + 1) * multiplier)",
        _test(
            "federated/test_aggregate.py::test_no_sum_of_most_clients_and_the_greatest_noise_wraps"
        ),
    ),
    Mutant(
        "lattice: ties are not decided by further bits",
        _LATTICE,
        "for i in tied:",
        "for i in tied[:0]:",
        _test("lepton_jax/privacy/test_lattice.py::test_further_bits_decide_at_a_boundary"),
    ),
    Mutant(
        "lattice: the table of half the deviation",
        _LATTICE,
        "exponent = 1 / Fraction(deviation) ** 2",
        "exponent = 4 / Fraction(deviation) ** 2",
        _test("lepton_jax/privacy/test_lattice.py::test_known_probabilities_of_small_deviations"),
    ),
    Mutant(
        "lattice: noise that is never negative",
        _LATTICE,
        "return (k ^ -negative) + negative",
        "return k",
        _test("lepton_jax/privacy/test_lattice.py::test_a_flipped_sign_bit_flips_the_number"),
    ),
)

BUGS = (*ACCOUNTING, *GRID)
