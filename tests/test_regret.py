"""The regret experiment: its hindsight, its rounds, its fit, and what its committed result is claimed to show."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fast_and_slow import often

import bsojax
from experiments import regret, regret_picture, regret_problems

COMMITTED = Path(__file__).parent.parent / "docs/results/regret.json"
SMALL = regret.Settings(rounds=200, seeds=3, points=9, fit_from=20, resamples=100)
FROZEN = regret.Rule("frozen", lambda: bsojax.bso(math.inf), None)
FIXED = (
    regret_problems.linear("linear", "", 0, "", np.array([0.0, 0.1, 0.3, 0.5, 1.0])),
    regret_problems.linear("shrinking", "", 0, "", np.array([0.2, 0.9, 1.0]), 1 / 4),
    regret_problems.regression("corner", "", 0, "", 4, 1.0),
    regret_problems.regression("interior", "", 0, "", 5, 0.5),
)
each_fixed = pytest.mark.parametrize("problem", FIXED, ids=lambda problem: problem.name)
rules = {rule.name: rule for rule in regret.RULES}
each_rule = pytest.mark.parametrize("rule", often(rules, "BSO, theorem's schedules", "T-BSO, calibrated, deployed"))


@pytest.fixture(scope="module")
def committed():
    return json.loads(COMMITTED.read_text())


def of_seed(data, seed):
    return jax.tree.map(lambda leaf: leaf[seed], data)


def totals(problem, data):
    """Every sign vector and its running total loss, (2^n, rounds), by the problem's own loss."""
    signs = np.array(list(itertools.product([False, True], repeat=problem.size)))
    weights = bsojax.to_weights(jnp.asarray(signs))
    losses = jax.vmap(lambda w: jax.vmap(lambda row: problem.loss(w, row))(data))(weights)
    return signs, np.cumsum(np.asarray(losses, np.float64), axis=1)


@each_fixed
def test_hindsight_is_the_minimum_over_all_sign_vectors(problem):
    data, signs = regret.draw(problem, SMALL)
    ks = SMALL.checkpoints()
    for seed in range(SMALL.seeds):
        _, total = totals(problem, of_seed(data, seed))
        np.testing.assert_allclose(problem.best(of_seed(data, seed), signs, ks), total.min(axis=0)[ks - 1], rtol=1e-12)


@each_fixed
def test_best_fixed_signs_have_no_regret_and_others_have_some(problem):
    data, _ = regret.draw(problem, SMALL)
    orders = []
    for seed in range(SMALL.seeds):
        signs, total = totals(problem, of_seed(data, seed))
        orders.append(signs[np.argsort(total[:, -1])[[0, -1]]])
    last = np.array([SMALL.rounds])
    for column, has_regret in ((0, False), (1, True)):
        losses, played = regret.play(FROZEN, problem, data, np.stack(orders)[:, column])
        for seed in range(SMALL.seeds):
            value = regret.regret(problem, of_seed(data, seed), losses[seed], played[seed], last)[0]
            assert (value > 1) == has_regret
            assert has_regret or value == 0


def test_hidden_signs_win_in_hindsight_where_gaps_are_clear():
    problem = regret_problems.linear("clear", "", 0, "", np.full(6, 0.8))
    data, _ = regret.draw(problem, SMALL)
    for seed in range(SMALL.seeds):
        share = data[seed].mean(axis=0)
        np.testing.assert_allclose(np.abs(2 * share - 1), 0.8, atol=0.15)  # the sum is minus the gap times the sign


def test_shrinking_gaps_follow_their_power():
    problem = regret_problems.linear("shrinking", "", 0, "", np.full(400, 1.0), 1 / 4)
    positive = problem.draw(np.random.default_rng(0), 10_000)
    lean = 2 * positive[:100].mean(axis=0) - 1
    gap = np.abs(2 * positive[9000:].mean(axis=0) - 1)
    assert abs(np.mean(gap) - 9500**-0.25) < 0.005
    assert np.all(np.sign(lean) == np.sign(2 * positive[9000:].mean(axis=0) - 1))


@each_fixed
def test_rounds_equal_a_plain_loop_of_the_flip_rule(problem):
    settings = dataclasses.replace(SMALL, seeds=2)
    data, first = regret.draw(problem, settings)
    losses, played = regret.play(regret.RULES[0], problem, data, first)
    gradient = jax.jit(jax.value_and_grad(problem.loss))
    for seed in range(settings.seeds):
        weights, momentum = np.where(first[seed], np.float32(1), np.float32(-1)), np.zeros(problem.size, np.float32)
        for k in range(settings.rounds):
            value, g = gradient(weights, of_seed(data, (seed, k)))
            assert losses[seed, k] == value
            np.testing.assert_array_equal(played[seed, k], weights > 0, err_msg=f"round {k + 1}")
            rate = np.float32(1 / math.sqrt(k + 1))
            momentum = (1 - rate) * momentum + rate * np.asarray(g)
            weights = np.where(weights * momentum > rate, -weights, weights)


def test_at_threshold_zero_the_two_optimizers_play_alike():
    problem = FIXED[2]
    data, first = regret.draw(problem, SMALL)
    zero = regret.Rule("t", lambda: bsojax.t_bso(0.0, regret.NUM_STEPS, regret.rising_b1), None)
    for one, other in zip(
        regret.play(regret.RULES[2], problem, data, first), regret.play(zero, problem, data, first), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@each_rule
def test_adversary_costs_every_rule_n_a_round(rule):
    problem = regret_problems.PROBLEMS[-1]
    data, first = regret.draw(problem, SMALL)
    losses, played = regret.play(rule, problem, data, first)
    ks = SMALL.checkpoints()
    np.testing.assert_array_equal(losses, problem.size)
    weights = np.where(played, 1, -1)
    for seed in range(SMALL.seeds):
        value = regret.regret(problem, data[seed], losses[seed], played[seed], ks)
        sums = np.abs(np.cumsum(weights[seed], axis=0)).sum(axis=1)[ks - 1]
        np.testing.assert_array_equal(value, problem.size * ks + sums)


def test_result_is_the_same_again_and_is_json():
    problems, rules = (FIXED[0], FIXED[3]), regret.RULES[:2]
    lines = []
    one, other = (regret.measure(SMALL, lines.append, problems, rules) for _ in range(2))
    assert json.loads(json.dumps(one)) == other
    assert len(lines) == 8
    assert one["problems"]["linear"]["rules"][rules[0].name]["mean"][-1] > 0


def test_a_seed_draws_the_same_whatever_the_number_of_seeds():
    few, many = (regret.draw(FIXED[2], dataclasses.replace(SMALL, seeds=seeds)) for seeds in (2, 5))
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(one, other[:2])
        assert not np.array_equal(other[0], other[1])


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0])
def test_exponent_of_a_power_law_is_found_with_an_interval_that_covers_it(power):
    settings = regret.Settings()
    ks = settings.checkpoints()
    noise = np.random.default_rng(3).lognormal(sigma=0.3, size=(16, len(ks)))
    exact = regret.exponent(np.tile(7 * ks**power, (4, 1)), ks, settings)
    assert max(abs(value - power) for value in exact.values()) < 1e-9
    fit = regret.exponent(7 * ks**power * noise, ks, settings)
    assert fit["low"] < power < fit["high"]
    assert fit["low"] < fit["value"] < fit["high"] < fit["low"] + 0.3


def test_exponent_is_none_where_regret_is_not_positive_and_ignores_the_early_rounds():
    settings = regret.Settings()
    ks = settings.checkpoints()
    curve = np.tile(ks**0.5, (3, 1))
    early = np.where(ks < settings.fit_from, -1.0, curve)
    assert abs(regret.exponent(early, ks, settings)["value"] - 0.5) < 1e-9
    assert regret.exponent(-curve, ks, settings) is None


def test_schedules_are_the_theorems():
    counts = jnp.array([0, 3, 99_999])
    np.testing.assert_allclose(regret.inverse_root(counts), [1, 0.5, 1e5**-0.5], rtol=1e-6)
    np.testing.assert_allclose(1 - regret.rising_b1(counts), [1, 0.5, 1e5**-0.5], rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "option"), [({"seeds": 1}, "--seeds"), ({"rounds": 5_000}, "--rounds"), ({"fit_from": 1}, "--fit-from")]
)
def test_bad_settings_are_named_before_any_work(change, option, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        regret.main(tmp_path / "out.json", settings=dataclasses.replace(regret.Settings(), **change))
    assert stop.value.code == 2
    assert option in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_table_is_bold_only_where_prediction_and_interval_exceed_the_bound(committed):
    lines = [line.strip("| ").split(" | ") for line in regret.markdown(committed).splitlines() if line.startswith("| ")]
    (_, *problems), _, _, *rows = lines
    bold = [{name for name, cell in zip(problems, cells, strict=True) if "**" in cell} for _, *cells in rows]
    assert bold[0] == {"shrinking gaps", "corner", "interior", "adversary"}
    assert bold[1] == {"interior", "adversary"}
    assert len(rows) == len(regret.RULES)
    assert not any(bold[2:])


def test_deployed_signs_pay_where_those_that_are_trained_keep_flipping(committed):
    interior = committed["problems"]["interior"]["rules"]
    assert interior["T-BSO, calibrated"]["exponent"]["low"] > 0.9
    assert interior["T-BSO, calibrated, deployed"]["exponent"]["high"] < 0.5


def test_picture_is_a_png_about_900_pixels_wide(committed, tmp_path):
    regret_picture.draw(tmp_path / "regret.png", committed)
    header = (tmp_path / "regret.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(header[16:20], "big") == 900


def test_committed_result_belongs_to_this_code(committed):
    assert committed["settings"] == dataclasses.asdict(regret.Settings())
    assert committed["settings"]["rounds"] >= 100_000
    assert committed["settings"]["seeds"] >= 8
    assert committed["bounds"] == {rule.name: rule.bound for rule in regret.RULES}
    assert committed["rounds"] == regret.Settings().checkpoints().tolist()
    assert committed["command"].startswith("python -m experiments.regret ")
    for problem in regret_problems.PROBLEMS:
        row = committed["problems"][problem.name]
        assert row["predicted"] == problem.predicted
        assert (row["title"], row["reason"], row["size"]) == (problem.title, problem.reason, problem.size)


def test_committed_exponents_are_the_slopes_of_the_committed_curves(committed):
    ks = np.array(committed["rounds"])
    late = ks >= committed["settings"]["fit_from"]
    for problem in committed["problems"].values():
        for row in problem["rules"].values():
            slope = np.polyfit(np.log(ks[late]), np.log(np.array(row["mean"])[late]), 1)[0]
            assert abs(slope - row["exponent"]["value"]) < 1e-4
            assert row["exponent"]["low"] <= row["exponent"]["value"] + 1e-9
            assert row["exponent"]["value"] <= row["exponent"]["high"] + 1e-9


def test_committed_exponents_are_near_the_predictions_for_the_theorems_schedules(committed):
    for problem in committed["problems"].values():
        for rule in regret.RULES[:3]:  # threshold 0 differs little from the theorem's
            assert abs(problem["rules"][rule.name]["exponent"]["value"] - problem["predicted"]) < 0.08


def test_committed_result_shows_where_the_bounds_hold_and_where_not(committed):
    def fit(problem, rule):
        return committed["problems"][problem]["rules"][regret.RULES[rule].name]["exponent"]

    bso, tbso, paper, constant, mean = 0, 1, 3, 5, 6
    for problem in ("clear", "undecided", "even gaps", "shrinking gaps", "corner"):
        assert fit(problem, tbso)["value"] < 0.75 + 0.02
    for problem in ("shrinking gaps", "corner"):
        assert fit(problem, bso)["low"] > 0.6  # above BSO's bound of 1/2
    for problem in ("interior", "adversary"):
        assert min(fit(problem, bso)["low"], fit(problem, tbso)["low"]) > 0.9
    assert fit("clear", constant)["low"] > 0.99  # a constant threshold above the gaps never flips
    assert abs(fit("interior", constant)["value"]) < 0.05  # one at the curvature solves what the falling one cannot
    assert fit("corner", paper)["low"] > 0.8
    for problem in ("clear", "even gaps", "shrinking gaps", "corner"):
        assert fit(problem, mean)["value"] < 0.55  # the plain mean of the gradients keeps BSO's bound


def test_committed_regret_without_gaps_is_that_of_a_random_walk(committed):
    undecided = committed["problems"]["undecided"]
    expected = undecided["size"] * math.sqrt(2 * committed["rounds"][-1] / math.pi)
    for row in undecided["rules"].values():
        error = row["deviation"][-1] / math.sqrt(committed["settings"]["seeds"])
        assert abs(row["mean"][-1] - expected) < 4 * error
