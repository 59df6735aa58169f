"""Ways to train signs: each has its own settings, takes no others, and a flag means what its rule says."""

import dataclasses
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rules
from experiments.config import Config, Session, of_command_line
from experiments.configs import CONFIGS
from experiments.running.folder import entered
from experiments.train import main

KINDS = {
    **{f"{name}, paper": (name, "paper") for name in rules.CALIBRATED},
    **{f"{name}, calibrated": (name, "calibrated") for name in rules.CALIBRATED},
    **{name: (name, "calibrated") for name in rules.RULES if name not in rules.CALIBRATED},
}
OTHER = {
    "threshold": 0.25,
    "b1": 0.5,
    "growth": 0.75,
    "b2": 0.625,
    "rms_decay": 0.375,
    "anneal": "cosine",
    "deploy_c": 0.875,
    "bits": 5,
    "rho": 1.25,
    "rise": 0.3125,
    "latent_momentum": 0.4375,
    "average": 0.5625,
    "momentum_dtype": "int16",
    "latent_learning_rate": 0.125,
    "packed": True,
    "trace": "ndot",
    "backward_steps": 1,
}
"""A value of every setting that is a rule's business, and nobody's default."""


def test_every_rule_has_a_name_on_the_command_line_and_every_setting_a_flag():
    assert typing.get_args(rules.OptimizerName) == tuple(rules.RULES)
    assert set(OTHER) == {*rules.SETTINGS, *rules.REFUSED}
    fields = {field.name: field.default for field in dataclasses.fields(Config)}
    assert all(fields[name] in (None, False, "float32") for name in OTHER)  # left out, a rule's own default holds
    labels = [rules.kind_of(*kind).label for kind in KINDS.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("setting", OTHER)
@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_reaches_a_rule_that_has_it_and_is_refused_by_name_elsewhere(kind, setting):
    optimizer, preset = KINDS[kind]
    config = Config("digits", optimizer=optimizer, preset=preset, **{setting: OTHER[setting]})
    found = rules.kind_of(optimizer, preset)
    if setting in rules.settings_of(found):
        assert config.rule() == found(**{setting: OTHER[setting]})
        config.check()
    elif setting in rules.SETTINGS or setting in found.refuses:
        with pytest.raises(ValueError, match=rf"^{rules.flag(setting)}: '{optimizer}' .*leave (it|the flag) out\b"):
            config.check()
    else:
        assert config.rule() == found()
        config.check()


def test_a_refused_flag_ends_the_command_with_one_line_and_status_2(tmp_path, capsys):
    arguments = ["digits", "--preset", "paper", "--growth", "0.3", "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: --growth: 't-bso' with --preset paper has no such setting; omit it. It has --threshold, --b1, "
        "--b2, --momentum-dtype.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_makes_an_optimizer_that_turns_signs_against_their_gradient(kind):
    rule = rules.kind_of(*KINDS[kind])()
    tx = rule.flip_optimizer(updates=120, num_steps=1, seed=0)
    signs = {"kernel": jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, 5)), bool)}
    state = tx.init(signs)
    update = jax.jit(lambda grads, state: tx.update(grads, state, signs, time_step=0))
    against = {"kernel": jnp.where(signs["kernel"], 1.0, -1.0)}  # the descent turns every sign
    turned = 0
    for _ in range(120):
        deltas, state = update(against, state)
        assert deltas["kernel"].dtype == jnp.int8
        turned += int(jnp.sum(deltas["kernel"] != 0))
    assert turned > 0


def command_line(name, *words):
    """The config that a command line gives, with its options in the place of the named config's."""
    base = CONFIGS[name][1]
    pairs = zip(words[::2], words[1::2], strict=True)
    options = {word.removeprefix("--").replace("-", "_"): value for word, value in pairs}
    return of_command_line(dataclasses.replace(base, **options), base, [name, *map(str, words)])


def test_what_a_config_wrote_for_its_own_rule_is_not_taken_for_another_quantity():
    name = "imagenet-resnet18-phase2"  # the paper's, with a threshold and a decay of its own
    own = CONFIGS[name][1]
    assert command_line(name, "--num-steps", 6).rule() == own.rule() == rules.RULES["t-bso"](1e-11, 1 - 1e-8)
    assert command_line(name, "--optimizer", "bso").rule() == rules.RULES["bso"](1e-11, 1 - 1e-8)  # of the paper too
    assert command_line(name, "--preset", "calibrated").rule() == rules.CALIBRATED["t-bso"]()
    assert command_line(name, "--optimizer", "bop").rule() == rules.RULES["bop"]()
    assert command_line(name, "--optimizer", "sltt").rule() == rules.RULES["sltt"]()  # which refuses thresholds
    typed = command_line(name, "--preset", "calibrated", "--threshold", 1e-11)
    assert typed.rule() == rules.CALIBRATED["t-bso"](threshold=1e-11)
    with pytest.raises(ValueError, match="--preset: 'sltt' has only its authors' settings"):
        command_line(name, "--optimizer", "sltt", "--preset", "paper")
    refused = command_line(name, "--optimizer", "sltt", "--b1", 0.5)
    with pytest.raises(ValueError, match="--b1: 'sltt' has no such setting"):
        refused.check()


def test_a_run_goes_on_that_was_started_with_a_setting_that_its_rule_never_had(tmp_path):
    config = Config("digits", optimizer="sltt", output=tmp_path / "run", session=Session(resume=True))

    def enter(**written):
        path = tmp_path / "run" / "config.json"
        if path.exists():
            about = json.loads(path.read_text())
            about.pop("checksum", None)  # older versions wrote none
            path.write_text(json.dumps(about | {"config": about["config"] | written}))
        with entered(config, "digits", {}):
            pass

    enter()
    enter(threshold=5e-7)  # as cifar10-vgg11 has it, which was ignored
    with pytest.raises(ValueError, match=r"--latent-learning-rate was 0\.5 and is None"):
        enter(latent_learning_rate=0.5)
