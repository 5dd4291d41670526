import pytest

from edge_runtime.errors import UsageError
from train.choices import Preset
from train.learning.distillation import spread_stages
from train.learning.optimizer import TOGETHER, Schedule
from train.learning.recipes import PRESETS, Recipe, parse_progressive


def test_every_preset_has_a_recipe_of_plain_values():
    assert set(PRESETS) == set(Preset)
    for recipe in PRESETS.values():
        assert {type(value) for value in recipe.to_dict().values()} <= {str, int, float, bool, tuple, dict, type(None)}


@pytest.mark.parametrize("times", [1, 2])
def test_taught_crops_grow_with_the_stages(times):
    recipe = PRESETS[Preset.TAUGHT]
    recipe = recipe.replace(epochs=recipe.epochs * times)
    sizes, stages = recipe.sizes(224), spread_stages((4, 8, 16, 32), round(recipe.staged * recipe.epochs))
    expected = [stage for stage in ((4, 64), (8, 96), (16, 128), (32, 160)) for _ in range(8 * times)]
    assert list(zip(stages, sizes, strict=False)) == expected
    assert sizes[len(stages) :] == (160,) * 5 * times + (224,) * times


def test_progressive_crops_spread_over_the_epochs():
    recipe = Recipe(epochs=10, progressive=parse_progressive("0.5:64,0.3:128"))
    assert recipe.sizes(224) == (64,) * 5 + (128,) * 3 + (224,) * 2
    assert Recipe(epochs=3).sizes(224) == (224,) * 3
    assert Recipe(epochs=2, progressive=((0.5, 64), (0.4, 128))).sizes(224) == (64, 224)
    assert Recipe(epochs=3, progressive=((1 / 3, 64), (2 / 3, 128))).sizes(224) == (64, 128, 128)


@pytest.mark.parametrize("text", ["64", "0.5:x", "0.9:64,0.9:128", "0.5:8", "0.5:112"])
def test_unusable_progressive_crops_are_refused(text):
    with pytest.raises(UsageError, match="--progressive"):
        parse_progressive(text)


def test_learning_rate_warms_up_and_falls():
    rates = [Schedule(Recipe(epochs=10), 4, ()).learning_rate(step) for step in range(40)]
    assert rates[0] < rates[2] < max(rates) == pytest.approx(1e-3)
    assert rates[-1] < 0.01 * max(rates)
    constant = Schedule(PRESETS[Preset.ARTICLE], 4, ())
    assert {constant.learning_rate(step) for step in (0, 5, 50)} == {1e-3}


def test_each_stage_has_its_own_schedule():
    schedule = Schedule(Recipe(epochs=6), 4, (4, 8, 16, 32))
    rates = [schedule.learning_rate(step) for step in range(24)]
    assert rates[:16:4] == pytest.approx([1e-3] * 4)
    assert max(rates[3:16:4]) < 0.5e-3
    assert (schedule.together, max(rates[16:])) == (16, pytest.approx(TOGETHER * 1e-3))
