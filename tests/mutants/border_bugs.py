"""Seeded bugs at borders: what leaves a region, and secure sums."""

from tests.mutants.mutant import Law, Mutant, Refusal, Types

_EGRESS = "tests/federated/egress"
_SECURE = "tests/federated/secure"

REGIONS = (
    Mutant(
        "regions: under noise the minimum is checked against the drawn cohort",
        "federated/borders.py",
        "        if not noised:\n            enough",
        "        if True:\n            enough",
        Law(
            "tests/federated/test_borders.py"
            "::test_noise_lets_a_sum_leave_of_however_few_and_its_absence_does_not"
        ),
    ),
    Mutant(
        "regions: without noise a small cohort leaves",
        "federated/egress/gate.py",
        "        if not noised:\n            _check_cohort(policy, cohort)\n",
        "",
        Law(
            f"{_EGRESS}/test_gate.py::test_without_noise_a_cohort_below_the_minimum_does_not_leave"
        ),
    ),
    Mutant(
        "regions: one beyond its budget goes on",
        "federated/egress/rules.py",
        " and spent <= _budget(policy)",
        "",
        Law(
            f"{_EGRESS}/test_egress_rules.py"
            "::test_a_region_at_its_budget_stops_and_the_others_go_on"
        ),
    ),
    Mutant(
        "regions: a replay is accepted",
        "federated/egress/desk.py",
        "if name in books.opened:",
        "if False:",
        Law(f"{_EGRESS}/test_gate.py::test_a_replay_is_refused_and_named"),
    ),
    Mutant(
        "regions: a seal is bound to no round",
        "federated/egress/letters.py",
        "region.encode(), about.round, model",
        "region.encode(), model",
        Law(
            f"{_EGRESS}/test_gate.py"
            "::test_every_part_of_what_a_seal_is_of_changes_what_it_is_bound_to"
        ),
    ),
    Mutant(
        "regions: figures leave that the policy doesn't name",
        "federated/egress/gate.py",
        "for name in figures if name in allowed}",
        "for name in figures}",
        Law(
            f"{_EGRESS}/test_gate.py"
            "::test_figures_that_the_policy_does_not_name_stay_and_are_counted"
        ),
    ),
    Mutant(
        "regions: two sums of one round leave, and tell of their difference",
        "federated/egress/gate.py",
        "if passed.last >= (about.round, about.part):",
        "if passed.last > (about.round, about.part):",
        Law(f"{_EGRESS}/test_gate.py::test_no_second_sum_of_a_round_leaves"),
    ),
)

SECURE = (
    Mutant(
        "secure sums: no mask of a client's own",
        "federated/secure/client.py",
        '[derive(state.seed, context, "self mask", me, me), *added]',
        "added",
        Law(f"{_SECURE}/test_secure_round.py::test_with_nobody_gone_it_is_the_sum_of_all"),
    ),
    Mutant(
        "secure sums: both of a pair add their mask",
        "federated/secure/masks.py",
        "if client < other]",
        "if client != other]",
        Law(f"{_SECURE}/test_secure_masks.py::test_the_lower_client_adds"),
    ),
    Mutant(
        "secure sums: half of the holders give a secret back",
        "federated/secure/plan.py",
        "(shape.degree + 1) // 2 + 1",
        "(shape.degree + 1) // 2",
        Law(
            f"{_SECURE}/test_secure_graph.py"
            "::test_a_threshold_of_at_most_half_or_above_all_is_refused"
        ),
    ),
    Mutant(
        "secure sums: a polynomial of one coefficient less",
        "federated/secure/shamir.py",
        "for _ in range(threshold - 1):",
        "for _ in range(threshold - 2):",
        Law(
            f"{_SECURE}/test_shamir.py::test_a_polynomial_has_as_many_coefficients_as_the_threshold"
        ),
    ),
    Mutant(
        "secure sums: the same masks in every round",
        "federated/secure/keys.py",
        "context.session, context.round, purpose",
        "context.session, purpose",
        Law(f"{_SECURE}/test_secure_keys.py::test_every_part_of_what_a_key_is_for_changes_it"),
    ),
    Mutant(
        "secure sums: keys and masks from the run's seed",
        "federated/secure/channel.py",
        "outcome = simulate_round(plan, vectors, _drops(settings, clients, [seed, mark.number]))",
        "drops = _drops(settings, clients, [seed, mark.number])\n"
        "            outcome = simulate_round(plan, vectors, drops, np.random.default_rng(seed).bytes)",
        Law(
            f"{_SECURE}/test_secure_channel.py"
            "::test_two_sums_of_a_round_have_neither_context_nor_keys_in_common"
        ),
    ),
    Mutant(
        "secure sums: two sums of a round are one session",
        "federated/secure/channel.py",
        "Context(os.urandom(16), mark.number)",
        "Context(bytes(16), mark.number)",
        Law(
            f"{_SECURE}/test_secure_channel.py"
            "::test_two_sums_of_a_round_have_neither_context_nor_keys_in_common"
        ),
    ),
    Mutant(
        "secure sums: a region's cohort isn't looked at, only that of all",
        "federated/parts.py",
        'Counter(home for home in homes if home in sums) if policies else {"": len(homes)}',
        '{"": len(homes)}',
        Law(
            "tests/federated/test_borders.py"
            "::test_a_region_whose_secure_sums_would_stay_closed_is_refused"
        ),
    ),
    Mutant(
        "secure sums: a client tells both secrets of another",
        "federated/secure/client.py",
        "if request.survivors & request.dropouts:",
        "if False:",
        Law(f"{_SECURE}/test_secure_tampering.py::test_tampered_messages_are_found_and_named"),
    ),
    Mutant(
        "secure sums: the modulus wraps",
        "federated/secure/encode.py",
        " or clients * round(clip * scale) > _MOST_SUM",
        "",
        Law(f"{_SECURE}/test_fixed_point.py::test_what_could_wrap_is_refused"),
    ),
    Mutant(
        "secure sums: a client sends its keys and its seed for its masked vector",
        "federated/secure/session.py",
        "view = _send(plan, view, masked, traffic)",
        "view = _send(plan, view, dealt[i], traffic)",
        Types("federated/secure/session.py", 'Argument 3 to "_send" has incompatible type'),
    ),
    Mutant(
        "secure sums: more clients are summed than the noise leaves room for",
        "federated/privacy/make.py",
        "federated.clients_per_round, federated.clients\n",
        "federated.clients_per_round, 10**9\n",
        Refusal(
            "from lepton_jax import config\n"
            "from federated.privacy.make import make_noise\n"
            "from federated.privacy.promise import promise\n"
            "from federated.sampling import make_sampler\n"
            "run = config.Federated(\n"
            "    noise=config.Gaussian(multiplier=1.0), sampling='poisson', weights='uniform',\n"
            "    stages=(config.Clip(max_norm=1.0),))\n"
            "sampler = make_sampler(run, 0)\n"
            "make_noise(run, promise(run, sampler, 1.0).terms, sampler).grid(1.0)\n",
            "noise_multiplier: expected a grid of at least 16 steps",
        ),
    ),
)

BUGS = (*REGIONS, *SECURE)
