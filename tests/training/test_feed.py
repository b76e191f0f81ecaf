"""Batches one ahead, at the position of those handed out."""

import numpy as np
from stand_in import Numbers

from videobooth_jax.training.feed import Feed


def test_the_position_is_that_of_batches_handed_out():
    placed = []
    feed = Feed(Numbers(), lambda batch: placed.append(1) or batch)
    assert feed.position == "0"
    np.testing.assert_array_equal(feed.peek()["x"], feed.take()["x"])
    assert (feed.position, len(placed)) == ("1", 1)
    feed.prefetch()
    assert (feed.position, len(placed)) == ("1", 2)
    ahead = feed.take()
    assert (feed.position, len(placed)) == ("2", 2)
    again = Numbers()
    again.set_position("1")
    np.testing.assert_array_equal(ahead["x"], next(again)["x"])
