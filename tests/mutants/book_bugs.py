"""Seeded bugs of books, ledgers and figures, and of what a config may ask for."""

from tests.mutants.mutant import Law, Mutant

_ACCOUNT = "lepton_jax/training/account.py"
_LEDGER = "lepton_jax/training/ledger.py"
_CONFIG = "lepton_jax/config/federated.py"
_BOOKS = "tests/lepton_jax/training"
_OLDER = "test_a_run_does_not_go_on_with_a_ledger_older_than_its_checkpoint"
_MISUSES = Law("tests/mutants/test_misuses.py")

BOOKS = (
    Mutant(
        "books: a round is charged after it was made",
        "federated/simulate.py",
        "        account.charge(number)\n        return algorithm.apply(state, cohort, key, drawn)",
        "        made = algorithm.apply(state, cohort, key, drawn)\n"
        "        account.charge(number)\n"
        "        return made",
        Law("tests/federated/test_charged_rounds.py::test_a_round_that_dies_is_charged"),
    ),
    Mutant(
        "books: an epoch is charged after it was made",
        "lepton_jax/training/train.py",
        "        parts.account.charge(epoch)\n"
        "        state, total, seconds = yield from _epoch(parts, state, epoch, saved)",
        "        state, total, seconds = yield from _epoch(parts, state, epoch, saved)\n"
        "        parts.account.charge(epoch)",
        Law(f"{_BOOKS}/test_charged_epochs.py::test_an_epoch_that_dies_is_charged"),
    ),
    Mutant(
        "books: steps that a resumed run made before are lost",
        _LEDGER,
        "charged=lambda: releases(entries)",
        "charged=lambda: releases(entries[max(e.index * (e.kind == 'resume') for e in entries) :])",
        Law(f"{_BOOKS}/test_ledger.py::test_a_secure_round_done_again_is_charged_again"),
    ),
    Mutant(
        "books: a secure round done again is not charged again",
        _LEDGER,
        "if not (repeats and content in earlier):",
        "if content not in earlier:",
        Law(f"{_BOOKS}/test_ledger.py::test_a_secure_round_done_again_is_charged_again"),
    ),
    Mutant(
        "books: a simulation goes on with a ledger older than its checkpoint",
        "federated/simulate.py",
        'account.check(out / "checkpoints" / str(restored[0]), restored[2])',
        "pass",
        Law(f"tests/federated/test_charged_rounds.py::{_OLDER}"),
    ),
    Mutant(
        "books: training goes on with a ledger older than its checkpoint",
        "lepton_jax/training/train.py",
        'parts.account.check(out / "checkpoints" / str(restored[0]), restored[2])',
        "pass",
        Law(f"{_BOOKS}/test_charged_epochs.py::{_OLDER}"),
    ),
    Mutant(
        "books: a charge returns before it is on disk",
        "lepton_jax/training/records.py",
        'file.write(json.dumps(record, allow_nan=False) + "\\n")\n'
        "        file.flush()\n"
        "        os.fsync(file.fileno())",
        'file.write(json.dumps(record, allow_nan=False) + "\\n")\n        file.flush()',
        Law(f"{_BOOKS}/test_ledger.py::test_a_charge_is_on_disk_before_it_returns"),
    ),
    Mutant(
        "books: the head of the ledger isn't renewed",
        _LEDGER,
        "        hashes.add(made.hash)\n"
        "        write_bytes(folder / HEAD, chain.head(entries, key))",
        "        hashes.add(made.hash)",
        Law(f"{_BOOKS}/test_ledger.py::test_a_charge_is_on_disk_before_it_returns"),
    ),
    Mutant(
        "books: signatures in the ledger are not looked at",
        "lepton_jax/training/chain.py",
        "    _check_signature(where, found.signature, _ENTRY + found.hash.encode(), public_key)\n",
        "",
        Law(f"{_BOOKS}/test_ledger.py::test_a_thousand_random_edits_are_all_found"),
    ),
    Mutant(
        "books: other terms go on with the same ledger",
        _LEDGER,
        "if then.get(name) != now.get(name):",
        "if name not in then:",
        Law(f"{_BOOKS}/test_ledger.py::test_other_terms_and_other_runs_are_refused"),
    ),
    Mutant(
        "books: a round done again within a pass counts once",
        _ACCOUNT,
        "return promise.releases(number, number in seen and not repeats)",
        "return promise.releases(number, False)",
        Law(
            f"{_BOOKS}/test_account.py::test_a_secure_round_done_again_costs_what_its_promise_says"
        ),
    ),
    Mutant(
        "books: what earlier processes did is forgotten",
        _ACCOUNT,
        'seen = {each["body"]["number"] for each in entries if each["kind"] == "release"}',
        "seen: set[int] = set()",
        Law(
            f"{_BOOKS}/test_account.py::test_a_secure_round_done_again_costs_what_its_promise_says"
        ),
    ),
    Mutant(
        "books: a run stops after its budget, not before",
        _ACCOUNT,
        "after(number) > terms.budget",
        "spent(ledger.charged()) > terms.budget",
        Law(f"{_BOOKS}/test_account.py::test_a_budget_holds_what_just_fits_and_nothing_beyond"),
    ),
    Mutant(
        "figures: raw ones are not called so",
        _ACCOUNT,
        '"not_private": list(names),',
        '"not_private": [],',
        Law(
            f"{_BOOKS}/test_account.py"
            "::test_a_record_tells_epsilon_and_names_what_no_noise_protects"
        ),
    ),
    Mutant(
        "figures: what left each region isn't called raw",
        "federated/records.py",
        'raw.append("egress")',
        "pass",
        Law(
            "tests/federated/test_borders.py"
            "::test_a_region_at_its_budget_stops_and_the_others_go_on"
        ),
    ),
    Mutant(
        "figures: an evaluation of what DP-SGD on clients protects isn't called raw",
        "federated/evaluate.py",
        "federated.noise is not None or federated.example_privacy is not None",
        "federated.noise is not None",
        Law(
            "tests/federated/test_private_runs.py"
            "::test_every_kind_of_noise_trains_and_keeps_its_books"
        ),
    ),
    Mutant(
        "figures: a hypothetical epsilon isn't called so",
        _ACCOUNT,
        '({"hypothetical": True} if terms.hypothetical else {})',
        "{}",
        Law(
            f"{_BOOKS}/test_account.py"
            "::test_a_hypothetical_epsilon_is_called_so_wherever_it_is_told"
        ),
    ),
    Mutant(
        "export: int8 is calibrated on the protected images",
        "lepton_jax/export/calibration.py",
        "    if protected:\n",
        "    if False:\n",
        Law(
            "tests/lepton_jax/export/test_calibration.py"
            "::test_images_of_clients_and_of_the_protected_calibrate_nothing"
        ),
    ),
    Mutant(
        "export: a private run's images are trained on again, by quantization-aware training",
        "lepton_jax/export/fine_tune.py",
        'return None if saved.config.train.privacy is None else "a private run"',
        "return None",
        Law(
            "tests/lepton_jax/export/test_fine_tune.py"
            "::test_images_that_are_not_ours_are_not_trained_on"
        ),
    ),
)

REFUSALS = (
    Mutant(
        "config: weights by example count without a cap",
        _CONFIG,
        'if self.weights != "uniform" and self.weight_cap is None:',
        "if False:",
        _MISUSES,
    ),
    Mutant(
        "config: fixed cohorts with Gaussian noise",
        _CONFIG,
        'if not isinstance(noise, Local) and self.sampling == "fixed":',
        "if False:",
        _MISUSES,
    ),
    Mutant(
        "config: a sum with noise, and nothing that bounds it",
        _CONFIG,
        "if not any(isinstance(stage, Clip | AdaptiveClip) for stage in self.stages):",
        "if False:",
        _MISUSES,
    ),
    Mutant(
        "config: distributed noise where the server sees each update",
        _CONFIG,
        "if isinstance(noise, Distributed) and not isinstance(self.channel, Secure):",
        "if False:",
        _MISUSES,
    ),
    Mutant(
        "config: correlated noise for cohorts chosen at random",
        _CONFIG,
        'if isinstance(noise, Tree | Banded) and self.sampling != "cyclic":',
        "if False:",
        _MISUSES,
    ),
    Mutant(
        "config: two promises of which one is kept",
        _CONFIG,
        "        if self.noise is not None:\n"
        '            raise ValueError("expected noise or example_privacy',
        '        if False:\n            raise ValueError("expected noise or example_privacy',
        _MISUSES,
    ),
)

BUGS = (*BOOKS, *REFUSALS)
