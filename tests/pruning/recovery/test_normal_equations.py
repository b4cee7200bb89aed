"""Normal equations and their damped solutions against direct computations."""

from __future__ import annotations

import pytest
import torch

from pruning.recovery.solvers.activation_buffer import ActivationBuffer, equations
from pruning.recovery.solvers.dual import DualNormalEquations
from pruning.recovery.solvers.layer_fit import OutputProjectionFit, best_damping
from pruning.recovery.solvers.normal_equations import DAMPINGS, DEFAULT_DAMPING, NormalEquations

TOKENS, INPUTS, OUTPUTS = 200, 12, 7


def _data(seed: int = 0, tokens: int = TOKENS):
    """Correlated inputs with a mean, targets near a linear map, present weights off it."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x = normal(tokens, INPUTS) @ normal(INPUTS, INPUTS) + 2.0 * normal(INPUTS)
    true = normal(INPUTS, OUTPUTS)
    target = x @ true + normal(OUTPUTS) + 0.3 * normal(tokens, OUTPUTS)
    return x.float(), target.float(), true + 0.2 * normal(INPUTS, OUTPUTS), normal(OUTPUTS)


def _equations(x, target):
    found = NormalEquations.zeros(x.shape[-1], target.shape[-1], torch.device("cpu"))
    found.add(x, target)
    return found


def _exact(x, target):
    """The same sums from float64 products, so that only the solving is tested."""
    x, t = x.double(), target.double()
    return NormalEquations(len(x), x.T @ x, x.T @ t, x.sum(0), t.sum(0), t.square().sum())


def _augmented(x, target, present, damping):
    """Ridge toward ``present`` as extra rows of an ordinary least-squares problem."""
    x, target = x.double(), target.double()
    ridge = (damping * x.square().sum(0).mean()).sqrt()
    rows = torch.cat([x, ridge * torch.eye(x.shape[1], dtype=torch.float64)])
    return torch.linalg.lstsq(rows, torch.cat([target, ridge * present])).solution


@pytest.mark.parametrize("damping", [1e-6, 0.01, 0.3, 30.0])
def test_solution_is_that_of_the_augmented_system(damping):
    x, target, present, _ = _data()
    weight, bias = _exact(x, target).solve(present, None, damping, intercept=False)
    assert bias is None
    expected = _augmented(x, target, present, damping)
    torch.testing.assert_close(weight, expected, rtol=1e-7, atol=1e-8)


def test_a_fixed_bias_is_taken_off_the_target():
    x, target, present, given = _data(1)
    weight, bias = _exact(x, target).solve(present, given, 0.1, intercept=False)
    assert torch.equal(bias, given)
    expected = _augmented(x, target.double() - given, present, 0.1)
    torch.testing.assert_close(weight, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("given", [True, False])
def test_a_free_intercept_is_a_column_of_ones_without_ridge(given):
    x, target, present, start = _data(2)
    weight, bias = _exact(x, target).solve(present, start if given else None, 0.1, True)
    ones = torch.cat([x.double(), torch.ones(TOKENS, 1, dtype=torch.float64)], dim=1)
    centred = x.double() - x.double().mean(0)
    ridge = (0.1 * centred.square().sum(0).mean()).sqrt()
    extra = torch.cat(
        [ridge * torch.eye(INPUTS, dtype=torch.float64), torch.zeros(INPUTS, 1)], dim=1
    )
    expected = torch.linalg.lstsq(
        torch.cat([ones, extra]), torch.cat([target.double(), ridge * present])
    ).solution
    torch.testing.assert_close(weight, expected[:-1], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(bias, expected[-1], rtol=1e-7, atol=1e-8)


def test_strong_damping_keeps_the_weights_and_weak_damping_fits():
    x, target, present, _ = _data(3)
    equations = _exact(x, target)
    stiff, _ = equations.solve(present, None, 1e9, intercept=False)
    torch.testing.assert_close(stiff, present, atol=1e-6, rtol=0)
    loose, _ = equations.solve(present, None, 1e-12, intercept=False)
    plain = torch.linalg.lstsq(x.double(), target.double()).solution
    torch.testing.assert_close(loose, plain, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("with_bias", [True, False])
def test_error_is_the_squared_norm(with_bias):
    x, target, weight, bias = _data(4)
    bias = bias if with_bias else None
    direct = x.double() @ weight + (0.0 if bias is None else bias) - target.double()
    found = _equations(x, target).error(weight, bias)
    assert found == pytest.approx(direct.square().sum().item(), rel=1e-5)


def test_no_damping_is_worse_than_keeping_the_weights():
    for seed in range(5):
        x, target, present, bias = _data(seed)
        equations = _equations(x, target)
        for damping in DAMPINGS:
            for start, free in ((None, False), (None, True), (bias, False), (bias, True)):
                fitted = equations.solve(present, start, damping, free)
                assert equations.error(*fitted) <= equations.error(present, start) * (1 + 1e-9)


def test_batches_add_up_and_parts_add_together():
    x, target, *_ = _data(5)
    whole, batched = _equations(x, target), _equations(x[:70], target[:70])
    batched.add(x[70:].reshape(10, 13, INPUTS), target[70:].reshape(10, 13, OUTPUTS))
    joined = _equations(x[:70], target[:70]) + _equations(x[70:], target[70:])
    for other in (batched, joined):
        assert other.count == whole.count == TOKENS
        for name in ("gram", "cross", "inputs", "targets", "energy"):
            torch.testing.assert_close(
                getattr(other, name), getattr(whole, name), rtol=1e-5, atol=1e-3
            )


def test_selected_channels_have_the_equations_of_the_smaller_problem():
    x, target, *_ = _data(6)
    kept = torch.tensor([0, 3, 4, 10])
    part, direct = _equations(x, target).select(kept), _equations(x[:, kept], target)
    for name in ("count", "gram", "cross", "inputs", "targets", "energy"):
        torch.testing.assert_close(getattr(part, name), getattr(direct, name), rtol=1e-6, atol=1e-4)


def test_sums_are_as_good_as_float64_products():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(40, 256, INPUTS, generator=generator) + 1.0
    target = torch.randn(40, 256, OUTPUTS, generator=generator)
    equations = NormalEquations.zeros(INPUTS, OUTPUTS, torch.device("cpu"))
    for chunk in range(0, 40, 8):
        equations.add(x[chunk : chunk + 8], target[chunk : chunk + 8])
    x64, t64 = x.double().reshape(-1, INPUTS), target.double().reshape(-1, OUTPUTS)
    exact = x64.T @ x64
    assert equations.gram.dtype == torch.float64
    assert (equations.gram - exact).norm() / exact.norm() < 1e-6
    crossed = x64.T @ t64
    assert (equations.cross - crossed).norm() / (x64.norm() * t64.norm()) < 1e-6
    assert equations.energy.item() == pytest.approx(t64.square().sum().item(), rel=1e-6)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("damping", [1e-12, 0.01, 1.0])
def test_dead_and_repeated_channels_give_finite_weights(damping, intercept):
    x, target, present, _ = _data(8)
    x[:, 2] = 0.0  # dead
    x[:, 5] = x[:, 4]  # repeated: the Gram matrix is singular
    x[:, 7] = 3.0  # constant: dead once an intercept is taken out
    equations = _equations(x, target)
    weight, bias = equations.solve(present, None, damping, intercept)
    assert torch.isfinite(weight).all() and (bias is None or torch.isfinite(bias).all())
    assert equations.error(weight, bias) <= equations.error(present, None) * (1 + 1e-9)
    torch.testing.assert_close(weight[2], present[2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("intercept", [True, False])
def test_no_signal_at_all_keeps_the_weights(intercept):
    _, target, present, _ = _data(9)
    equations = _equations(torch.zeros(TOKENS, INPUTS), target)
    weight, bias = equations.solve(present, None, 0.1, intercept)
    assert torch.equal(weight, present)
    if intercept:
        torch.testing.assert_close(bias, target.double().mean(0), rtol=1e-5, atol=1e-5)


def test_fewer_tokens_than_channels():
    x, target, present, _ = _data(10, tokens=4)
    equations = _equations(x, target)
    weight, _ = equations.solve(present, None, 0.01, intercept=False)
    assert torch.isfinite(weight).all()
    assert equations.error(weight, None) < equations.error(present, None)


def test_the_damping_is_the_best_of_the_grid_on_held_out_tokens():
    chosen = set()
    for seed in range(8):
        x, target, present, _ = _data(seed)
        few = 14 + 10 * seed
        fitting, held_out = _equations(x[:few], target[:few]), _equations(x[120:], target[120:])
        found = best_damping(fitting, held_out, present, None, False)
        errors = {
            damping: held_out.error(*fitting.solve(present, None, damping, False))
            for damping in DAMPINGS
        }
        assert found == min(errors, key=errors.get)
        chosen.add(found)
    assert chosen <= set(DAMPINGS)


def test_nothing_changes_when_nothing_is_best():
    x, target, *_ = _data(11)
    perfect = torch.linalg.lstsq(x[120:].double(), target[120:].double()).solution
    held_out = _equations(x[120:], target[120:])
    noise = _equations(x[:30], torch.randn(30, OUTPUTS, generator=torch.Generator().manual_seed(0)))
    assert best_damping(noise, held_out, perfect, None, False) is None
    level = _level(noise, held_out, perfect, None)
    fit = level.refitted()
    assert fit.damping is None and torch.equal(fit.weight, perfect)


def test_without_held_out_tokens_a_middle_value_is_used():
    x, target, present, _ = _data(12)
    empty = NormalEquations.zeros(INPUTS, OUTPUTS, torch.device("cpu"))
    assert best_damping(_equations(x, target), empty, present, None, False) == DEFAULT_DAMPING


def _level(fitting, held_out, weight, bias, kept=None, damping="auto", add_bias=False):
    kept = torch.arange(len(weight)) if kept is None else kept
    return OutputProjectionFit(fitting, held_out, weight, bias, kept, damping, add_bias)


@pytest.mark.parametrize("had_bias", [True, False])
def test_compensation_adds_the_mean_output_of_what_goes(had_bias):
    x, target, weight, bias = _data(13)
    bias = bias if had_bias else None
    kept, gone = torch.tensor([0, 1, 2, 5, 6, 9]), [3, 4, 7, 8, 10, 11]
    level = _level(
        _equations(x[:150], target[:150]), _equations(x[150:], target[150:]), weight, bias, kept
    )
    fit = level.compensated()
    expected = x.double().mean(0)[gone] @ weight[gone] + (bias if had_bias else 0.0)
    torch.testing.assert_close(fit.bias, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(fit.weight, weight[kept])
    direct = x.double()[:, kept] @ fit.weight + fit.bias - target.double()
    assert fit.error == pytest.approx(direct.square().sum().item(), rel=1e-5)


def test_a_refit_uses_all_tokens_and_only_the_kept_channels():
    x, target, weight, _ = _data(14)
    kept = torch.tensor([0, 1, 2, 5, 6, 9])
    parts = _equations(x[:150], target[:150]), _equations(x[150:], target[150:])
    fit = _level(*parts, weight, None, kept, damping=0.1).refitted()
    expected = _augmented(x[:, kept], target, weight[kept], 0.1)
    torch.testing.assert_close(fit.weight, expected, rtol=1e-4, atol=1e-5)
    assert fit.bias is None and fit.damping == 0.1
    assert _level(*parts, weight, None, kept, 0.1, add_bias=True).refitted().bias is not None


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_few_tokens_told_by_themselves_give_the_same(with_bias, intercept):
    x, target, present, bias = _data(15, tokens=9)
    bias = bias if with_bias else None
    by_tokens = DualNormalEquations.zeros(INPUTS, OUTPUTS, torch.device("cpu"))
    by_tokens.add(x[:5].reshape(5, 1, -1), target[:5].reshape(5, 1, -1))
    by_tokens.add(x[5:], target[5:])
    rows, gram = by_tokens.in_float64(), _exact(x, target)
    kept = torch.tensor([0, 2, 3, 4, 5, 7, 8, 9, 10, 11])
    for one, other, start in (
        (rows, gram, present),
        (rows.select(kept), gram.select(kept), present[kept]),
    ):
        for damping in DAMPINGS:
            weight, free = one.solve(start, bias, damping, intercept)
            expected, its = other.solve(start, bias, damping, intercept)
            torch.testing.assert_close(weight, expected, rtol=1e-8, atol=1e-9)
            if free is not None:
                torch.testing.assert_close(free, its, rtol=1e-8, atol=1e-9)
            assert one.error(weight, free) == pytest.approx(other.error(weight, free), rel=1e-6)
    both = rows + rows
    assert both.count == 18 and torch.equal(both.inputs, 2 * rows.inputs)


def _collected(x, target, tokens):
    found = ActivationBuffer(tokens, x.shape[-1], target.shape[-1], torch.device("cpu"))
    for part in torch.arange(len(x)).split(60):
        found.add(x[part].unflatten(0, (-1, 1)), target[part].unflatten(0, (-1, 1)))
    return found


@pytest.mark.parametrize("kept", [[0, 3, 4, 10], range(INPUTS)])
def test_collected_rows_have_the_equations_of_their_channels(kept, monkeypatch):
    monkeypatch.setattr(
        "pruning.recovery.solvers.activation_buffer.TOKENS_PER_BATCH", 130
    )  # parts are joined and not
    x, target, present, bias = _data(17)
    kept = torch.tensor(kept)
    rows = _collected(x, target, TOKENS)
    found, exact = rows.select(kept), _exact(x, target).select(kept)
    assert isinstance(found, NormalEquations) and found.count == rows.count == TOKENS
    torch.testing.assert_close(rows.inputs, x.double().sum(0), rtol=1e-6, atol=1e-5)
    for name in ("gram", "cross", "inputs", "targets", "energy"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=1e-6, atol=1e-3)
    # of fewer tokens than inputs the tokens themselves are taken
    few = _collected(x[:9], target[:9], 9).select(kept)
    assert isinstance(few, DualNormalEquations) and few.x.dtype == torch.float64
    assert torch.equal(few.x, x[:9, kept].double()) and torch.equal(few.t, target[:9].double())


def test_the_tokens_are_kept_while_they_fit(monkeypatch):
    cpu = torch.device("cpu")
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        monkeypatch.setattr(
            "pruning.recovery.solvers.activation_buffer.BUFFER_BYTES", 100 * (12 * size + 7 * 4)
        )
        assert isinstance(equations(100, 12, 7, cpu, dtype), ActivationBuffer)
        assert isinstance(equations(101, 12, 7, cpu, dtype), NormalEquations)
    assert isinstance(equations(11, 12, 7, cpu, torch.float32), ActivationBuffer)


@pytest.mark.parametrize("form", ["sums", "tokens"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_trial_is_the_held_out_error_of_the_solution(form, with_bias, intercept):
    x, target, present, bias = _data(18)
    x = x + 5.0 * torch.arange(INPUTS)  # large means, which an intercept takes off
    bias = bias if with_bias else None
    parts = (x[:9], target[:9]), (x[9:40], target[9:40])
    if form == "sums":
        fitting, held_out = (_exact(*part) for part in ((x[40:], target[40:]), parts[1]))
    else:
        fitting, held_out = (DualNormalEquations(*part).in_float64() for part in parts)
    trial = fitting.trial(held_out, present, bias, intercept)
    errors = {d: held_out.error(*fitting.solve(present, bias, d, intercept)) for d in DAMPINGS}
    assert max(errors.values()) > 1.01 * min(errors.values())
    for damping, expected in errors.items():
        assert trial(damping) == pytest.approx(expected, rel=2e-4)


def test_equations_about_an_origin_are_those_of_moved_tokens():
    x, target, mean, shift = *_data(19)[:2], *(t[0] for t in _data(20)[:2])
    moved = _exact(x, target).centred(mean.double(), shift.double())
    direct = _exact(x.double() - mean, target.double() - shift)
    for name in ("count", "gram", "cross", "inputs", "targets", "energy"):
        torch.testing.assert_close(getattr(moved, name), getattr(direct, name))


@pytest.mark.parametrize("intercept", [True, False])
def test_silent_tokens_keep_the_weights(intercept):
    _, target, present, _ = _data(16)
    rows = DualNormalEquations.zeros(INPUTS, OUTPUTS, torch.device("cpu"))
    rows.add(torch.zeros(8, INPUTS), target[:8])
    weight, bias = rows.in_float64().solve(present, None, 0.1, intercept)
    assert torch.equal(weight, present)
    assert not intercept or torch.isfinite(bias).all()
