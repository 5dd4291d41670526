from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from train.choices import Balance
from train.data.build import load_data
from train.learning.dataset import MOST_EPOCHS
from train.learning.epoch_order import EpochOrder
from train.learning.recipes import Recipe

SOURCES = {(0, "ffhq"): 60, (0, "studio"): 5, (1, "gan"): 21, (1, "swap"): 8, (1, "sdxl"): 3}
COUNT = sum(SOURCES.values())


@pytest.fixture(scope="module")
def records(faces):
    """A face of each label and source, as often as SOURCES says; the reals have no generator."""
    face = load_data(faces).records[0]
    return [
        replace(face, label=label, source=name if label == 0 else "data", generator=name if label else "")
        for (label, name), count in SOURCES.items()
        for _ in range(count)
    ]


def shown(batches, count=COUNT):
    """Return the indices and the draws of the keys in `batches`."""
    keys = np.concatenate(batches)
    return keys % count, keys // count


def test_plain_epoch_shows_every_face_once(records):
    order = EpochOrder.plan(records, Recipe(batch=COUNT, balance=Balance.NONE))
    first, second = (shown(order.batches(epoch)) for epoch in (0, 1))
    assert sorted(first[0]) == sorted(second[0]) == list(range(COUNT))
    assert first[0].tolist() != second[0].tolist()
    assert (set(first[1]), set(second[1])) == ({0}, {1})
    assert (order.counts, order.balanced) == ((65, 32), False)
    assert len(EpochOrder.plan(records[55:70], Recipe(batch=32)).batches(0)) == 1  # too few for a batch are one


def test_balanced_epoch_draws_sources_alike_up_to_three_turns(records):
    order = EpochOrder.plan(records, Recipe(batch=1))
    assert order.draws == {(0, "ffhq"): 34, (0, "studio"): 15, (1, "gan"): 20, (1, "swap"): 19, (1, "sdxl"): 9}
    assert (order.counts, order.balanced) == ((49, 48), True)
    seen = Counter()
    for epoch in range(5):
        indices, draws = shown(order.batches(epoch))
        drawn = Counter((records[index].label, records[index].origin) for index in indices)
        assert drawn == order.draws
        assert len(set(zip(indices, draws, strict=True))) == COUNT  # each draw is augmented on its own
        assert set(draws % MOST_EPOCHS) == {epoch}
        seen.update(indices.tolist())
    # Over the epochs every face of a source is drawn equally often.
    for origin in SOURCES:
        times = [seen[index] for index, face in enumerate(records) if (face.label, face.origin) == origin]
        assert max(times) - min(times) <= 1


def test_balance_is_for_several_sources_in_a_class(records):
    one_each = [face for face in records if face.source == "ffhq" or face.generator == "gan"]
    assert not EpochOrder.plan(one_each, Recipe()).balanced
    assert EpochOrder.plan(one_each, Recipe(balance=Balance.SOURCE)).counts == (41, 40)


@pytest.mark.parametrize("balance", Balance)
def test_resumed_epoch_is_the_rest_in_one_process_or_two(records, balance):
    order = EpochOrder.plan(records, Recipe(batch=8, balance=balance))
    whole = order.batches(2)
    assert len(whole) == COUNT // 8
    assert order.batches(2, first=3) == whole[3:]
    halves = [order.batches(2, rank=rank, world=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in whole]
    assert {len(batch) for half in halves for batch in half} == {4}
