"""What an export can't be asked for is refused before anything is loaded or converted."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jax import config, config_files
from lepton_jax.checks import UserError
from lepton_jax.export.settings import VARIANTS, settled
from lepton_jax.training import SavedRun
from lepton_jax.typing import Variables


def saved(tmp_path: Path, kind: Any = "train", **changes: Any) -> SavedRun:
    run = msgspec.structs.replace(config.Run(model=config.Model(name="keras_cnn")), **changes)
    (tmp_path / "config.toml").write_text(config_files.dumps(run))
    return SavedRun(tmp_path, run, kind, {}, Variables({}, {}))


def test_settings_change_for_once_and_leave_the_rest(tmp_path: Path) -> None:
    run = saved(tmp_path)
    found = settled(run, ["export.about.author=Ada", "data.labels.de=['a', 'b']"], ["int8"])
    assert found.config.export.about.author == "Ada"
    assert found.config.data.labels == {"de": ("a", "b")}
    assert found.config.export.variants == ("int8",)
    assert found.config.train == run.config.train
    assert settled(run).config == run.config


def test_labels_may_be_given_whole_or_one_locale_at_a_time(tmp_path: Path) -> None:
    whole = settled(saved(tmp_path), ["data.labels={de=['a', 'b']}"])
    assert whole.config == settled(saved(tmp_path), ["data.labels.de=['a', 'b']"]).config


def test_all_is_every_variant_that_the_run_can_have(tmp_path: Path) -> None:
    assert settled(saved(tmp_path), (), ["all"]).config.export.variants == VARIANTS
    federated = settled(saved(tmp_path, "simulate"), (), ["all"]).config.export.variants
    assert set(VARIANTS) - set(federated) == {"int8-qat"}


@pytest.mark.parametrize("variants", [["int3"], ["float32", "int3"], []])
def test_unknown_variants_are_refused(tmp_path: Path, variants: list[str]) -> None:
    with pytest.raises(UserError, match=r"variants: expected all, or some of float32, .*, got"):
        settled(saved(tmp_path), (), variants)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epochs=3"], "expected a key of export or data.labels"),
        (["export.nothing=3"], "export.nothing: expected one of"),
        (["export.about.locales=['english']"], "english"),
        (["export.about.locales=['xq']"], "xq"),
        (["export.about.locales=['de_DE']"], "write it as de, pt-BR or zh-Hant-TW"),
        (["data.labelled={}"], "expected a key of export or data.labels"),
        (["data.labels={de=['a'], fr=['a', 'b']}"], "as many labels in 'fr'"),
        (["export.interface.input=int8"], "export.interface.input: expected a type that float32"),
        (["export.calibration.images_per_class=0"], "images_per_class"),
        (["export.calibration.percentile=0.5"], "percentile"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        settled(saved(tmp_path), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_federated_run_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for int8-qat, got a federated run"):
        settled(saved(tmp_path, "simulate"), (), ["int8-qat"])


def test_what_a_phone_cannot_train_is_refused(tmp_path: Path) -> None:
    signatures = "export.signatures=['infer', 'train']"
    run = saved(tmp_path, model=config.Model(name="resnet8"))
    with pytest.raises(UserError, match=r"model\.norm: expected 'group' or 'none'"):
        settled(run, [signatures])
    run = saved(tmp_path, model=config.Model(name="resnet8", norm="group"))
    with pytest.raises(UserError, match=r"export\.interface: expected probabilities or logits"):
        settled(run, [signatures, "export.interface.output=top_k"])
