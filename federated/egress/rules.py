"""Whether a run keeps to its regions' policies, and which regions take part in a round."""

import math
from collections.abc import Mapping

from federated.policy import Policy
from lepton_jax import config
from lepton_jax.checks import UserError


def check_policies(
    policies: Mapping[str, Policy], federated: config.Federated, clients: Mapping[str, int]
) -> dict[str, str]:
    """Refuses a run that a policy forbids, and names the regions that contribute nothing to it.

    *Guarantee.* Of a run that passes, no region's data are in a released update without the noise,
    the delta and the cohort that its policy asks for.

    With noise for each client, the minimum is checked here and once, against the *expected*
    cohort: the sampling rate times the region's clients, which are public. It must never be
    checked against the drawn one: if a region were left out because its cohort is one too small,
    one client more would bring the updates of minimum_cohort - 1 others into the sum along with
    its own, which no bound on one client's update covers, and the region's absence would tell that
    the client wasn't drawn. So a region with noise contributes in every round, of an empty cohort
    a sum of zeros. Without such noise the cohort that was drawn is checked in each round, by
    `large_enough` and by the gate, and a smaller one doesn't leave; here a minimum is refused that
    no cohort could reach. Noise for each example is no matter: who is drawn doesn't depend on any
    example.

    | edge                                              | result                                   |
    |---------------------------------------------------|------------------------------------------|
    | outputs without update                            | contributes nothing, is named            |
    | a region without clients                          | contributes nothing, is named            |
    | no policy allows an update                        | UserError                                |
    | a policy with an epsilon, a run without noise     | UserError                                |
    | a policy with an epsilon, a hypothetical one told | UserError                                |
    | delta of the run above the policy's               | UserError                                |
    | noise, the expected cohort exactly the minimum    | allowed                                  |
    | noise, the expected cohort below the minimum      | UserError, whatever would be drawn       |
    | no noise, no cohort as large as the minimum       | UserError                                |

    Args:
      policies: by region.
      federated: the run's settings.
      clients: how many there are in each region of the run.

    Returns:
      Why a region contributes nothing, by region; empty where all do.

    Raises:
      UserError: as in the table; one line that names region and setting.
    """
    silent = {}
    for region, policy in policies.items():
        if "update" not in policy.outputs:
            silent[region] = f"region {region}: its policy lets no update out"
        elif not clients.get(region, 0):
            silent[region] = f"region {region}: it has no clients"
        else:
            _check_privacy(policy, federated)
            _check_cohort(policy, federated, clients[region])
    if len(silent) == len(policies):
        raise UserError("federated.policies", "a region that contributes updates", "none")
    return silent


def _check_privacy(policy: Policy, federated: config.Federated) -> None:
    if policy.epsilon is None or policy.delta is None:
        return
    place, budget = f"policy of region {policy.region}", f"its epsilon of {policy.epsilon:g}"
    example = federated.example_privacy
    if federated.noise is None and example is None:
        remedy = "set federated.noise or federated.example_privacy"
        raise UserError(place, f"noise, for {budget}", "a run without any", remedy)
    if federated.hypothetical is not None:
        expected = f"noise for the run's own clients, for {budget}"
        raise UserError(place, expected, "federated.hypothetical", "leave it out")
    deltas = {"federated.delta": federated.delta} if federated.noise is not None else {}
    if example is not None:
        deltas["federated.example_privacy.delta"] = example.delta
    for key, delta in deltas.items():
        if delta > policy.delta:
            expected = f"at most {policy.delta:g}, by the {place}"
            raise UserError(key, expected, delta, f"set {key}={policy.delta:g}")


def _check_cohort(policy: Policy, federated: config.Federated, clients: int) -> None:
    drawn, everybody, least = federated.clients_per_round, federated.clients, policy.minimum_cohort
    largest = clients if federated.sampling == "poisson" else min(drawn, clients)
    if federated.noise is None:
        enough, found = largest >= least, f"{largest}, the largest cohort"
    else:  # in whole numbers, so that no rounding decides
        enough = drawn * clients >= least * everybody
        found = f"{drawn * clients / everybody:.4g}, the expected cohort"
    if not enough:
        raise UserError(
            f"policy of region {policy.region}: minimum_cohort",
            f"at most {found} of its {clients} clients",
            least,
            "raise federated.clients_per_round, or leave the region out",
        )


def contributing(policies: Mapping[str, Policy], spent: float) -> tuple[str, ...]:
    """The regions that may take part in the next round; the others have stopped.

    *Guarantee.* No region's data are used beyond its policy's epsilon. Who stops follows from the
    policies and from what the round costs, both public: the choice itself tells nothing. Since
    epsilon never falls, a region that has stopped stays so.

    | spent                         | regions                                        |
    |-------------------------------|------------------------------------------------|
    | exactly a policy's epsilon    | it goes on                                     |
    | inf: a round without noise    | those whose policy lets updates out without it |
    | NaN, negative                 | UserError                                      |
    | above every policy's epsilon  | none                                           |

    Args:
      policies: by region.
      spent: epsilon after the next round, of the unit that the policies are for; inf without noise.

    Returns:
      The regions' names, in the order of `policies`.

    Raises:
      UserError: `spent` is no epsilon.
    """
    if not spent >= 0:  # NaN compares false
        raise UserError("spent", "an epsilon of at least 0", spent)
    return tuple(
        region
        for region, policy in policies.items()
        if "update" in policy.outputs and spent <= _budget(policy)
    )


def _budget(policy: Policy) -> float:
    return math.inf if policy.epsilon is None else policy.epsilon


def large_enough(policies: Mapping[str, Policy], drawn: Mapping[str, int]) -> tuple[str, ...]:
    """The regions whose drawn cohort reaches their minimum: for runs without noise for each client.

    With such noise it must not be asked; why not is told in `check_policies`.

    Args:
      policies: by region.
      drawn: clients drawn in this round, by region; 0 where a region is missing.

    Returns:
      The regions' names, in the order of `policies`.
    """
    return tuple(r for r, policy in policies.items() if drawn.get(r, 0) >= policy.minimum_cohort)
